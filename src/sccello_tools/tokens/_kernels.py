"""The hot loops of tokenizing, compiled: count the genes of each row, then rank them.

Arrays are filled in loops, not by assignment to slices, which takes numba seconds to compile.
"""

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
    distinct: bool,  # noqa: FBT001
    first: int,
    last: int,
    n_genes: NDArray[np.int32],
) -> None:
    """Write the number of genes of rows ``first..last`` that are in the vocabulary and above zero.

    Unless ``distinct``, entries of one row may share a token, and are counted once.
    """
    seen_in = np.full(0 if distinct else n_tokens, -1, dtype=np.int64)
    for row in range(first, last):
        n = 0
        for j in range(indptr[row], indptr[row + 1]):
            token = column_token[indices[j]]
            if token < 0 or not data[j] > 0:
                continue
            if not distinct:
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
    distinct: bool,  # noqa: FBT001
    first: int,
    last: int,
    out_indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Write tokens and expression values of rows ``first..last``, in rank order, to ``ids`` and ``values``.

    ``distinct`` promises that no two entries of a row share a token; otherwise such are summed first.
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
    sizes = np.empty((2, 2048), dtype=np.int32)
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
        if not distinct:
            n = _sum_by_token(tokens[:n], counts[:n], keys[:n], spare[:n], sizes, relative[:n])

        for i in range(n):
            relative[i] = counts[i] / medians[tokens[i]]
            rounded[i] = relative[i]
        # Positive floats sort as their bits do, so the upper 22 of 31 bits, complemented, rank nearly all genes by value
        # descending. What those bits can't tell is put right after.
        for i in range(n):
            keys[i] = (np.uint64(~bits[i] >> 9 & 0x3FFFFF) << np.uint64(32)) | np.uint64(i)
        _radix_sort(keys[:n], spare[:n], sizes)
        _order_within_keys(keys[:n], spare[:n], relative, tokens)
        total = 0.0  # summed by rank, so that the order of the columns has no say in its rounding
        for i in range(n):
            total += counts[keys[i] & np.uint64(0xFFFFFFFF)]

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
def _radix_sort(
    keys: NDArray[np.uint64], spare: NDArray[np.uint64], sizes: NDArray[np.int32]
) -> None:
    """Sort by the lower 22 bits of the upper half, 11 at a time, stable."""
    mask = np.uint64(2047)
    low, high = np.uint64(32), np.uint64(43)
    for digit in range(2048):
        sizes[0, digit] = sizes[1, digit] = 0
    for key in keys:
        sizes[0, (key >> low) & mask] += 1
        sizes[1, (key >> high) & mask] += 1
    n_low = n_high = 0
    for digit in range(2048):
        size = sizes[0, digit]
        sizes[0, digit] = n_low
        n_low += size
        size = sizes[1, digit]
        sizes[1, digit] = n_high
        n_high += size
    for key in keys:
        digit_of_key = (key >> low) & mask
        spare[sizes[0, digit_of_key]] = key
        sizes[0, digit_of_key] += 1
    for key in spare:
        digit_of_key = (key >> high) & mask
        keys[sizes[1, digit_of_key]] = key
        sizes[1, digit_of_key] += 1


@numba.njit(nogil=True, cache=True)
def _order_within_keys(
    keys: NDArray[np.uint64],
    spare: NDArray[np.uint64],
    relative: NDArray[np.float64],
    tokens: NDArray[np.int32],
) -> None:
    """Put genes that share a key in their exact order, by value descending, then by token ascending."""
    half = np.uint64(32)
    first = 0
    for last in range(1, keys.size + 1):
        if last < keys.size and keys[last] >> half == keys[first] >> half:
            continue
        if last - first > 1:
            _merge_sort(keys[first:last], spare[first:last], relative, tokens)
        first = last


@numba.njit(nogil=True, cache=True)
def _merge_sort(
    keys: NDArray[np.uint64],
    spare: NDArray[np.uint64],
    relative: NDArray[np.float64],
    tokens: NDArray[np.int32],
) -> None:
    """Sort a run of genes, which the lower half of their keys points to, by value descending, then by token ascending."""
    width = 1
    while width < keys.size:
        for start in range(0, keys.size, 2 * width):
            middle, end = min(start + width, keys.size), min(start + 2 * width, keys.size)
            left, right = start, middle
            for i in range(start, end):
                take_left = left < middle
                if take_left and right < end:
                    a, b = keys[left] & np.uint64(0xFFFFFFFF), keys[right] & np.uint64(0xFFFFFFFF)
                    take_left = relative[a] > relative[b] or (
                        relative[a] == relative[b] and tokens[a] < tokens[b]
                    )
                if take_left:
                    spare[i] = keys[left]
                    left += 1
                else:
                    spare[i] = keys[right]
                    right += 1
        for i in range(keys.size):
            keys[i] = spare[i]
        width *= 2


@numba.njit(nogil=True, cache=True)
def _sum_by_token(
    tokens: NDArray[np.int32],
    counts: NDArray[np.float64],
    keys: NDArray[np.uint64],
    spare: NDArray[np.uint64],
    sizes: NDArray[np.int32],
    unsorted: NDArray[np.float64],
) -> int:
    """Sort pairs by token and sum those that share one; returns how many are left."""
    for i in range(tokens.size):
        unsorted[i] = counts[i]
        keys[i] = (np.uint64(tokens[i]) << np.uint64(32)) | np.uint64(i)
    _radix_sort(keys, spare, sizes)
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
