"""Sums of marker evidence over the rows of a term space; compiled by numba."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def _find_largest(
    own: NDArray[np.float32],
    specific: NDArray[np.float32],
    counted: NDArray[np.bool_],
    top: NDArray[np.float32],
) -> None:
    """Write the largest t-values of one cell over ``counted`` terms to ``top``, (2, n_top): of ``own`` and of ``specific``, (n_terms,)."""
    top[:] = -np.inf
    n_top = top.shape[1]
    for term in range(len(own)):
        if not counted[term]:
            continue
        for k in range(2):
            value = own[term] if k == 0 else specific[term]
            if value > top[k, 0]:
                place = 0
                while place + 1 < n_top and top[k, place + 1] < value:
                    top[k, place] = top[k, place + 1]
                    place += 1
                top[k, place] = value


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def marker_features(
    own: NDArray[np.float32],
    specific: NDArray[np.float32],
    negative: NDArray[np.float32],
    counted: NDArray[np.bool_],
    marker_of_row: NDArray[np.int32],
    sibling_starts: NDArray[np.int32],
    sibling_markers: NDArray[np.int32],
    n_top: int,
    out: NDArray[np.float32],
) -> None:
    """Write five marker features of each row: specific, specific (absolute), best sibling, negative, own.

    ``own`` and ``specific`` are divided by the mean of the cell's largest ``n_top`` t-values (at least 1) over ``counted`` terms; absolute
    and negative values are t-values over 10. ``out`` has shape (n_cells, 5, n_rows).
    """
    n_cells, n_terms = own.shape
    n_rows = len(marker_of_row)
    top = np.empty((2, n_top), dtype=np.float32)
    scaled = np.empty(n_terms, dtype=np.float32)
    for cell in range(n_cells):
        _find_largest(own[cell], specific[cell], counted, top)
        own_scale = 1 / max(top[0].mean(), np.float32(1))
        scale = 1 / max(top[1].mean(), np.float32(1))
        for term in range(n_terms):
            scaled[term] = specific[cell, term] * scale
        for row in range(n_rows):
            m = marker_of_row[row]
            if m < 0:
                out[cell, 0, row] = 0
                out[cell, 1, row] = 0
                out[cell, 3, row] = 0
                out[cell, 4, row] = 0
            else:
                out[cell, 0, row] = scaled[m]
                out[cell, 1, row] = specific[cell, m] * np.float32(0.1)
                out[cell, 3, row] = negative[cell, m] * np.float32(0.1)
                out[cell, 4, row] = own[cell, m] * own_scale
            first, last = sibling_starts[row], sibling_starts[row + 1]
            if first == last:
                out[cell, 2, row] = 0
                continue
            best = np.float32(-np.inf)
            for i in range(first, last):
                best = max(best, scaled[sibling_markers[i]])
            out[cell, 2, row] = best


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def add_marker_scores(
    own: NDArray[np.float32],
    specific: NDArray[np.float32],
    negative: NDArray[np.float32],
    counted: NDArray[np.bool_],
    marker_of_row: NDArray[np.int32],
    sibling_starts: NDArray[np.int32],
    sibling_markers: NDArray[np.int32],
    n_top: int,
    weights: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Add the weighted sum of the five features of :func:`marker_features` to ``out``, shape (n_cells, n_rows)."""
    n_cells, n_terms = own.shape
    n_rows = len(marker_of_row)
    top = np.empty((2, n_top), dtype=np.float32)
    scaled = np.empty(n_terms, dtype=np.float32)
    combined = np.empty(n_terms, dtype=np.float32)
    for cell in range(n_cells):
        _find_largest(own[cell], specific[cell], counted, top)
        own_scale = weights[4] / max(top[0].mean(), np.float32(1))
        scale = 1 / max(top[1].mean(), np.float32(1))
        of_specific = weights[0] * scale + weights[1] * np.float32(0.1)
        of_negative = weights[3] * np.float32(0.1)
        for term in range(n_terms):
            scaled[term] = specific[cell, term] * scale
            combined[term] = (
                of_specific * specific[cell, term]
                + of_negative * negative[cell, term]
                + own_scale * own[cell, term]
            )
        for row in range(n_rows):
            m = marker_of_row[row]
            value = combined[m] if m >= 0 else np.float32(0)
            first, last = sibling_starts[row], sibling_starts[row + 1]
            if first < last:
                best = np.float32(-np.inf)
                for i in range(first, last):
                    best = max(best, scaled[sibling_markers[i]])
                value += weights[2] * best
            out[cell, row] += value
