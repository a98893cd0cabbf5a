"""Iterate over the rows of a matrix of any type with only some rows in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from sccello_tools._validation import check_at_least
from sccello_tools.errors import NotCountsError

from ._csc_on_disk import csc_file_chunks
from ._kernels import csc_row_counts, csr_order_of_csc
from .structure import check_indices, check_sparse_structure, is_on_disk_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_DENSE_VALUES = 1 << 24  # values of a dense matrix converted to CSR at a time


class Chunk(NamedTuple):
    """Consecutive rows of a matrix."""

    start: int
    """Index of the first row."""

    rows: sparse.csr_array
    """The rows, array of shape (n_rows, n_columns). May share memory with the matrix and must not be changed."""


def row_chunks(matrix: Any, *, n_rows: int) -> Iterator[Chunk]:
    """Yield the rows of a matrix in order, at most ``n_rows`` at a time.

    Memory besides the matrix grows with ``n_rows``, not with the number of rows. A CSC matrix on disk is regrouped through a
    temporary file of its size, and a dask array is computed in its own row chunks if these are larger.

    Parameters
    ----------
    matrix
        Matrix of shape (n_cells, n_columns): a NumPy array, any SciPy sparse matrix, a matrix of a backed h5ad or zarr file, or a
        dask array. Masked values of a masked array are zeros.
    n_rows
        Maximum number of rows in memory.

    Yields
    ------
    Chunks of rows as CSR, in order.

    Raises
    ------
    NotCountsError
        If the matrix does not hold numbers.
    SparseStructureError
        If the index arrays of a sparse matrix are inconsistent or out of range.
    """
    check_at_least("the number of rows per chunk (chunk_cells)", n_rows, 1)
    _check_numeric(getattr(matrix, "dtype", None))
    check_sparse_structure(matrix)
    if hasattr(matrix, "dask"):
        yield from _dask_chunks(matrix, n_rows)
    elif is_on_disk_sparse(matrix):
        if matrix.format == "csr":
            yield from _sliced_chunks(matrix, n_rows)
        else:
            for start, rows in csc_file_chunks(matrix.group, matrix.shape, n_rows=n_rows):
                yield Chunk(start, rows)
    elif not hasattr(matrix, "tocsr"):  # dense, in memory or on disk
        yield from _sliced_chunks(matrix, min(n_rows, _dense_rows(matrix)))
    elif matrix.format == "csc":
        yield from _csc_chunks(matrix, n_rows)
    elif matrix.format == "csr":
        yield from _csr_chunks(matrix, n_rows)
    else:
        yield from _csr_chunks(_as_csr(matrix), n_rows)


def _check_numeric(dtype: np.dtype[Any] | None) -> None:
    if dtype is not None and dtype.kind not in "biuf":
        msg = f"The matrix has values of type {dtype}, but raw counts must be numbers. Convert it or pass another layer."
        raise NotCountsError(msg)


def _dense_rows(matrix: Any) -> int:
    n_columns: int = matrix.shape[1]
    return max(1, _DENSE_VALUES // max(1, n_columns))


def _spans(n_cells: int, n_rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n_cells, n_rows):
        yield start, min(start + n_rows, n_cells)


def _as_csr(matrix: Any) -> Any:
    """Convert a sparse matrix that is neither CSR nor CSC, which SciPy does without checking its indices."""
    if matrix.format == "coo":
        for axis, (indices, n) in enumerate(zip((matrix.row, matrix.col), matrix.shape)):
            check_indices(indices, n, axis=("row", "column")[axis])
    return matrix.tocsr()


def _csr_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Yield windows of a CSR matrix in memory without copying."""
    for start, stop in _spans(matrix.shape[0], n_rows):
        a, b = matrix.indptr[start], matrix.indptr[stop]
        parts = matrix.data[a:b], matrix.indices[a:b], matrix.indptr[start : stop + 1] - a
        check_indices(parts[1], matrix.shape[1])
        yield Chunk(start, sparse.csr_array(parts, shape=(stop - start, matrix.shape[1])))


def _sliced_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Yield slices of matrices whose rows are cheap to read: dense in memory or on disk, CSR on disk."""
    for start, stop in _spans(matrix.shape[0], n_rows):
        rows: Any = matrix[start:stop]
        if not hasattr(rows, "tocsr"):
            rows = np.asarray(np.ma.filled(rows, 0))
            _check_numeric(rows.dtype)
            # SciPy has no sparse matrices of half precision or foreign byte order
            rows = rows.astype(
                np.float32 if rows.dtype == np.float16 else rows.dtype.newbyteorder("="), copy=False
            )
        else:
            check_indices(rows.indices, matrix.shape[1])
        yield Chunk(start, sparse.csr_array(rows))


def _dask_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Compute as many row chunks of the array as fit into ``n_rows``, at least one, so that each is computed once."""
    bounds = np.cumsum(matrix.chunks[0])
    start = 0
    while start < matrix.shape[0]:
        fitting = bounds[(bounds > start) & (bounds <= start + n_rows)]
        stop = int(fitting[-1] if fitting.size else bounds[bounds > start][0])
        for chunk in row_chunks(matrix[start:stop].compute(), n_rows=n_rows):
            yield Chunk(start + chunk.start, chunk.rows)
        start = stop


def _csc_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Yield rows of a CSC matrix in memory with one pointer per column, so that each entry is read twice, not once per chunk."""
    check_indices(matrix.indices, matrix.shape[0], axis="row")
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    indptr = matrix.indptr.astype(np.int64, copy=False)
    position = indptr[:-1]
    for start, stop in _spans(matrix.shape[0], n_rows):
        row_counts = np.zeros(stop - start, dtype=np.int64)
        ends = csc_row_counts(indptr, matrix.indices, position, start, stop, row_counts)
        row_indptr = np.concatenate([[0], np.cumsum(row_counts)])
        columns = np.empty(row_indptr[-1], dtype=np.int32)
        source = np.empty(row_indptr[-1], dtype=np.int64)
        csr_order_of_csc(matrix.indices, position, ends, start, row_indptr, columns, source)
        position = ends
        parts = matrix.data[source], columns, row_indptr
        yield Chunk(start, sparse.csr_array(parts, shape=(stop - start, matrix.shape[1])))
