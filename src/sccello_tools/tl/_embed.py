"""Embed the cells of an AnnData."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import __version__, _keys
from sccello_tools._anndata.counts import CountsSource, iter_token_chunks, warn_of_empty_cells
from sccello_tools._anndata.writing import check_writable, write_token_counts, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._progress import progress_bar
from sccello_tools._threads import prefetch
from sccello_tools.errors import ArgumentError, BackendError
from sccello_tools.models import LoadedModel, load
from sccello_tools.tokens import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from anndata import AnnData

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, Representation
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def embed(
    adata: AnnData,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    layer: str | None = None,
    gene_ids: str | None = None,
    key_added: str = _keys.EMBEDDING,
    representation: Representation = "cls",
    max_length: int | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    attention: AttentionName = "auto",
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    copy: bool = False,
) -> AnnData | None:
    """Embed each cell with a scCello model.

    Every cell gives a row, in order. A cell without any gene of the vocabulary gives NaN; how many do is said in one warning.
    The same cell gives the same row whatever the batch, the matrix type or the order of cells and genes.

    Parameters
    ----------
    adata
        %(adata)s
    model
        %(model)s
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    key_added
        Key of ``adata.obsm`` and ``adata.uns`` to write.
    representation
        ``"cls"``: last hidden state at ``<cls>``, the vector that the published clustering scores use.
        ``"cell"``: unit vector of the cell head, which the losses train; for novel types and drug response.
    max_length
        Most tokens of a cell, ``<cls>`` included; the model's number of positions if not given.
    batch_tokens
        Most tokens in a batch. The result does not depend on it; memory and speed do.
    device
        %(device)s
    precision
        ``"auto"`` computes in bfloat16 where the hardware does, else in float32. ``"float32"`` is exact everywhere.
    attention
        Attention backend: ``"auto"``, ``"flash"``, ``"torch_varlen"`` or ``"sdpa"``.
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written:

    `adata.obsm[key_added]` : float32, shape (n_obs, d)
        Embedding.
    `adata.obs["sccello_n_tokens"]` : int32, shape (n_obs,)
        Tokens that the model saw, ``<cls>`` included.
    `adata.obs["sccello_truncated"]` : bool, shape (n_obs,)
        Whether genes were cut off at ``max_length``.
    `adata.uns[key_added]` : dict
        Model, hash of its weights, parameters, versions.

    Raises
    ------
    NotCountsError
        If the matrix does not hold raw counts. The message names the layers that do.
    GeneMatchError
        If too few genes match the vocabulary.
    ModelNotFoundError, DownloadError, HashMismatchError, WeightsError
        If the model cannot be had.
    BackendError
        If a device, precision or attention backend asked for by name is not available, or ``device`` is not that of a loaded model.
    BackedDataError
        If ``adata`` is backed and a copy is asked for, or it is a view of a backed AnnData.

    Notes
    -----
    arXiv 2408.12373, section 3.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:50].copy()
    >>> sccello.tl.embed(adata)
    >>> adata.obsm["X_sccello"].shape
    (50, 128)
    >>> sc.pp.neighbors(adata, use_rep="X_sccello")
    """
    from sccello_tools.engine import encode, resolve_precision

    check_writable(adata, copy=copy)
    loaded = loaded_model(model, device)
    positions = loaded.config.max_positions
    length = positions if max_length is None else max_length
    if length > positions:
        msg = f"max_length is {length}, but {loaded.name} has {positions} positions. Pass max_length={positions} or less."
        raise ArgumentError(msg)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    match = source.gene_match(adata)
    chunks = iter_token_chunks(adata, Tokenizer(match, length), source, warn_of_empty=False)

    embedding = np.full((adata.n_obs, loaded.config.hidden_size), np.nan, dtype=np.float32)
    lengths = np.zeros(adata.n_obs, dtype=np.int32)
    truncated = np.zeros(adata.n_obs, dtype=bool)
    with (
        progress_bar("embedding cells", adata.n_obs) as advance,
        closing(prefetch(chunks)) as prepared,
    ):
        for chunk in prepared:
            rows = slice(chunk.start, chunk.start + len(chunk.tokens))
            embedding[rows] = encode(
                loaded.network,
                chunk.tokens,
                representation=representation,
                batch_tokens=batch_tokens,
                precision=precision,
                attention=attention,
                on_progress=advance,
            )
            lengths[rows] = chunk.tokens.lengths
            truncated[rows] = chunk.tokens.truncated
    warn_of_empty_cells(int((lengths == 0).sum()), adata.n_obs)

    computed = resolve_precision(precision, loaded.device)
    with writing(adata, copy=copy) as target:
        target.obsm[key_added] = embedding
        write_token_counts(target, lengths, truncated)
        target.uns[key_added] = {
            "model": loaded.name,
            "weights_sha256": loaded.sha256,
            "representation": representation,
            "max_length": length,
            "precision": str(computed).removeprefix("torch."),
            **source.provenance(match),
            "ontology_release": loaded.ontology_release or "",
            "sccello_tools_version": __version__,
        }
    slots = (
        f".obsm[{key_added!r}]",
        f".uns[{key_added!r}]",
        f".obs[{_keys.N_TOKENS!r}]",
        f".obs[{_keys.TRUNCATED!r}]",
    )
    log_written("embed", *slots)
    return target if copy else None


def loaded_model(model: str | Path | LoadedModel, device: str) -> LoadedModel:
    """Load a model by name; one that is loaded stays where it is."""
    if not isinstance(model, LoadedModel):
        return load(model, device=device)
    if device not in {"auto", str(model.device), model.device.type}:
        msg = (
            f"device is {device!r}, but model {model.name!r} was loaded on {str(model.device)!r}. "
            f"Load it there with models.load(..., device={device!r}), or leave device out."
        )
        raise BackendError(msg)
    return model
