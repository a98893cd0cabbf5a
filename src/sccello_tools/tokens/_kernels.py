"""Compiled inner loops of tokenizing: count the genes of each row, then rank them.

Arrays are filled in loops rather than by slice assignment, which takes numba seconds to compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_LOGS = 256  # counts below this, nearly all of them, share a table of logarithms per cell


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
    fraction: NDArray[np.float32],
) -> None:
    """Count the expressed genes of the vocabulary in rows ``first..last``.

    Unless ``distinct``, several entries of a row may have the same token and are counted once. ``fraction`` is the fraction of the
    counts in genes of the vocabulary, without columns of token -2, which are not genes; NaN if there are no counts.
    """
    seen_in = np.full(0 if distinct else n_tokens, -1, dtype=np.int64)
    for row in range(first, last):
        n = 0
        total = known = 0.0
        for j in range(indptr[row], indptr[row + 1]):
            token = column_token[indices[j]]
            if token < -1 or not data[j] > 0:
                continue
            total += data[j]
            if token < 0:
                continue
            known += data[j]
            if not distinct:
                if seen_in[token] == row:
                    continue
                seen_in[token] = row
            n += 1
        n_genes[row] = n
        fraction[row] = known / total if total > 0 else np.nan


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
    """Write tokens and expression values of rows ``first..last`` in rank order to ``ids`` and ``values``.

    ``distinct`` guarantees that no two entries of a row have the same token; otherwise these are summed first. An empty ``values``
    is not written to.
    """
    with_values = values.size > 0
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
        if n_kept < 0:  # a cell without genes has no <cls> either
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
        # Positive floats sort like their bits, so the upper 22 of 31 bits, complemented, sort nearly all genes by descending
        # value. Genes with equal keys are sorted exactly afterwards.
        for i in range(n):
            keys[i] = (np.uint64(~bits[i] >> 9 & 0x3FFFFF) << np.uint64(32)) | np.uint64(i)
        _radix_sort(keys[:n], spare[:n], sizes)
        _order_within_keys(keys[:n], spare[:n], relative, tokens)
        ids[at] = cls_id
        if not with_values:
            for i in range(n_kept):
                ids[at + 1 + i] = tokens[keys[i] & np.uint64(0xFFFFFFFF)]
            continue

        total = 0.0  # summed in rank order, so that rounding does not depend on the order of the columns
        for i in range(n):
            total += counts[keys[i] & np.uint64(0xFFFFFFFF)]
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
    """Sort stably by the lower 22 bits of the upper half, 11 bits at a time."""
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
    """Sort genes with equal keys by descending value, then by ascending token."""
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
    """Sort genes, given by the lower half of their keys, by descending value, then by ascending token."""
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
    """Sum the counts of equal tokens and sort by token; returns the number of distinct tokens."""
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
    """Return the numbers of NaN, infinite, negative and fractional values, the maximum, and the number of positive values."""
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
    """Return where the entries of rows ``start..stop`` end in each column, starting at ``position``, and count them by row."""
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
    """List the entries between ``position`` and ``ends`` of each column by row: their column and their index in the CSC arrays."""
    at = row_indptr[:-1].copy()
    for column in range(position.size):
        for k in range(position[column], ends[column]):
            row = indices[k] - start
            columns[at[row]] = column
            source[at[row]] = k
            at[row] += 1
