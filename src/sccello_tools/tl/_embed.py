"""Embed the cells of an AnnData."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.counts import (
    CountsSource,
    iter_token_chunks,
    warn_of_empty_cells,
    warn_of_unknown_genes,
)
from sccello_tools._anndata.writing import (
    check_writable,
    write_slots,
    write_token_counts,
    writing,
)
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

    The embedding has one row per cell, in order. Rows of cells without counts in genes of the vocabulary are NaN, and their number
    is reported in one warning. In float32, the row of a cell does not depend on the batch, the matrix type or the order of cells and
    genes by more than 1e-5; its tokens are identical.

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
        ``"cls"``: last hidden state at ``<cls>``, which the published clustering scores use.
        ``"cell"``: L2-normalised output of the cell head, which the losses optimise; comparable with cell type prototypes.
    max_length
        Maximum number of tokens per cell, including ``<cls>``; by default, the number of positions of the model.
    batch_tokens
        Maximum number of tokens per batch, which determines memory and speed.
    device
        %(device)s
    precision
        ``"auto"`` is bfloat16 where the hardware supports it, else float32.
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
        Number of tokens, including ``<cls>``.
    `adata.obs["sccello_truncated"]` : bool, shape (n_obs,)
        Whether a cell has more genes than ``max_length`` allows.
    `adata.uns[key_added]` : dict
        Model, sha256 of its weights, parameters, versions.

    Raises
    ------
    NotCountsError
        If the matrix does not hold raw counts. The message names the layers that do.
    GeneMatchError
        If too few genes match the vocabulary.
    SparseStructureError
        If the index arrays of a sparse matrix are damaged.
    ArgumentError
        If ``max_length`` exceeds the positions of the model, or ``key_added`` cannot be stored in a file.
    ModelNotFoundError, DownloadError, HashMismatchError, WeightsError
        If the model cannot be loaded.
    BackendError
        If the requested device, precision or attention backend is not available, or a loaded model is on another device.
    BackedDataError
        If a copy of a backed AnnData is requested, or ``adata`` is a view of one.

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
    (50, 256)
    >>> sc.pp.neighbors(adata, use_rep="X_sccello")
    """
    from sccello_tools.engine import encode, resolve_precision

    check_writable(adata, copy=copy, key_added=key_added)
    loaded = loaded_model(model, device)
    positions = loaded.config.max_positions
    length = positions if max_length is None else max_length
    if length > positions:
        msg = f"max_length must be <= {positions}, the number of positions of model {loaded.name!r}; got {length}"
        raise ArgumentError(msg)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    match = source.gene_match(adata)
    # the chunks are tokenized in a thread, so the warnings follow below
    chunks = iter_token_chunks(
        adata, Tokenizer(match, length), source, warn_of_empty=False, warn_of_unknown=False
    )

    embedding = np.full((adata.n_obs, loaded.config.hidden_size), np.nan, dtype=np.float32)
    lengths = np.zeros(adata.n_obs, dtype=np.int32)
    truncated = np.zeros(adata.n_obs, dtype=bool)
    known = np.zeros(adata.n_obs, dtype=np.float32)
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
            known[rows] = chunk.tokens.known_fraction
    warn_of_empty_cells(int((lengths == 0).sum()), adata.n_obs)
    warn_of_unknown_genes(known)

    computed = resolve_precision(precision, loaded.device)
    record = {
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "representation": representation,
        "max_length": length,
        "precision": str(computed).removeprefix("torch."),
        **source.provenance(match),
        "ontology_release": loaded.ontology_release or "",
    }
    with writing(adata, copy=copy) as target:
        slots = write_slots(target, key_added, record, obsm={key_added: embedding})
        slots += write_token_counts(target, lengths, truncated)
    log_written("embed", *slots)
    return target if copy else None


def loaded_model(model: str | Path | LoadedModel, device: str) -> LoadedModel:
    """Load a model by name or folder; a loaded model is returned as it is.

    Raises
    ------
    BackendError
        If a loaded model is on another device than requested.
    """
    if not isinstance(model, LoadedModel):
        return load(model, device=device)
    if device not in {"auto", str(model.device), model.device.type}:
        msg = (
            f"device={device!r} was requested, but model {model.name!r} is on {str(model.device)!r}. "
            f"Load it with models.load(..., device={device!r}), or omit device."
        )
        raise BackendError(msg)
    return model
