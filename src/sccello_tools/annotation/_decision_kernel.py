"""Row-wise choices between terms; compiled by numba."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True, error_model="numpy")
def best_other(
    values: NDArray[np.float32], excluded: NDArray[np.int32], best: NDArray[np.int32]
) -> None:
    """Write the column with the highest value of each row, excluding one column; the first of equal ones."""
    for row in range(len(values)):
        of_row = values[row]
        found = -1
        for column in range(len(of_row)):
            if column != excluded[row] and (found < 0 or of_row[column] > of_row[found]):
                found = column
        best[row] = max(found, 0)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def chain_sums(
    probabilities: NDArray[np.float32],
    assigned: NDArray[np.int32],
    starts: NDArray[np.int32],
    right: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the probability that each term of the assigned lineage is correct.

    Parameters
    ----------
    probabilities
        Array of shape (n_rows, n_columns).
    assigned
        Array of shape (n_rows,): lineage of each row.
    starts
        Array of shape (n_lineages + 1,): lineage i has the rows ``starts[i]:starts[i + 1]`` of ``right``.
    right
        Array of shape (n_terms_of_all_lineages, n_columns): 1 where a term is correct for cells of the column's type.
    out
        Array of shape (n_rows, width) to write; 1 beyond the end of a lineage.
    """
    for row in range(len(assigned)):
        first = starts[assigned[row]]
        n_terms = starts[assigned[row] + 1] - first
        most = np.float32(0)
        for level in range(n_terms):
            summed = np.float32(0)
            of_term = right[first + level]
            for column in range(len(of_term)):
                summed += of_term[column] * probabilities[row, column]
            # a term is at least as likely to be correct as its descendants
            most = max(most, min(summed, np.float32(1)))
            out[row, level] = most
        for level in range(n_terms, out.shape[1]):
            out[row, level] = 1
