"""Linear-model statistics of marker sets for rows of a sparse count matrix; compiled by numba."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_CORRELATION = np.float32(0.99)
_N_LOGS = 8
N_PADDED = 4
"""Sets of weights including padding, so that they are added with one instruction."""


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def marker_t_values(
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    data: NDArray[np.float32],
    token_of_column: NDArray[np.int32],
    slot_of_column: NDArray[np.int32],
    token_of_slot: NDArray[np.int32],
    standard: NDArray[np.float32],
    entry_starts: NDArray[np.int32],
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
    token_of_column
        Array of shape (n_columns,): token of each column, -1 for columns to skip.
    slot_of_column, token_of_slot
        Genes of several columns: index of the column's gene among them, -1 for all other columns, and their tokens.
    standard
        Array of shape (n_tokens, 5): mean, 1 / (sd + offset), standardised zero, lower and upper limit. A scale of 0 marks genes
        without background, which count towards the total only.
    entry_starts, entry_terms, entry_weights
        Weights by gene: entries ``entry_starts[token]:entry_starts[token + 1]``; weights have shape (n_entries, 4): one column per set,
        and zeros.
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
    work = np.empty((n_terms, N_PADDED), dtype=np.float32)
    start = np.zeros((n_terms, N_PADDED), dtype=np.float32)
    for k in range(n_sets):
        start[:, k] = base[k]
    n_slots = len(token_of_slot)
    summed = np.zeros(n_slots, dtype=np.float32)
    logs = np.empty(_N_LOGS + 1, dtype=np.float32)
    for row in range(len(indptr) - 1):
        total = np.float32(0)
        for i in range(indptr[row], indptr[row + 1]):
            if token_of_column[indices[i]] >= 0:
                total += data[i]
        if total <= 0:
            out[row] = np.nan
            continue
        scale = np.float32(1e4) / total
        for count in range(_N_LOGS + 1):
            logs[count] = np.log1p(count * scale)
        work[:] = start
        summed[:] = 0
        z_sum, z_squares = totals[1], totals[2]
        first, last = indptr[row], indptr[row + 1]
        for i in range(first, last + n_slots):
            if i < last:
                column = indices[i]
                token = token_of_column[column]
                value = data[i]
                slot = slot_of_column[column]
                if slot >= 0:  # one of several columns of a gene: added up first
                    summed[slot] += value
                    continue
            else:
                token = token_of_slot[i - last]
                value = summed[i - last]
            if token < 0 or value <= 0 or standard[token, 1] == 0:
                continue
            # most counts are small: their logarithms are computed once per cell
            count = int(value)
            x = logs[count] if count == value and count <= _N_LOGS else np.log1p(value * scale)
            z = (x - standard[token, 0]) * standard[token, 1]
            z = min(max(z, standard[token, 3]), standard[token, 4])
            zero = standard[token, 2]
            change = z - zero
            z_sum += change
            z_squares += z * z - zero * zero
            for entry in range(entry_starts[token], entry_starts[token + 1]):
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
