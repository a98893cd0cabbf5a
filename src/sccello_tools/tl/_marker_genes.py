"""Marker genes of groups of cells by in-silico perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import __version__, _keys
from sccello_tools._anndata.counts import CountsSource, iter_token_chunks, warn_of_empty_cells
from sccello_tools._anndata.groups import sample_cells
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._progress import progress_bar
from sccello_tools.errors import ArgumentError, GroupError
from sccello_tools.tokens import RaggedTokens, Tokenizer

from ._embed import loaded_model
from ._marker_columns import check_expressed, columns_of, first_columns
from ._marker_layout import REST, all_rows, rank_groups, score_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

    from anndata import AnnData

    from sccello_tools._anndata.groups import CellSample
    from sccello_tools.engine import Precision
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def marker_genes(
    adata: AnnData,
    groupby: str | None = None,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    method: Literal["perturb", "fast"] = "perturb",
    genes: Sequence[str] | None = None,
    n_cells_per_group: int = 50,
    reference: str = REST,
    layer: str | None = None,
    gene_ids: str | None = None,
    max_length: int | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "float32",
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    key_added: str = _keys.MARKER_GENES,
    layer_added: str | None = None,
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Rank genes by how far a group's cells move in the model when the gene is masked.

    In each of some cells of a group each gene in turn is replaced by ``<mask>``; the gene's score is ``1 - cosine`` of the cell's
    ``<cls>`` row before and after. The result has the structure of :func:`scanpy.tl.rank_genes_groups`, so that
    ``sc.pl.rank_genes_groups``, ``sc.pl.rank_genes_groups_dotplot`` and their kin, and ``sc.get.rank_genes_groups_df`` take it with
    ``key="sccello_marker_genes"``.

    Parameters
    ----------
    adata
        %(adata)s
    groupby
        Column of ``adata.obs`` with the groups. If not given, all cells are one group ("all"), without anything to compare with.
    model
        %(model)s
    method
        ``"perturb"`` is exact and takes a pass for each gene of each cell. ``"fast"`` approximates all genes of a cell by a few
        passes; it ranks them nearly alike.
    genes
        Some of ``adata.var_names``; all genes that the chosen cells express if not given.
    n_cells_per_group
        Most cells that are drawn from a group.
    reference
        ``"rest"``: the drawn cells of all other groups; or the name of a group.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    max_length
        %(max_length)s
    batch_tokens
        Most tokens in a batch of copies of a cell. The result does not depend on it; memory and speed do.
    device
        %(device)s
    precision
        Of ``"perturb"``. ``"bfloat16"`` is faster where the hardware has it, but its rounding alone gives scores of about 1e-5.
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    key_added
        Key of ``adata.uns`` to write.
    layer_added
        Layer to write the scores of the single cells to; none if not given.
    seed
        Of the draw of cells.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written, each sorted by ``scores`` within its group:

    `adata.uns[key_added]["names"]` : record array, one field a group
        Genes, as in ``adata.var_names``: all of them, or ``genes``. Those that no drawn cell expresses or the model does not know
        are not tested and score 0 with a p-value of 1. Of several variables that are one gene, the first has the score.
    `adata.uns[key_added]["scores"]` : float32
        Mean score over the group's cells less that over the reference's; a gene that a cell does not express counts as 0.
        Without a reference, the mean alone.
    `adata.uns[key_added]["mean_scores"]` : float32
        Mean score over those cells of the group that express the gene.
    `adata.uns[key_added]["logfoldchanges"]` : float32
        log2 of the ratio of the two means; NaN without a reference.
    `adata.uns[key_added]["pvals"]`, `["pvals_adj"]` : float64
        Mann-Whitney test over cells, two-sided, and the same with Benjamini-Hochberg's correction; NaN without a reference.
    `adata.uns[key_added]["shares"]`, `["reference_shares"]` : float32
        Share of the cells in which the model sees the gene, in the group and in the reference; NaN without one.
    `adata.uns[key_added]["params"]` : dict
        Parameters, model, hash of its weights, version.
    `adata.layers[layer_added]` : CSR, float32, shape (n_obs, n_vars)
        Score of each cell and gene; nothing is stored for cells that were not drawn.

    Raises
    ------
    GroupError
        If ``groupby`` is no column, numeric or incomplete, a group has one cell, or the reference is no group.
    GeneMatchError
        If too few genes match the vocabulary, or no drawn cell expresses any of ``genes``.
    NotCountsError
        If the matrix does not hold raw counts.
    WeightsError
        If the model cannot be had, or has no mask token.

    Notes
    -----
    arXiv 2408.12373, marker genes by in-silico perturbation. The cells of one donor are no independent samples: the p-values rank genes rather than prove them.

    With one group, scanpy's plots of expression need a ``groupby=`` of their own.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.marker_genes(
    ...     adata, "cell_type", method="fast", n_cells_per_group=2, max_length=64
    ... )
    >>> sorted(adata.uns["sccello_marker_genes"])[:3]
    ['logfoldchanges', 'mean_scores', 'names']
    """
    from sccello_tools.perturbation import perturbation_scores

    check_writable(adata, copy=copy)
    sample = sample_cells(adata, groupby, n_per_group=n_cells_per_group, seed=seed)
    _check_reference(sample, groupby, reference)
    loaded = loaded_model(model, device)
    positions = loaded.config.max_positions
    length = positions if max_length is None else max_length
    if length > positions:
        msg = f"max_length is {length}, but {loaded.name} has {positions} positions. Pass max_length={positions} or less."
        raise ArgumentError(msg)

    source = CountsSource(layer, gene_ids, counts, min_matched)
    match = source.gene_match(adata)
    column_of_token = first_columns(match)
    asked = None if genes is None else columns_of(genes, adata, match, column_of_token)
    cells = adata[sample.rows]
    if adata.isbacked:
        cells = cells.to_memory()
    chunks = iter_token_chunks(cells, Tokenizer(match, length), source, warn_of_empty=False)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    warn_of_empty_cells(int((tokens.lengths == 0).sum()), len(tokens))
    columns = column_of_token[tokens.ids]  # -1 at <cls>
    check_expressed(asked, columns, adata, len(tokens))

    with progress_bar("perturbing cells", len(tokens)) as advance:
        values = perturbation_scores(
            loaded.network,
            tokens,
            method=method,
            genes=None if asked is None else match.tokens[asked],
            batch_tokens=batch_tokens,
            precision=precision,
            on_progress=advance,
        )
    scores = score_matrix(values, tokens, columns, adata.n_vars)
    tested = np.unique(scores.indices).astype(np.int64) if asked is None else asked
    # scanpy's plots of figures other than expression want a row for every variable
    untested = (
        np.setdiff1d(np.arange(adata.n_vars), tested)
        if asked is None
        else np.empty(0, dtype=np.int64)
    )
    result = rank_groups(scores, sample, reference, adata.var_names, tested, untested)
    result["params"] = {
        "groupby": "" if groupby is None else groupby,
        "reference": reference,
        "method": method,
        "use_raw": False,
        "layer": "X" if layer is None else layer,
        "corr_method": "benjamini-hochberg",
        "n_cells_per_group": n_cells_per_group,
        "n_cells": np.bincount(sample.group, minlength=len(sample.names)),
        "max_length": length,
        "precision": "float32" if method == "fast" else precision,
        "seed": seed,
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "sccello_tools_version": __version__,
    }
    with writing(adata, copy=copy) as target:
        target.uns[key_added] = result
        slots = [f".uns[{key_added!r}]"]
        if layer_added is not None:
            target.layers[layer_added] = all_rows(scores, sample.rows, adata.n_obs)
            slots.append(f".layers[{layer_added!r}]")
    log_written("marker_genes", *slots)
    return target if copy else None


def _check_reference(sample: CellSample, groupby: str | None, reference: str) -> None:
    if groupby is None:
        if reference != REST:
            msg = f"reference is {reference!r}, but without groupby= all cells are one group. Name the column of adata.obs that holds {reference!r}."
            raise GroupError(msg)
        return
    if len(sample.names) < 2:
        msg = f"adata.obs[{groupby!r}] has one group only, {sample.names[0]!r}: there is nothing to compare it with. Leave groupby out to score all cells as one group."
        raise GroupError(msg)
    if reference != REST and reference not in sample.names:
        msg = f"reference is {reference!r}; expected is 'rest' or a group of adata.obs[{groupby!r}]: {', '.join(sample.names[:5])}{', …' * (len(sample.names) > 5)}."
        raise GroupError(msg)
