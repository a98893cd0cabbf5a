"""Linear-model statistics of marker sets for rows of a sparse count matrix; compiled by numba."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_CORRELATION = np.float32(0.99)
_N_LOGS = 16
LOWER, UPPER = np.float32(-1), np.float32(6)
"""Standardised expression is clipped, so that no single gene dominates."""
N_PADDED = 4
"""Sets of weights including padding, so that they are added with one instruction."""


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def marker_t_values(
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    data: NDArray[np.float32],
    columns: NDArray[np.float32],
    entry_ranges: NDArray[np.int32],
    slot_of_column: NDArray[np.int32],
    entry_terms: NDArray[np.int32],
    entry_weights: NDArray[np.float32],
    totals: NDArray[np.float32],
    base: NDArray[np.float32],
    sums: NDArray[np.float32],
    inverse_norm: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the t-value of each weight set of each term in each row.

    Parameters
    ----------
    indptr, indices, data
        Rows of raw counts in CSR format.
    columns
        Array of shape (n_columns + n_slots, 4): mean, 1 / (sd + offset), standardised zero, and 1 for genes or 0 for columns to skip.
        A scale of 0 marks genes without background, which count towards the total only, and columns that share their gene with
        others. The rows after the columns are the genes of several columns.
    entry_ranges
        Array of shape (n_columns + n_slots, 2): first and last + 1 weight of each.
    slot_of_column
        Index of the column's gene among the genes of several columns, -1 for all other columns; empty if there are no such genes.
    entry_terms, entry_weights
        Weights by gene; they have shape (n_entries, 4): one column per set, and zeros.
    totals
        Array of shape (3,): number of measured genes, sum and sum of squares of their standardised zeros.
    base
        Array of shape (n_sets, n_terms): weighted sum of the standardised zeros of measured genes.
    sums
        Array of shape (n_sets, n_terms): sum of weights over measured genes.
    inverse_norm
        Array of shape (n_sets, n_terms): 1 / sd of the weights over measured genes; 0 for terms without measured markers.
    out
        Array of shape (n_rows, n_sets, n_terms) to write.
    """
    n_genes = totals[0]
    n_sets, n_terms = base.shape
    n_columns = len(slot_of_column)
    n_slots = len(columns) - n_columns if n_columns else 0
    work = np.empty((n_terms, N_PADDED), dtype=np.float32)
    start = np.zeros((n_terms, N_PADDED), dtype=np.float32)
    for k in range(n_sets):
        start[:, k] = base[k]
    summed = np.zeros(n_slots, dtype=np.float32)
    logs = np.empty(_N_LOGS + 1, dtype=np.float32)
    changes = np.empty(len(columns), dtype=np.float32)
    changed = np.empty(len(columns), dtype=np.int64)
    for row in range(len(indptr) - 1):
        first, last = indptr[row], indptr[row + 1]
        total = np.float32(0)
        for i in range(first, last):
            total += data[i] * columns[indices[i], 3]
        if total <= 0:
            out[row] = np.nan
            continue
        scale = np.float32(1e4) / total
        for count in range(_N_LOGS + 1):
            logs[count] = np.log1p(count * scale)
        work[:] = start
        if n_slots:  # columns of the same gene are summed first
            summed[:] = 0
            for i in range(first, last):
                slot = slot_of_column[indices[i]]
                if slot >= 0:
                    summed[slot] += data[i]
        z_sum, z_squares = totals[1], totals[2]
        n_changed = 0
        for i in range(first, last + n_slots):
            column, value = (
                (indices[i], data[i]) if i < last else (n_columns + i - last, summed[i - last])
            )
            if value <= 0 or columns[column, 1] == 0:
                continue
            # most counts are small: their logarithms are computed once per cell
            count = int(value)
            x = logs[count] if count <= _N_LOGS and count == value else np.log1p(value * scale)
            z = (x - columns[column, 0]) * columns[column, 1]
            z = min(max(z, LOWER), UPPER)
            change = z - columns[column, 2]
            z_sum += change
            z_squares += change * (z + columns[column, 2])
            # overwritten by the next gene if this one is not a marker
            changes[n_changed] = change
            changed[n_changed] = column
            n_changed += entry_ranges[column, 1] > entry_ranges[column, 0]
        for i in range(n_changed):
            change = changes[i]
            for entry in range(entry_ranges[changed[i], 0], entry_ranges[changed[i], 1]):
                term = entry_terms[entry]
                for k in range(N_PADDED):
                    work[term, k] += entry_weights[entry, k] * change
        mean = z_sum / n_genes
        variance = max(z_squares / n_genes - mean * mean, np.float32(1e-6))
        inverse_sd = 1 / (np.sqrt(variance) * n_genes)
        degrees = n_genes - np.float32(2)
        for k in range(n_sets):
            for term in range(n_terms):
                r = (work[term, k] - mean * sums[k, term]) * inverse_sd * inverse_norm[k, term]
                r = min(max(r, -_MAX_CORRELATION), _MAX_CORRELATION)
                out[row, k, term] = r * np.sqrt(degrees / (1 - r * r))
