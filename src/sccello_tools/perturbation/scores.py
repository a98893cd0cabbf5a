"""Perturbation scores of many cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from sccello_tools._logging import logger
from sccello_tools.engine import _autocast, _is_out_of_memory, resolve_precision
from sccello_tools.errors import ArgumentError, WeightsError
from sccello_tools.nn import resolve_attention

from .exact import exact_scores
from .fast import fast_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionFn, AttentionName, Encoder, ScCelloModel
    from sccello_tools.tokens import RaggedTokens

PerturbMethod = Literal["perturb", "fast"]

# Copies of a cell that together stay in the caches of a CPU, or fill a GPU.
_BATCH_TOKENS = {"cpu": 4_096, "cuda": 131_072}


def perturbation_scores(
    network: ScCelloModel,
    tokens: RaggedTokens,
    *,
    method: PerturbMethod = "perturb",
    genes: NDArray[np.integer] | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    attention: AttentionName = "auto",
    n_directions: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Score each token of each cell by how far the cell moves when ``<mask>`` takes its place (METHOD "Marker genes").

    Parameters
    ----------
    network
        The model, on the device to run on.
    tokens
        Tokens of the cells; no cell longer than the model's positions.
    method
        ``"perturb"`` is exact, ``"fast"`` an approximation; see :func:`~sccello_tools.perturbation.fast.fast_scores`.
    genes
        Token ids to score; all if not given.
    batch_tokens
        Most tokens in a batch of copies of a cell.
    precision
        ``"perturb"`` computes in bfloat16 where that is asked for; its rounding alone gives scores of about 1e-5. ``"fast"`` always
        computes in float32.
    attention
        Backend of the middle layers for ``"perturb"``.
    n_directions
        Gradients that ``"fast"`` takes for a cell.
    on_progress
        Called with 1 after each cell.

    Returns
    -------
    Array of shape (n_tokens,), aligned with ``tokens.ids``: ``1 - cosine``, in [0, 2]; NaN at ``<cls>`` and where ``genes`` does not ask.

    Raises
    ------
    WeightsError
        If the model has no mask token that was trained, or gives NaN.
    BackendError
        If a precision or backend asked for by name is not available.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sccello_tools.tokens import RaggedTokens
    >>> from sccello_tools.nn import EncoderConfig, ScCelloModel
    >>> from sccello_tools.perturbation import perturbation_scores
    >>> network = ScCelloModel(EncoderConfig(vocab_size=50, cls_token_id=49, hidden_size=16))
    >>> ids = np.array([49, 3, 4, 5], dtype=np.int32)
    >>> tokens = RaggedTokens(np.array([0, 4]), ids, np.zeros(4, dtype=np.float32))
    >>> np.isnan(perturbation_scores(network, tokens)).tolist()
    [True, False, False, False]
    """
    if method not in {"perturb", "fast"}:
        msg = f"method is {method!r}; expected is 'perturb' or 'fast'"
        raise ArgumentError(msg)
    if n_directions < 0:
        msg = f"n_directions is {n_directions}; expected is 0 or more"
        raise ArgumentError(msg)
    config, encoder = network.config, network.encoder
    _check_mask_token(encoder)
    device = next(network.parameters()).device
    dtype = resolve_precision(precision, device)
    backend = resolve_attention(attention, device, dtype)
    budget = _BATCH_TOKENS.get(device.type, 8_192) if batch_tokens == "auto" else batch_tokens
    if budget < 1:
        msg = f"batch_tokens is {budget}; expected is a positive number or 'auto'"
        raise ArgumentError(msg)

    wanted = tokens.ids != config.cls_token_id
    if genes is not None:
        wanted &= np.isin(tokens.ids, genes)
    out = np.full(len(tokens.ids), np.nan, dtype=np.float32)
    was_training = network.training
    network.eval()
    try:
        for cell in range(len(tokens)):
            start = tokens.indptr[cell]
            which = np.flatnonzero(wanted[start : tokens.indptr[cell + 1]])
            if len(which):
                ids = torch.from_numpy(tokens[cell].astype(np.int64)).to(device)
                positions = torch.from_numpy(which).to(device)
                if method == "fast":
                    scores = fast_scores(encoder, ids, n_directions=n_directions)[positions - 1]
                else:
                    with torch.inference_mode(), _autocast(device, dtype):
                        scores = _exact_or_smaller(encoder, ids, positions, backend, budget)
                out[start + which] = scores.cpu().numpy()
            if on_progress:
                on_progress(1)
    finally:
        network.train(was_training)
    if not np.isfinite(out[wanted]).all():
        msg = "The model gave NaN or infinite perturbation scores. Its weights are damaged, or the precision is too low: try precision='float32'."
        raise WeightsError(msg)
    return out


def _exact_or_smaller(
    encoder: Encoder,
    ids: torch.Tensor,
    which: torch.Tensor,
    attention: AttentionFn,
    batch_tokens: int,
) -> torch.Tensor:
    """Score one cell; with batches half as large as long as memory does not suffice."""
    while True:
        try:
            return exact_scores(encoder, ids, which, attention=attention, batch_tokens=batch_tokens)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if batch_tokens <= len(ids):
                msg = f"One cell of {len(ids)} tokens does not fit into the memory of {ids.device}. Lower max_length, or use device='cpu'."
                raise MemoryError(msg) from error
        batch_tokens //= 2
        logger.warning(
            "out of memory on %s: going on with batches of %d tokens", ids.device, batch_tokens
        )


def _check_mask_token(encoder: Encoder) -> None:
    mask = encoder.word_embeddings.weight[encoder.config.mask_token_id]
    if not bool(mask.isfinite().all()) or not bool(mask.any()):
        msg = (
            f"The model has no embedding of its mask token (id {encoder.config.mask_token_id}: all zero, or not finite), "
            "so that no gene can be replaced by it. Use a model that was trained with the masked-gene loss, such as 'sccello-small'."
        )
        raise WeightsError(msg)
