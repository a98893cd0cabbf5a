"""Scores of cells and genes to figures of groups: means, differences, rank tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GENES_AT_A_TIME = 2_048  # bounds the dense pieces: 500 cells of them take 8 MB


class GroupStatistics(NamedTuple):
    """Figures of one group for each gene, arrays of shape (n_genes,)."""

    mean: NDArray[np.float64]
    """Over all cells of the group, 0 where a gene is not seen."""
    mean_seen: NDArray[np.float64]
    """Over the cells in which the gene is seen; 0 if there is none."""
    share: NDArray[np.float64]
    """Of the group's cells in which the gene is seen."""
    reference_mean: NDArray[np.float64]
    """As ``mean``, of the reference; NaN without reference."""
    reference_share: NDArray[np.float64]
    pvals: NDArray[np.float64]
    """Two-sided Mann-Whitney test against the reference; NaN without one."""
    pvals_adj: NDArray[np.float64]
    """Benjamini-Hochberg over the genes."""


def group_statistics(
    scores: sparse.csr_matrix, members: NDArray[np.bool_], reference: NDArray[np.bool_]
) -> GroupStatistics:
    """Compare the scores of a group with those of its reference.

    Parameters
    ----------
    scores
        (n_cells, n_genes); a stored value says that the gene is seen, whatever the value.
    members
        (n_cells,) cells of the group.
    reference
        (n_cells,) cells to compare with; all false if there is nothing to compare with.
    """
    inside, outside = _Part.of(scores, members), _Part.of(scores, reference)
    n_genes = scores.shape[1]
    if not reference.any():
        nothing = np.full(n_genes, np.nan)
        return GroupStatistics(
            inside.mean, inside.mean_seen, inside.share, nothing, nothing, nothing, nothing
        )
    pvals = mann_whitney(scores[members], scores[reference])
    adjusted = stats.false_discovery_control(pvals) if n_genes else pvals
    return GroupStatistics(
        inside.mean,
        inside.mean_seen,
        inside.share,
        outside.mean,
        outside.share,
        pvals,
        adjusted,
    )


def mann_whitney(x: sparse.csr_matrix, y: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return two-sided p-values of the Mann-Whitney test for each column, ties and continuity corrected (normal approximation).

    Parameters
    ----------
    x
        (n_x, n_columns); absent values are 0.
    y
        (n_y, n_columns).
    """
    n_x, n_y = x.shape[0], y.shape[0]
    n = n_x + n_y
    both = sparse.vstack([x, y], format="csc")
    pvals = np.ones(both.shape[1])
    for start in range(0, both.shape[1], _GENES_AT_A_TIME):
        columns = slice(start, start + _GENES_AT_A_TIME)
        values = np.sort(both[:, columns].toarray().T, axis=1)  # for the sizes of ties
        ranks = stats.rankdata(both[:, columns].toarray(), axis=0)
        surplus = ranks[:n_x].sum(axis=0) - n_x * (n + 1) / 2  # U less its expectation
        edges = np.diff(values, axis=1) != 0
        variance = n_x * n_y / 12 * (n + 1 - _tie_term(edges) / (n * (n - 1)))
        distance = np.maximum(np.abs(surplus) - 0.5, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(variance > 0, distance / np.sqrt(variance), 0)
        pvals[columns] = 2 * stats.norm.sf(z)
    return pvals


def _tie_term(edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum of t³ - t over the runs of equal values in each row, given where a sorted row steps."""
    n_rows, n = edges.shape[0], edges.shape[1] + 1
    starts = np.ones((n_rows, n), dtype=bool)
    starts[:, 1:] = edges
    at = np.flatnonzero(starts)
    lengths = np.diff(np.append(at, n_rows * n)).astype(np.float64)
    terms = np.bincount(at // n, weights=lengths**3 - lengths, minlength=n_rows)
    return terms.astype(np.float64, copy=False)


class _Part(NamedTuple):
    mean: NDArray[np.float64]
    mean_seen: NDArray[np.float64]
    share: NDArray[np.float64]

    @classmethod
    def of(cls, scores: sparse.csr_matrix, cells: NDArray[np.bool_]) -> _Part:
        part, n_genes = scores[cells], scores.shape[1]
        total = np.bincount(part.indices, weights=part.data, minlength=n_genes)
        seen = np.bincount(part.indices, minlength=n_genes)
        n_cells = max(part.shape[0], 1)
        return cls(total / n_cells, total / np.maximum(seen, 1), seen / n_cells)
