"""The hot loops of tokenizing, compiled: count the genes of each row, then rank them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_LOGS = 256  # counts whose logarithm is kept within a cell; nearly all are smaller


@numba.njit(nogil=True, cache=True)
def count_kept(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    column_token: NDArray[np.int32],
    n_tokens: int,
    ordered: bool,  # noqa: FBT001
    first: int,
    last: int,
    n_genes: NDArray[np.int32],
) -> None:
    """Write the number of genes of rows ``first..last`` that are in the vocabulary and above zero.

    Unless ``ordered``, entries of one row may share a token, and are counted once.
    """
    seen_in = np.full(0 if ordered else n_tokens, -1, dtype=np.int64)
    for row in range(first, last):
        n = 0
        for j in range(indptr[row], indptr[row + 1]):
            token = column_token[indices[j]]
            if token < 0 or not data[j] > 0:
                continue
            if not ordered:
                if seen_in[token] == row:
                    continue
                seen_in[token] = row
            n += 1
        n_genes[row] = n


@numba.njit(nogil=True, cache=True)
def rank_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    column_token: NDArray[np.int32],
    medians: NDArray[np.float64],
    cls_id: int,
    ordered: bool,  # noqa: FBT001
    first: int,
    last: int,
    out_indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Write tokens and expression values of rows ``first..last``, in rank order, to ``ids`` and ``values``.

    ``ordered`` promises that the tokens of each row ascend strictly; otherwise they are sorted first and repeated ones summed.
    """
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    tokens = np.empty(longest, dtype=np.int32)
    counts = np.empty(longest, dtype=np.float64)
    relative = np.empty(longest, dtype=np.float64)  # count over median
    rounded = np.empty(longest, dtype=np.float32)
    bits = rounded.view(np.uint32)
    keys = np.empty(longest, dtype=np.uint64)
    spare = np.empty(longest, dtype=np.uint64)
    logs = np.empty(_N_LOGS, dtype=np.float32)
    logs_of_row = np.full(_N_LOGS, -1, dtype=np.int64)

    for row in range(first, last):
        at = out_indptr[row]
        n_kept = out_indptr[row + 1] - at - 1
        if n_kept < 0:  # no gene, no <cls>
            continue
        n = 0
        for j in range(indptr[row], indptr[row + 1]):
            token = column_token[indices[j]]
            if token >= 0 and data[j] > 0:
                tokens[n] = token
                counts[n] = data[j]
                n += 1
        if not ordered:
            n = _sum_by_token(tokens[:n], counts[:n], keys[:n], spare[:n], relative[:n])

        total = 0.0
        for i in range(n):
            total += counts[i]
            relative[i] = counts[i] / medians[tokens[i]]
            rounded[i] = relative[i]
        # Positive floats sort as their bits do. Complemented bits above, position below: a stable sort by the upper half ranks
        # by value descending, and leaves ties as they are, by token ascending.
        for i in range(n):
            keys[i] = (np.uint64(~bits[i]) << np.uint64(32)) | np.uint64(i)
        _radix_sort(keys[:n], spare[:n], 4)
        _order_within_rounding(keys[:n], relative)

        ids[at] = cls_id
        values[at] = 0.0
        scale = 10_000.0 / total
        for i in range(n_kept):
            gene = keys[i] & np.uint64(0xFFFFFFFF)
            ids[at + 1 + i] = tokens[gene]
            count = counts[gene]
            whole = int(min(count, _N_LOGS))
            if whole < _N_LOGS and whole == count:
                if logs_of_row[whole] != row:
                    logs[whole] = np.log1p(count * scale)
                    logs_of_row[whole] = row
                values[at + 1 + i] = logs[whole]
            else:
                values[at + 1 + i] = np.log1p(count * scale)


@numba.njit(nogil=True, cache=True)
def _radix_sort(keys: NDArray[np.uint64], spare: NDArray[np.uint64], n_bytes: int) -> None:
    """Sort by the lower ``n_bytes`` of the upper half, stable. An even number, so that the last pass ends in ``keys``.

    Call it with a literal: numba then compiles for that number, which makes it a quarter faster.
    """
    ends = np.empty(256, dtype=np.int64)
    for shift in range(32, 32 + 8 * n_bytes, 8):
        ends[:] = 0
        for i in range(keys.size):
            ends[(keys[i] >> np.uint64(shift)) & np.uint64(255)] += 1
        start = 0
        for digit in range(256):
            size = ends[digit]
            ends[digit] = start
            start += size
        for i in range(keys.size):
            digit_of_key = (keys[i] >> np.uint64(shift)) & np.uint64(255)
            spare[ends[digit_of_key]] = keys[i]
            ends[digit_of_key] += 1
        keys, spare = spare, keys


@numba.njit(nogil=True, cache=True)
def _order_within_rounding(keys: NDArray[np.uint64], relative: NDArray[np.float64]) -> None:
    """Put genes whose values agree in float32 but differ in float64 in their exact order.

    Such runs are rare and short, so insertion is enough; within a true tie the order stays.
    """
    half = np.uint64(32)
    lower = np.uint64(0xFFFFFFFF)
    for i in range(1, keys.size):
        key = keys[i]
        j = i
        while (
            j > 0
            and keys[j - 1] >> half == key >> half
            and relative[keys[j - 1] & lower] < relative[key & lower]
        ):
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key


@numba.njit(nogil=True, cache=True)
def _sum_by_token(
    tokens: NDArray[np.int32],
    counts: NDArray[np.float64],
    keys: NDArray[np.uint64],
    spare: NDArray[np.uint64],
    unsorted: NDArray[np.float64],
) -> int:
    """Sort pairs by token and sum those that share one; returns how many are left."""
    for i in range(tokens.size):
        unsorted[i] = counts[i]
        keys[i] = (np.uint64(tokens[i]) << np.uint64(32)) | np.uint64(i)
    _radix_sort(keys, spare, 2)  # the vocabulary's tokens fit 16 bits
    n_distinct = 0
    for i in range(tokens.size):
        token = np.int32(keys[i] >> np.uint64(32))
        count = unsorted[keys[i] & np.uint64(0xFFFFFFFF)]
        if n_distinct > 0 and tokens[n_distinct - 1] == token:
            counts[n_distinct - 1] += count
        else:
            tokens[n_distinct] = token
            counts[n_distinct] = count
            n_distinct += 1
    return n_distinct


@numba.njit(nogil=True, cache=True)
def inspect_values(
    data: NDArray[np.floating], first: int, last: int
) -> tuple[int, int, int, int, float, int]:
    """Count what is wrong with stored values: (NaN, infinite, negative, fractional); then the largest and the number above zero."""
    n_nan = n_inf = n_negative = n_fraction = n_positive = 0
    largest = 0.0
    for i in range(first, last):
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
def csc_row_counts(
    indptr: NDArray[np.int64],
    indices: NDArray[np.integer],
    position: NDArray[np.int64],
    start: int,
    stop: int,
    row_counts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Find where each column's entries of rows ``start..stop`` end, from ``position`` on, and count them by row."""
    ends = position.copy()
    for column in range(indptr.size - 1):
        k = position[column]
        while k < indptr[column + 1] and indices[k] < stop:
            row_counts[indices[k] - start] += 1
            k += 1
        ends[column] = k
    return ends


@numba.njit(nogil=True, cache=True)
def csr_order_of_csc(
    indices: NDArray[np.integer],
    position: NDArray[np.int64],
    ends: NDArray[np.int64],
    start: int,
    row_indptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    source: NDArray[np.int64],
) -> None:
    """For the entries between ``position`` and ``ends`` of each column, row by row: their column and where they stand."""
    at = row_indptr[:-1].copy()
    for column in range(position.size):
        for k in range(position[column], ends[column]):
            row = indices[k] - start
            columns[at[row]] = column
            source[at[row]] = k
            at[row] += 1
