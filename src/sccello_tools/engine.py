"""Tokens to embeddings: batches by token budget, order, precision, memory."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ._logging import logger
from .errors import ArgumentError, BackendError, WeightsError
from .nn import resolve_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .nn import AttentionFn, AttentionName, Representation, ScCelloModel
    from .tokens import RaggedTokens

Precision = Literal["auto", "float32", "bfloat16"]

# On a CPU a batch should stay in the last-level cache; on a GPU it should fill the device.
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 131_072, "mps": 32_768}


def encode(
    network: ScCelloModel,
    tokens: RaggedTokens,
    *,
    representation: Representation = "cls",
    batch_tokens: int | Literal["auto"] = "auto",
    precision: Precision = "auto",
    attention: AttentionName = "auto",
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Embed cells with the encoder.

    Cells are sorted by length, packed without padding into batches of at most ``batch_tokens`` tokens, and returned in input order.
    If a batch does not fit into memory, the budget is halved. In float32 the embedding of a cell depends on the other cells of its
    batch by less than 1e-5; it is bit-identical for the same batches on the same machine with the same number of threads.

    Parameters
    ----------
    network
        The model, on the device to run on.
    tokens
        Tokens of the cells.
    representation
        ``"cls"``: last hidden state at ``<cls>``. ``"cell"``: L2-normalised output of the cell head.
    batch_tokens
        Maximum number of tokens per batch; a longer cell forms its own batch. ``"auto"`` depends on the device.
    precision
        ``"auto"`` is bfloat16 where the hardware supports it, else float32.
    attention
        Attention backend; ``"auto"`` selects the fastest available one.
    on_progress
        Called after each batch with its number of cells.

    Returns
    -------
    Array of shape (n_cells, d), float32, in input order; NaN for cells without tokens.

    Raises
    ------
    ArgumentError
        If ``batch_tokens`` is not a positive integer or "auto".
    BackendError
        If the requested precision or backend is not available.
    WeightsError
        If the output is not finite for a cell that has tokens.
    MemoryError
        If a single cell does not fit into memory.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> from sccello_tools.engine import encode
    >>> tokens = sccello.pp.tokenize(sccello.datasets.pancreas_tritschler()[:4], max_length=64)
    >>> encode(sccello.models.load("sccello-small").network, tokens).shape
    (4, 256)
    """
    device = next(network.parameters()).device
    dtype = resolve_precision(precision, device)
    backend = resolve_attention(attention, device, dtype)
    budget = _BATCH_TOKENS.get(device.type, 8_192) if batch_tokens == "auto" else batch_tokens
    if not isinstance(budget, int | np.integer) or budget < 1:
        msg = f"batch_tokens must be a positive integer or 'auto', got {batch_tokens!r}"
        raise ArgumentError(msg)
    if tokens.lengths.max(initial=0) > network.config.max_positions:
        tokens = tokens.truncate(network.config.max_positions)

    out = np.full((len(tokens), network.config.hidden_size), np.nan, dtype=np.float32)
    remaining = cells_by_length(tokens.lengths)
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode(), autocast(device, dtype):
            while len(remaining):
                cells = remaining[: cells_that_fit(tokens.lengths[remaining], budget)]
                rows = _encode_or_none(network, tokens, cells, representation, backend)
                if rows is None:
                    # later batches would be as large, so keep the smaller budget
                    budget = max(1, int(tokens.lengths[cells].sum()) // 2)
                    _free_memory(device, budget)
                    continue
                out[cells] = rows
                remaining = remaining[len(cells) :]
                if on_progress:
                    on_progress(len(cells))
    finally:
        network.train(was_training)
    if on_progress:
        on_progress(int((tokens.lengths == 0).sum()))
    _check_finite(out, tokens)
    return out


def cell_representation(network: ScCelloModel, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ``cell`` representation of cells, shape (n_cells, d), given their ``cls`` representation."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        # PyTorch does not support read-only arrays, such as those of Arrow
        given = torch.from_numpy(np.require(hidden, requirements=["C", "W"])).to(device)
        found: NDArray[np.float32] = network.cell_representation(given).cpu().numpy()
    return found


def cells_by_length(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the indices of cells with tokens, from longest to shortest."""
    # a stable sort makes batches reproducible
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    return order[: int((lengths > 0).sum())]


def cells_that_fit(lengths: NDArray[np.integer], budget: int) -> int:
    """Return how many of the first cells have at most ``budget`` tokens in total; at least one."""
    # every cell has at least one token, so no more than `budget` cells can fit
    total = np.cumsum(lengths[: budget + 1])
    return max(1, int(np.searchsorted(total, budget, side="right")))


def pack(
    tokens: RaggedTokens, cells: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Pack cells into flat tensors: ids (T,) int64, cu_seqlens (B + 1,) int32, maximum length."""
    batch = tokens.take(cells)
    ids = torch.from_numpy(batch.ids.astype(np.int64)).to(device)
    cu_seqlens = torch.from_numpy(batch.indptr.astype(np.int32)).to(device)
    return ids, cu_seqlens, int(batch.lengths.max())


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    Raises
    ------
    BackendError
        If the precision is unknown or the device does not support it.
    """
    if precision == "float32":
        return torch.float32
    if precision == "auto":
        dtype = torch.bfloat16 if _has_bfloat16(device) else torch.float32
        logger.debug("precision: %s", dtype)
        return dtype
    if precision == "bfloat16":
        if device.type == "cuda" and not _has_bfloat16(device):
            msg = f"precision='bfloat16' is not supported by {device}. Use precision='float32'."
            raise BackendError(msg)
        return torch.bfloat16  # emulated, and slow, on CPUs without bfloat16 units
    msg = f"precision must be 'auto', 'float32' or 'bfloat16', got {precision!r}"  # type: ignore[unreachable]
    raise BackendError(msg)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 units."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch has no public function for this; if a private one disappears, assume no support
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Return torch's autocast to a precision of :func:`resolve_precision`; nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _encode_or_none(
    network: ScCelloModel,
    tokens: RaggedTokens,
    cells: NDArray[np.int64],
    representation: Representation,
    backend: AttentionFn,
) -> NDArray[np.float32] | None:
    """Encode one batch; None if it does not fit into memory and can be split."""
    device = next(network.parameters()).device
    try:
        ids, cu_seqlens, max_seqlen = pack(tokens, cells, device)
        rows = network.encode(
            ids, cu_seqlens, max_seqlen, representation=representation, attention=backend
        )
        return rows.float().cpu().numpy()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(cells) == 1:
            msg = (
                f"One cell of {int(tokens.lengths[cells[0]])} tokens does not fit into the memory of {device}. "
                "Reduce max_length or use device='cpu'."
            )
            raise MemoryError(msg) from error
    return None


def _free_memory(device: torch.device, budget: int) -> None:
    """Free the memory of a failed batch; must be called outside the except clause, which keeps the batch alive."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    logger.warning(
        "out of memory on %s: continuing with at most %d tokens per batch", device, budget
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that a device is out of memory."""
    # torch's CPU allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _check_finite(out: NDArray[np.float32], tokens: RaggedTokens) -> None:
    broken = np.flatnonzero(~np.isfinite(out).all(axis=1) & (tokens.lengths > 0))
    if len(broken):
        msg = (
            f"The model returned NaN or infinite values for {len(broken):,} cells that have tokens (rows {broken[:5].tolist()}). "
            "The weights are damaged or the precision is too low: try precision='float32'."
        )
        raise WeightsError(msg)
