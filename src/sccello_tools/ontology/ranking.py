"""Spearman correlation of many rows with many rows, as the scores of novel cell types need it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._threads import n_cores
from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Final

    from numpy.typing import ArrayLike, NDArray

_CHUNK: Final = 4096  # cells at a time: 6.5 MB of ranks for the 398 published types
_WORTH_THREADS: Final = 256  # rows below which starting threads costs more than it saves


def spearman_matrix(
    cells: ArrayLike, rows: ArrayLike, *, chunk_cells: int = _CHUNK
) -> NDArray[np.float32]:
    """Spearman correlation of each cell's similarities with each candidate's ontology row (METHOD: Novel cell types).

    Ties take their average rank, as in ``scipy.stats.spearmanr``. float32 input is compared in float32, anything else in float64.

    Parameters
    ----------
    cells
        Similarity of each cell to each known type, array of shape (n_cells, n_known).
    rows
        Similarity of each candidate to each known type, such as :func:`pagerank_rows` gives, array of shape (n_candidates, n_known).
    chunk_cells
        Cells ranked at a time; bounds the memory beyond the result.

    Returns
    -------
    Array of shape (n_cells, n_candidates), in [-1, 1]. NaN where a row holds NaN, or one value throughout.

    Raises
    ------
    ValueError
        If the arrays are not both two-dimensional with the same number of columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.ontology import spearman_matrix
    >>> spearman_matrix([[0.1, 0.2, 0.3]], [[1.0, 2.0, 9.0], [9.0, 2.0, 1.0]]).round(3)
    array([[ 1., -1.]], dtype=float32)
    """
    x, y = np.asarray(cells), np.asarray(rows)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        msg = (
            f"cells has shape {x.shape} and rows {y.shape}; expected are (n_cells, n_known) and (n_candidates, n_known). "
            "Make the rows with pagerank_rows(ontology, candidates, columns=known)."
        )
        raise ArgumentError(msg)
    candidates = _unit_ranks(y).T
    out = np.empty((len(x), len(y)), dtype=np.float32)
    for first in range(0, len(x), chunk_cells):
        part = slice(first, first + chunk_cells)
        np.matmul(_unit_ranks(x[part]), candidates, out=out[part])
    return np.clip(out, -1, 1, out=out)


def _unit_ranks(values: NDArray[np.generic]) -> NDArray[np.float32]:
    # imported here: numba takes a second, and only this needs it
    from ._rank_kernel import unit_ranks

    dtype = np.dtype(np.float32 if values.dtype == np.float32 else np.float64)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    sign, infinity = np.array([-0.0, np.inf], dtype=dtype).view(unsigned)
    bits = np.ascontiguousarray(values, dtype=dtype).view(unsigned)
    out = np.empty(values.shape, dtype=np.float32)
    n_threads = n_cores() if len(bits) >= _WORTH_THREADS else 1
    # threads of Python, the kernel holding no GIL: numba's own may not be entered from two threads at a time
    with ThreadPoolExecutor(n_threads) as pool:
        edges = np.linspace(0, len(bits), n_threads + 1).astype(int)
        parts = [slice(first, last) for first, last in pairwise(edges.tolist())]
        waiting = [pool.submit(unit_ranks, bits[part], sign, infinity, out[part]) for part in parts]
        for done in waiting:
            done.result()
    return out
