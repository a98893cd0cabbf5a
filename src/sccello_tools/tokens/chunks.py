"""Walk a matrix by rows, whatever it is stored in, with only some rows in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from sccello_tools.errors import ArgumentError, NotCountsError

from ._csc_on_disk import csc_file_chunks
from ._kernels import csc_row_counts, csr_order_of_csc
from .structure import check_indices, check_sparse_structure, is_on_disk_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_DENSE_VALUES = 1 << 24  # values of a dense matrix that are turned into CSR at a time


class Chunk(NamedTuple):
    """Some consecutive rows of a matrix."""

    start: int
    """Index of the first row."""

    rows: sparse.csr_array
    """The rows, shape (n_rows, n_columns). May share memory with the matrix: not to be changed."""


def row_chunks(matrix: Any, *, n_rows: int) -> Iterator[Chunk]:
    """Walk a matrix from top to bottom, holding at most ``n_rows`` rows at a time.

    The memory needed besides the matrix grows with ``n_rows``, not with the number of rows. A CSC matrix on disk is regrouped
    through a temporary file as large as itself, and a dask array is computed by its own chunks of rows, if these are larger.

    Parameters
    ----------
    matrix
        Shape (n_cells, n_columns): a NumPy array, any SciPy sparse matrix, a matrix of a backed h5ad or zarr file, or a dask array.
    n_rows
        Rows to hold at a time.

    Yields
    ------
    The rows as CSR, in order.

    Raises
    ------
    NotCountsError
        If the matrix does not hold numbers.
    SparseStructureError
        If the index arrays of a sparse matrix are inconsistent or out of range.
    """
    if n_rows < 1:
        msg = (
            f"n_rows is {n_rows}; at least one row must be held at a time, so expected is 1 or more"
        )
        raise ArgumentError(msg)
    _refuse_what_is_no_number(getattr(matrix, "dtype", None))
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


def _refuse_what_is_no_number(dtype: np.dtype[Any] | None) -> None:
    if dtype is not None and dtype.kind not in "biuf":
        msg = f"The matrix holds values of type {dtype}, not numbers. Raw counts are expected."
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
    """Windows on a CSR matrix in memory."""
    for start, stop in _spans(matrix.shape[0], n_rows):
        a, b = matrix.indptr[start], matrix.indptr[stop]
        parts = matrix.data[a:b], matrix.indices[a:b], matrix.indptr[start : stop + 1] - a
        check_indices(parts[1], matrix.shape[1])
        yield Chunk(start, sparse.csr_array(parts, shape=(stop - start, matrix.shape[1])))


def _sliced_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Slices of what gives rows cheaply: dense matrices in memory or on disk, CSR on disk."""
    for start, stop in _spans(matrix.shape[0], n_rows):
        rows: Any = matrix[start:stop]
        if not hasattr(rows, "tocsr"):
            rows = np.asarray(rows)
            _refuse_what_is_no_number(rows.dtype)
            # SciPy has no sparse matrices of half precision or foreign byte order
            rows = rows.astype(
                np.float32 if rows.dtype == np.float16 else rows.dtype.newbyteorder("="), copy=False
            )
        else:
            check_indices(rows.indices, matrix.shape[1])
        yield Chunk(start, sparse.csr_array(rows))


def _dask_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Compute as many of the array's own chunks of rows as fit ``n_rows``, at least one, so that each is computed once."""
    bounds = np.cumsum(matrix.chunks[0])
    start = 0
    while start < matrix.shape[0]:
        fitting = bounds[(bounds > start) & (bounds <= start + n_rows)]
        stop = int(fitting[-1] if fitting.size else bounds[bounds > start][0])
        for chunk in row_chunks(matrix[start:stop].compute(), n_rows=n_rows):
            yield Chunk(start + chunk.start, chunk.rows)
        start = stop


def _csc_chunks(matrix: Any, n_rows: int) -> Iterator[Chunk]:
    """Walk a CSC matrix in memory with one pointer a column, so that each entry is read twice in all, not once a chunk."""
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
