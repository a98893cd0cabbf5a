"""Scores of cells to the record arrays that scanpy's ``rank_genes_groups`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools.perturbation.statistics import group_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools._anndata.groups import CellSample
    from sccello_tools.perturbation.statistics import GroupStatistics
    from sccello_tools.tokens import RaggedTokens

REST = "rest"
_EPS = 1e-9  # added to both means of a fold change, as scanpy does


def score_matrix(
    values: NDArray[np.float32],
    tokens: RaggedTokens,
    columns: NDArray[np.int64],
    n_vars: int,
) -> sparse.csr_matrix:
    """Scores of cells and variables; what was scored is stored, even if it is 0."""
    kept = ~np.isnan(values)
    rows = np.repeat(np.arange(len(tokens)), tokens.lengths)[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(tokens)))])
    matrix = sparse.csr_matrix((values[kept], columns[kept], indptr), shape=(len(tokens), n_vars))
    matrix.sort_indices()
    return matrix


def all_rows(scores: sparse.csr_matrix, rows: NDArray[np.int64], n_obs: int) -> sparse.csr_matrix:
    lengths = np.zeros(n_obs, dtype=np.int64)
    lengths[rows] = np.diff(scores.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix((scores.data, scores.indices, indptr), shape=(n_obs, scores.shape[1]))


def rank_groups(
    scores: sparse.csr_matrix,
    sample: CellSample,
    reference: str,
    names: pd.Index,
    tested: NDArray[np.int64],
    untested: NDArray[np.int64],
) -> dict[str, object]:
    """Lay the figures of all groups out as scanpy does."""
    tables: dict[str, pd.DataFrame] = {}
    scores = scores[:, tested]
    for i, group in enumerate(sample.names):
        if group == reference and reference != REST:
            continue
        members = sample.group == i
        compared = (
            ~members if reference == REST else np.array(sample.names)[sample.group] == reference
        )
        figures = group_statistics(scores, members, compared)
        tables[group] = _table(
            figures, names[tested], names[untested], compared=bool(compared.any())
        )
    dtypes = {
        "names": "O",
        "scores": "float32",
        "mean_scores": "float32",
        "logfoldchanges": "float32",
        "pvals": "float64",
        "pvals_adj": "float64",
        "shares": "float32",
        "reference_shares": "float32",
    }
    # record arrays throughout: names of groups may hold characters that no key of an h5ad file may, such as "/"
    return {
        field: pd.DataFrame({group: table[field] for group, table in tables.items()}).to_records(
            index=False, column_dtypes=dtype
        )
        for field, dtype in dtypes.items()
    }


def _table(
    figures: GroupStatistics, names: pd.Index, untested: pd.Index, *, compared: bool
) -> pd.DataFrame:
    difference = figures.mean - figures.reference_mean if compared else figures.mean
    table = pd.DataFrame(
        {
            "names": np.asarray(names, dtype=object),
            "scores": difference,
            "mean_scores": figures.mean_seen,
            "logfoldchanges": np.log2((figures.mean + _EPS) / (figures.reference_mean + _EPS)),
            "pvals": figures.pvals,
            "pvals_adj": figures.pvals_adj,
            "shares": figures.share,
            "reference_shares": figures.reference_share,
        }
    )
    without = 0.0 if compared else np.nan
    absent = pd.DataFrame(
        {
            "names": np.asarray(untested, dtype=object),
            "scores": 0.0,
            "mean_scores": 0.0,
            "logfoldchanges": without,
            "pvals": 1.0 if compared else np.nan,
            "pvals_adj": 1.0 if compared else np.nan,
            "shares": 0.0,
            "reference_shares": without,
        }
    )
    if len(absent):
        table = pd.concat([table, absent], ignore_index=True)
    return table.sort_values("scores", ascending=False, kind="stable", ignore_index=True)
