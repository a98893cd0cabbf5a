"""Tokens in, embeddings out: token-budget batches, order restored, precision, memory."""

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

# Below four rows a thread, the matrix products of a CPU sum in another order, and the last bits of a cell would tell
# how many others were in its batch. Such a batch gets cells of <cls> alone, which cost a token each, up to this many a thread.
_ROWS_PER_THREAD = 8


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
    """Embed each cell.

    Cells are batched by length up to a number of tokens, without padding, and come back in their order. A batch that does not fit
    into memory is halved until it does. On a CPU in float32 with one or two threads, a cell's vector is the same to
    the last bit whatever is in its batch.

    Parameters
    ----------
    network
        The model, on the device to run on.
    tokens
        Tokens of the cells.
    representation
        ``"cls"``: last hidden state at ``<cls>``. ``"cell"``: unit vector of the cell head.
    batch_tokens
        Most tokens in a batch; a longer cell is a batch of its own.
    precision
        ``"auto"`` is bfloat16 where the hardware computes it, else float32.
    attention
        Backend; ``"auto"`` is the fastest that works here.
    on_progress
        Called with the number of cells after each batch.

    Returns
    -------
    Array of shape (n_cells, d), float32, rows in input order; NaN for cells without tokens.

    Raises
    ------
    BackendError
        If a precision or backend asked for by name is not available.
    WeightsError
        If the model gives NaN for a cell that has tokens.
    MemoryError
        If a single cell does not fit.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> from sccello_tools.engine import encode
    >>> tokens = sccello.pp.tokenize(sccello.datasets.pancreas_tritschler()[:4], max_length=64)
    >>> encode(sccello.models.load("sccello-small").network, tokens).shape
    (4, 128)
    """
    device = next(network.parameters()).device
    dtype = resolve_precision(precision, device)
    backend = resolve_attention(attention, device, dtype)
    budget = _BATCH_TOKENS.get(device.type, 8_192) if batch_tokens == "auto" else batch_tokens
    if not isinstance(budget, int | np.integer) or budget < 1:
        msg = f"batch_tokens is {batch_tokens!r}; expected is a positive whole number or 'auto'"
        raise ArgumentError(msg)
    if tokens.lengths.max(initial=0) > network.config.max_positions:
        tokens = tokens.truncate(network.config.max_positions)

    out = np.full((len(tokens), network.config.hidden_size), np.nan, dtype=np.float32)
    waiting = cells_by_length(tokens.lengths)
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode(), _autocast(device, dtype):
            while len(waiting):
                cells = waiting[: cells_that_fit(tokens.lengths[waiting], budget)]
                rows = _encode_or_none(network, tokens, cells, representation, backend)
                if rows is None:
                    # what comes after is as large, so the smaller budget stays
                    budget = max(1, int(tokens.lengths[cells].sum()) // 2)
                    _free_memory(device, budget)
                    continue
                out[cells] = rows
                waiting = waiting[len(cells) :]
                if on_progress:
                    on_progress(len(cells))
    finally:
        network.train(was_training)
    if on_progress:
        on_progress(int((tokens.lengths == 0).sum()))
    _check_finite(out, tokens)
    return out


def cells_by_length(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Order the cells from longest to shortest; cells without tokens are left out."""
    # a stable sort keeps batches the same from run to run
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    return order[: int((lengths > 0).sum())]


def cells_that_fit(lengths: NDArray[np.integer], budget: int) -> int:
    """Count the first cells that hold ``budget`` tokens or fewer together; at least one."""
    # every cell holds a token, so that no more than `budget` cells can fit
    total = np.cumsum(lengths[: budget + 1])
    return max(1, int(np.searchsorted(total, budget, side="right")))


def pack(
    tokens: RaggedTokens, cells: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Lay some cells out flat: ids (T,) int64, cu_seqlens (B + 1,) int32, length of the longest."""
    batch = tokens.take(cells)
    ids = torch.from_numpy(batch.ids.astype(np.int64)).to(device)
    cu_seqlens = torch.from_numpy(batch.indptr.astype(np.int32)).to(device)
    return ids, cu_seqlens, int(batch.lengths.max())


def _with_fillers(ids: torch.Tensor, cu_seqlens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Add cells of one token to a batch of few cells; see ``_ROWS_PER_THREAD``."""
    n = _ROWS_PER_THREAD * torch.get_num_threads() + 1 - len(cu_seqlens)
    if n <= 0:
        return ids, cu_seqlens
    more = cu_seqlens[-1] + torch.arange(1, n + 1, dtype=cu_seqlens.dtype)
    return torch.cat([ids, ids[:1].expand(n)]), torch.cat([cu_seqlens, more])


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Choose the number format to compute in, or refuse one that the device does not have."""
    if precision == "float32":
        return torch.float32
    if precision == "auto":
        dtype = torch.bfloat16 if _has_bfloat16(device) else torch.float32
        logger.debug("precision: %s", dtype)
        return dtype
    if precision == "bfloat16":
        if device.type == "cuda" and not _has_bfloat16(device):
            msg = f"precision='bfloat16' was asked for, but {device} does not compute it. Use precision='float32'."
            raise BackendError(msg)
        return torch.bfloat16  # every CPU can, if slowly where it emulates it
    msg = f"precision is {precision!r}; expected is 'auto', 'float32' or 'bfloat16'"  # type: ignore[unreachable]
    raise BackendError(msg)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch has no public question for this yet, so an answer that is missing counts as no
        questions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, question, bool)() for question in questions)
    return False


def _autocast(
    device: torch.device, dtype: torch.dtype
) -> contextlib.AbstractContextManager[object]:
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
    """Encode one batch; None if it does not fit into memory but a smaller one might."""
    device = next(network.parameters()).device
    try:
        ids, cu_seqlens, max_seqlen = pack(tokens, cells, device)
        if device.type == "cpu":
            ids, cu_seqlens = _with_fillers(ids, cu_seqlens)
        rows = network.encode(
            ids, cu_seqlens, max_seqlen, representation=representation, attention=backend
        )
        return rows[: len(cells)].float().cpu().numpy()
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        if len(cells) == 1:
            msg = (
                f"One cell of {int(tokens.lengths[cells[0]])} tokens does not fit into the memory of {device}. "
                "Lower max_length, or use device='cpu'."
            )
            raise MemoryError(msg) from error
    return None


def _free_memory(device: torch.device, budget: int) -> None:
    """Give back what a failed batch held. Only out of its except clause is the batch itself let go."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    logger.warning(
        "out of memory on %s: going on with batches of at most %d tokens", device, budget
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch's CPU allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _check_finite(out: NDArray[np.float32], tokens: RaggedTokens) -> None:
    broken = np.flatnonzero(~np.isfinite(out).all(axis=1) & (tokens.lengths > 0))
    if len(broken):
        msg = (
            f"The model gave NaN or infinite values for {len(broken):,} cells that have tokens (rows {broken[:5].tolist()}). "
            "Its weights are damaged, or the precision is too low: try precision='float32'."
        )
        raise WeightsError(msg)
