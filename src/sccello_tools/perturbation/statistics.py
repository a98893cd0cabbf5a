"""Statistics of groups of cells: means, differences and rank tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from typing import Final

    from numpy.typing import NDArray
    from scipy import sparse

_GENES_PER_BLOCK: Final = 2_048  # bounds the dense blocks: 8 MB for 500 cells


class GroupStatistics(NamedTuple):
    """Statistics of one group for each gene, arrays of shape (n_genes,)."""

    mean: NDArray[np.float64]
    """Mean over all cells of the group, 0 for cells without the gene."""
    mean_expressing: NDArray[np.float64]
    """Mean over the cells with the gene; 0 if there are none."""
    fraction: NDArray[np.float64]
    """Fraction of the group's cells with the gene."""
    reference_mean: NDArray[np.float64]
    """``mean`` of the reference; NaN without reference."""
    reference_fraction: NDArray[np.float64]
    """``fraction`` of the reference; NaN without reference."""
    pvals: NDArray[np.float64]
    """Two-sided Mann-Whitney test against the reference; NaN without reference."""
    pvals_adj: NDArray[np.float64]
    """Benjamini-Hochberg correction over the genes."""


def group_statistics(
    scores: sparse.csr_matrix, members: NDArray[np.bool_], reference: NDArray[np.bool_]
) -> GroupStatistics:
    """Compare the scores of a group with those of its reference.

    Parameters
    ----------
    scores
        Scores, shape (n_cells, n_genes); a stored value means that the cell has the gene, even if it is 0.
    members
        Cells of the group, shape (n_cells,).
    reference
        Cells of the reference, shape (n_cells,); all false for none.
    """
    inside, outside = _Means.of(scores, members), _Means.of(scores, reference)
    n_genes = scores.shape[1]
    if not reference.any():
        nan = np.full(n_genes, np.nan)
        return GroupStatistics(*inside, nan, nan, nan, nan)
    pvals = mann_whitney(scores[members], scores[reference])
    adjusted = stats.false_discovery_control(pvals) if n_genes else pvals
    return GroupStatistics(*inside, outside.mean, outside.fraction, pvals, adjusted)


def mann_whitney(x: sparse.csr_matrix, y: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return two-sided asymptotic p-values of the Mann-Whitney test for each column.

    :func:`scipy.stats.mannwhitneyu` on dense blocks of columns.

    Parameters
    ----------
    x
        First sample, shape (n_x, n_columns); absent values are 0.
    y
        Second sample, shape (n_y, n_columns).
    """
    columns_x, columns_y = x.tocsc(), y.tocsc()
    pvals = np.ones(x.shape[1])
    for start in range(0, x.shape[1], _GENES_PER_BLOCK):
        block = slice(start, start + _GENES_PER_BLOCK)
        first, second = columns_x[:, block].toarray(), columns_y[:, block].toarray()
        # the test is not defined for constant columns
        varying = np.flatnonzero((np.vstack([first, second]) != second[:1]).any(axis=0))
        if len(varying):
            found = stats.mannwhitneyu(
                first[:, varying].astype(np.float64),
                second[:, varying].astype(np.float64),
                method="asymptotic",
            )
            pvals[start + varying] = found.pvalue
    return pvals


class _Means(NamedTuple):
    mean: NDArray[np.float64]
    mean_expressing: NDArray[np.float64]
    fraction: NDArray[np.float64]

    @classmethod
    def of(cls, scores: sparse.csr_matrix, cells: NDArray[np.bool_]) -> _Means:
        part, n_genes = scores[cells], scores.shape[1]
        total = np.bincount(part.indices, weights=part.data, minlength=n_genes)
        expressing = np.bincount(part.indices, minlength=n_genes)
        n_cells = max(part.shape[0], 1)
        return cls(total / n_cells, total / np.maximum(expressing, 1), expressing / n_cells)
