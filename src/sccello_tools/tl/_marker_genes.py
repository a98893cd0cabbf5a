"""Marker genes of groups of cells by in-silico perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools import __version__, _keys
from sccello_tools._anndata.counts import CountsSource, warn_user
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._messages import quoted
from sccello_tools._progress import progress_bar
from sccello_tools._random import seed_of
from sccello_tools._validation import check_choice
from sccello_tools.errors import GeneMatchError, GroupError

from ._perturbed_cells import PerturbedCells, uses_raw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Final, Literal

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._anndata.groups import CellSample
    from sccello_tools._random import RNGLike
    from sccello_tools.engine import Precision
    from sccello_tools.models import LoadedModel
    from sccello_tools.perturbation import PerturbMethod
    from sccello_tools.perturbation.statistics import GroupStatistics
    from sccello_tools.tokens import RaggedTokens
    from sccello_tools.tokens.counts import CountsPolicy

REST: Final = "rest"
_EPS: Final = 1e-9  # added to both means of a fold change, as in scanpy


@shared_docs
def marker_genes(
    adata: AnnData,
    groupby: str | None = None,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    method: PerturbMethod = "perturb",
    genes: Sequence[str] | None = None,
    n_cells_per_group: int = 50,
    reference: str | int = REST,
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
    rng: RNGLike = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Rank genes by how far the cells of a group move in the embedding when the gene is masked.

    In a sample of the cells of each group, each gene in turn is replaced by ``<mask>``. The score of gene :math:`j` in cell :math:`i` is

    .. math:: s_{ij} = 1 - \cos\left(h(x_i), h(x_i^{(j \to \mathrm{mask})})\right)

    with :math:`h` the last hidden state at ``<cls>``. The result has the structure of :func:`scanpy.tl.rank_genes_groups`:
    ``sc.pl.rank_genes_groups_dotplot``, ``sc.get.rank_genes_groups_df`` and similar functions accept ``key="sccello_marker_genes"``.
    To perturb chosen genes or gene sets, see :func:`perturb`.

    Parameters
    ----------
    adata
        %(adata)s
    groupby
        Column of ``adata.obs`` with the groups. If not given, all cells form one group ("all") without a reference.
    model
        %(model)s
    method
        ``"perturb"``: exact, one pass per gene of each cell. ``"fast"``: approximation for all genes at the cost of a few passes, with a
        similar ranking; exact for models with one layer, such as the bundled one. ``"screen"``: exact for the 100 genes of each cell that rank highest by ``"fast"``, ``"fast"`` for the others.
    genes
        Names from ``adata.var_names``; by default all genes that the sampled cells express.
    n_cells_per_group
        Maximum number of cells sampled per group.
    reference
        ``"rest"``: the sampled cells of all other groups; or the name of a group.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    max_length
        %(max_length)s
    batch_tokens
        Maximum number of tokens in a batch of copies of a cell. It affects memory and speed, not the result.
    device
        %(device)s
    precision
        Precision of exact scores. ``"bfloat16"`` is faster on suitable hardware, but its rounding alone gives scores of about 1e-5.
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    key_added
        Key of ``adata.uns``.
    layer_added
        Layer for the scores of single cells; not written by default.
    rng
        Seed or generator of the sample of cells.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the AnnData with ``copy=True``. Fields written, each sorted by ``scores`` within its group:

    `adata.uns[key_added]["names"]` : record array, one field per group
        Genes, as in ``adata.var_names``: all of them, or ``genes``. Genes that no sampled cell expresses or that are not in the
        vocabulary are not tested; they have score 0 and p-value 1. If several variables are one gene, the first has the score.
    `adata.uns[key_added]["scores"]` : float32
        Mean score over the cells of the group minus that of the reference, where cells without the gene count as 0. Without a
        reference, the mean alone.
    `adata.uns[key_added]["mean_scores"]` : float32
        Mean score over the cells of the group that express the gene, as in the paper.
    `adata.uns[key_added]["logfoldchanges"]` : float32
        log2 of the ratio of the two means; NaN without a reference.
    `adata.uns[key_added]["pvals"]`, `["pvals_adj"]` : float64
        Two-sided Mann-Whitney test over cells, and Benjamini-Hochberg correction; NaN without a reference.
    `adata.uns[key_added]["fractions"]`, `["reference_fractions"]` : float32
        Fraction of cells with a token of the gene in the group and in the reference; NaN without a reference.
    `adata.uns[key_added]["params"]` : dict
        Parameters, model, sha256 of its weights, version.
    `adata.layers[layer_added]` : CSR, float32, shape (n_obs, n_vars)
        Score of each cell and gene; nothing is stored for cells that were not sampled.

    Raises
    ------
    GroupError
        If ``groupby`` is not a column, numeric or incomplete, a group has a single cell, or the reference is not a group.
    GeneMatchError
        If too few genes match the vocabulary, or no sampled cell expresses any of ``genes``.
    NotCountsError
        If the matrix does not contain raw counts.
    WeightsError
        If the model cannot be loaded or has no trained mask token.

    Notes
    -----
    arXiv 2408.12373, marker gene prediction by in-silico perturbation. Cells of one donor are not independent samples: use the p-values
    to rank genes, not as evidence of reproducibility.

    With a single group, scanpy's plots of expression require a ``groupby=``.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.marker_genes(
    ...     adata, "cell_type", method="fast", n_cells_per_group=2, max_length=64
    ... )
    >>> sorted(adata.uns["sccello_marker_genes"])[:3]
    ['fractions', 'logfoldchanges', 'mean_scores']
    """
    from sccello_tools.perturbation import perturbation_scores
    from sccello_tools.perturbation.scores import METHODS

    keys = {} if layer_added is None else {"layer_added": layer_added}
    check_writable(adata, copy=copy, key_added=key_added, **keys)
    check_choice("method", method, METHODS)
    reference = str(reference)  # scanpy's clusters are named "0", "1", ...
    seed = seed_of(rng)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    cells = PerturbedCells.draw(
        adata,
        source,
        groupby=groupby,
        n_cells_per_group=n_cells_per_group,
        model=model,
        device=device,
        max_length=max_length,
        seed=seed,
    )
    sample, tokens, names = cells.sample, cells.tokens, cells.names
    _check_reference(sample, groupby, reference)
    asked = None if genes is None else _asked(cells, genes)
    columns = cells.column_of_token[tokens.ids]  # -1 for <cls>
    _check_expressed(asked, columns, names, len(tokens))
    with progress_bar("perturbing cells", len(tokens)) as advance:
        values = perturbation_scores(
            cells.model.network,
            tokens,
            method=method,
            genes=None if asked is None else cells.match.tokens[asked],
            batch_tokens=batch_tokens,
            precision=precision,
            on_progress=advance,
        )
    scores = _score_matrix(values, tokens, columns, len(names))
    tested = np.unique(scores.indices).astype(np.int64) if asked is None else asked
    # scanpy's plots of other values than expression require a row for every variable
    untested = (
        np.setdiff1d(np.arange(len(names)), tested)
        if asked is None
        else np.empty(0, dtype=np.int64)
    )
    result = _rank_groups(scores, sample, reference, names, tested, untested)
    result["params"] = {
        "groupby": "" if groupby is None else groupby,
        "reference": reference,
        "method": method,
        "use_raw": uses_raw(source),
        "layer": "X" if layer is None else layer,
        "corr_method": "benjamini-hochberg",
        "n_cells_per_group": n_cells_per_group,
        "n_cells": np.bincount(sample.group, minlength=len(sample.names)),
        "max_length": cells.max_length,
        "precision": "float32" if method == "fast" else precision,
        "seed": seed,
        "model": cells.model.name,
        "weights_sha256": cells.model.sha256,
        _keys.VERSION: __version__,
    }
    with writing(adata, copy=copy) as target:
        target.uns[key_added] = result
        slots = [f".uns[{key_added!r}]"]
        if layer_added is not None:
            target.layers[layer_added] = cells.layer_of(scores, adata)
            slots.append(f".layers[{layer_added!r}]")
    log_written("marker_genes", *slots)
    return target if copy else None


def _check_reference(sample: CellSample, groupby: str | None, reference: str) -> None:
    if groupby is None:
        if reference != REST:
            msg = f"reference={reference!r} requires groups. Pass the column of adata.obs with {reference!r} as groupby=."
            raise GroupError(msg)
        return
    if len(sample.names) < 2:
        msg = f"adata.obs[{groupby!r}] has a single group, {sample.names[0]!r}, and a reference is required. Omit groupby to score all cells as one group."
        raise GroupError(msg)
    if reference != REST and reference not in sample.names:
        msg = f"reference must be 'rest' or a group of adata.obs[{groupby!r}] ({quoted(sample.names)}), got {reference!r}"
        raise GroupError(msg)


def _asked(cells: PerturbedCells, genes: Sequence[str]) -> NDArray[np.int64]:
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        msg = "genes is empty. Pass names from adata.var_names, or None for all genes."
        raise GeneMatchError(msg)
    return np.unique(cells.columns_of(names))


def _check_expressed(
    asked: NDArray[np.int64] | None, columns: NDArray[np.int64], names: pd.Index, n_cells: int
) -> None:
    if asked is None:
        return
    absent = np.setdiff1d(asked, columns)
    if not len(absent):
        return
    shown = ", ".join(map(repr, names[absent[:5]]))
    if len(absent) == len(asked):
        msg = (
            f"None of the {len(asked)} genes ({shown}) is among the tokens of the {n_cells} sampled cells. Choose genes that these cells "
            "express, raise n_cells_per_group, or raise max_length if cells are truncated."
        )
        raise GeneMatchError(msg)
    warn_user(
        f"{len(absent)} of {len(asked)} genes are in none of the {n_cells} sampled cells and have score 0: {shown}."
    )


def _score_matrix(
    values: NDArray[np.float32], tokens: RaggedTokens, columns: NDArray[np.int64], n_vars: int
) -> sparse.csr_matrix:
    """Return (n_cells, n_vars) scores; scores of 0 are stored, too."""
    kept = ~np.isnan(values)
    rows = np.repeat(np.arange(len(tokens)), tokens.lengths)[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(tokens)))])
    matrix = sparse.csr_matrix((values[kept], columns[kept], indptr), shape=(len(tokens), n_vars))
    matrix.sort_indices()
    return matrix


def _rank_groups(
    scores: sparse.csr_matrix,
    sample: CellSample,
    reference: str,
    names: pd.Index,
    tested: NDArray[np.int64],
    untested: NDArray[np.int64],
) -> dict[str, object]:
    """Compute the statistics of all groups in the structure of scanpy."""
    from sccello_tools.perturbation.statistics import group_statistics

    tables: dict[str, pd.DataFrame] = {}
    scores = scores[:, tested]
    for i, group in enumerate(sample.names):
        if group == reference and reference != REST:
            continue
        members = sample.group == i
        compared = (
            ~members if reference == REST else np.array(sample.names)[sample.group] == reference
        )
        statistics = group_statistics(scores, members, compared)
        tables[group] = _table(
            statistics, names[tested], names[untested], has_reference=bool(compared.any())
        )
    dtypes = {
        "names": "O",
        "scores": "float32",
        "mean_scores": "float32",
        "logfoldchanges": "float32",
        "pvals": "float64",
        "pvals_adj": "float64",
        "fractions": "float32",
        "reference_fractions": "float32",
    }
    # record arrays, because names of groups may contain "/", which keys of h5ad files must not
    return {
        field: pd.DataFrame({group: table[field] for group, table in tables.items()}).to_records(
            index=False, column_dtypes=dtype
        )
        for field, dtype in dtypes.items()
    }


def _table(
    statistics: GroupStatistics, names: pd.Index, untested: pd.Index, *, has_reference: bool
) -> pd.DataFrame:
    mean, reference = statistics.mean, statistics.reference_mean
    table = pd.DataFrame(
        {
            "names": np.asarray(names, dtype=object),
            "scores": mean - reference if has_reference else mean,
            "mean_scores": statistics.mean_expressing,
            "logfoldchanges": np.log2((mean + _EPS) / (reference + _EPS)),
            "pvals": statistics.pvals,
            "pvals_adj": statistics.pvals_adj,
            "fractions": statistics.fraction,
            "reference_fractions": statistics.reference_fraction,
        }
    )
    zero, one = (0.0, 1.0) if has_reference else (np.nan, np.nan)
    absent = pd.DataFrame(
        {
            "names": np.asarray(untested, dtype=object),
            "scores": 0.0,
            "mean_scores": 0.0,
            "logfoldchanges": zero,
            "pvals": one,
            "pvals_adj": one,
            "fractions": 0.0,
            "reference_fractions": zero,
        }
    )
    if len(absent):
        table = pd.concat([table, absent], ignore_index=True)
    return table.sort_values("scores", ascending=False, kind="stable", ignore_index=True)
