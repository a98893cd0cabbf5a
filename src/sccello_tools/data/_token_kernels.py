"""The two hot loops of tokenizing, compiled: count the genes of each row, then rank them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def _gather(indices, data, column_token, summed, place, tokens, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Collect a row's (token, count) pairs above zero; returns how many.

    ``place`` is scratch of -1 by token id, and is left as found.
    """
    n = 0
    for j in range(indices.size):
        token = column_token[indices[j]]
        count = data[j]
        if token < 0 or count <= 0:
            continue
        if summed:
            if place[token] >= 0:
                counts[place[token]] += count
                continue
            place[token] = n
        tokens[n] = token
        counts[n] = count
        n += 1
    if summed:
        for i in range(n):
            place[tokens[i]] = -1
    return n


@numba.njit(nogil=True, cache=True)
def count_kept(indptr, indices, data, column_token, summed, first, last, n_genes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the number of genes of rows ``first..last`` that are in the vocabulary and above zero."""
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    place = np.full(column_token.max() + 1 if summed and column_token.size else 0, -1, dtype=np.int32)
    tokens = np.empty(longest, dtype=np.int32)
    counts = np.empty(longest, dtype=np.float64)
    for row in range(first, last):
        a, b = indptr[row], indptr[row + 1]
        n_genes[row] = _gather(indices[a:b], data[a:b], column_token, summed, place, tokens, counts)


@numba.njit(nogil=True, cache=True)
def rank_rows(  # type: ignore[no-untyped-def]  # noqa: ANN201
    indptr,  # noqa: ANN001
    indices,  # noqa: ANN001
    data,  # noqa: ANN001
    column_token,  # noqa: ANN001
    medians,  # noqa: ANN001
    summed,  # noqa: ANN001
    cls_id,  # noqa: ANN001
    first,  # noqa: ANN001
    last,  # noqa: ANN001
    n_genes,  # noqa: ANN001
    out_indptr,  # noqa: ANN001
    ids,  # noqa: ANN001
    values,  # noqa: ANN001
):
    """Write tokens and expression values of rows ``first..last``, in rank order, to ``ids`` and ``values``."""
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    place = np.full(column_token.max() + 1 if summed and column_token.size else 0, -1, dtype=np.int32)
    tokens = np.empty(longest, dtype=np.int32)
    counts = np.empty(longest, dtype=np.float64)
    count_of = np.zeros(medians.size, dtype=np.float64)  # by token, so that only one number a gene is sorted
    rounded = np.empty(1, dtype=np.float32)
    bits = rounded.view(np.uint32)
    keys = np.empty(longest, dtype=np.uint64)
    for row in range(first, last):
        if n_genes[row] == 0:
            continue
        a, b = indptr[row], indptr[row + 1]
        n = _gather(indices[a:b], data[a:b], column_token, summed, place, tokens, counts)
        total = 0.0
        for i in range(n):
            total += counts[i]
            count_of[tokens[i]] = counts[i]
            # Positive floats sort as their bits do. Complemented bits above, token below: one integer sort ranks
            # by value descending, then by token ascending.
            rounded[0] = counts[i] / medians[tokens[i]]
            keys[i] = (np.uint64(~bits[0]) << np.uint64(32)) | np.uint64(tokens[i])
        keys[:n].sort()
        _order_within_rounding(keys, n, count_of, medians)
        at = out_indptr[row]
        ids[at] = cls_id
        values[at] = 0.0
        scale = 10_000.0 / total
        for i in range(out_indptr[row + 1] - at - 1):
            token = np.int32(keys[i] & np.uint64(0xFFFFFFFF))
            ids[at + 1 + i] = token
            values[at + 1 + i] = np.log1p(count_of[token] * scale)


@numba.njit(nogil=True, cache=True)
def _order_within_rounding(keys, n, count_of, medians):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Put genes whose values agree in float32 but differ in float64 in their exact order.

    Such runs are rare and short, so insertion is enough; within a true tie the order by token stays.
    """
    for i in range(1, n):
        key = keys[i]
        token = key & np.uint64(0xFFFFFFFF)
        exact = count_of[token] / medians[token]
        j = i
        while j > 0 and keys[j - 1] >> np.uint64(32) == key >> np.uint64(32):
            other = keys[j - 1] & np.uint64(0xFFFFFFFF)
            if count_of[other] / medians[other] >= exact:
                break
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key


@numba.njit(nogil=True, cache=True)
def inspect_values(data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count what is wrong with stored values: (NaN, infinite, negative, fractional); then the largest and the number above zero."""
    n_nan = n_inf = n_negative = n_fraction = n_positive = 0
    largest = 0.0
    for i in range(data.size):
        x = float(data[i])
        if np.isnan(x):
            n_nan += 1
        elif np.isinf(x):
            n_inf += 1
        elif x < 0:
            n_negative += 1
        elif x > 0:
            n_positive += 1
            largest = max(largest, x)
            if x != np.floor(x):
                n_fraction += 1
    return n_nan, n_inf, n_negative, n_fraction, largest, n_positive


@numba.njit(nogil=True, cache=True)
def slice_csc_rows(indptr, indices, position, stop, row_counts, start):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Advance each column's ``position`` to row ``stop``, counting entries of each row from ``start``; the end of each column."""
    ends = position.copy()
    for column in range(indptr.size - 1):
        k = position[column]
        while k < indptr[column + 1] and indices[k] < stop:
            row_counts[indices[k] - start] += 1
            k += 1
        ends[column] = k
    return ends


@numba.njit(nogil=True, cache=True)
def fill_csr_from_csc(indices, data, position, ends, start, row_indptr, out_indices, out_data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the entries between ``position`` and ``ends`` of each column row by row."""
    at = row_indptr[:-1].copy()
    for column in range(position.size):
        for k in range(position[column], ends[column]):
            row = indices[k] - start
            out_indices[at[row]] = column
            out_data[at[row]] = data[k]
            at[row] += 1
