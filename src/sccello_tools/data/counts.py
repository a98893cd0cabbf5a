"""Walk a matrix of raw counts in chunks of rows, whatever it is stored in, and make sure that it holds counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import sparse

from sccello_tools._errors import NotCountsError

from ._token_kernels import fill_csr_from_csc, inspect_values, slice_csc_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CountsPolicy = Literal["check", "trust"]


class Chunk(NamedTuple):
    """Some consecutive rows of a matrix."""

    start: int
    """Index of the first row."""

    rows: sparse.csr_array
    """The rows, shape (n_rows, n_columns)."""


@dataclass
class ValueSummary:
    """What the stored values of a matrix are, gathered chunk by chunk."""

    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fractional: int = 0
    n_positive: int = 0
    largest: float = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Take in more stored values."""
        if values.dtype.kind in "bu":
            self.n_positive += int(np.count_nonzero(values))
            self.largest = max(self.largest, float(values.max(initial=0)))
            return
        if values.dtype.kind not in "if":
            msg = f"The matrix holds {values.dtype} values, not numbers. Raw counts are expected."
            raise NotCountsError(msg)
        if values.dtype.itemsize < 4:  # float16 and small integers: numba compiles for the common types only
            values = values.astype(np.float32)
        n_nan, n_infinite, n_negative, n_fractional, largest, n_positive = inspect_values(values)
        self.n_nan += n_nan
        self.n_infinite += n_infinite
        self.n_negative += n_negative
        self.n_fractional += n_fractional
        self.n_positive += n_positive
        self.largest = max(self.largest, largest)

    def complaint(self, policy: CountsPolicy = "check") -> str:
        """Say in words why these are not raw counts, "" if they may be.

        Under "trust" fractions pass, but values that cannot be ranked do not.
        """
        if self.n_nan:
            return f"{self.n_nan:,} values are NaN"
        if self.n_infinite:
            return f"{self.n_infinite:,} values are infinite"
        if self.n_negative:
            return f"{self.n_negative:,} values are negative, as after scaling or regression"
        if policy == "check" and self.n_fractional:
            how = "as after log1p" if self.largest < 25 else "as after normalisation, denoising or ambient correction"
            return f"{self.n_fractional:,} of {self.n_positive:,} non-zero values are fractions (largest {self.largest:.4g}), {how}"
        return ""


def looks_like_counts(matrix: Any, *, n_rows: int = 512) -> bool:
    """Whether the first rows of a matrix are whole, non-negative and not all zero."""
    summary = ValueSummary()
    for chunk in row_chunks(matrix, n_rows=n_rows, stop=n_rows):
        if chunk.rows.data.dtype.kind not in "biuf":
            return False
        summary.add(chunk.rows.data)
    return summary.n_positive > 0 and not summary.complaint()


def row_chunks(matrix: Any, *, n_rows: int, stop: int | None = None) -> Iterator[Chunk]:
    """Walk a matrix from top to bottom, holding ``n_rows`` rows at a time.

    Parameters
    ----------
    matrix
        Shape (n_cells, n_columns): a NumPy array, any SciPy sparse matrix, a matrix of a backed h5ad or zarr file, or a dask array.
    n_rows
        Rows to hold at a time.
    stop
        Row to stop before; all rows if not given.

    Yields
    ------
    The rows as CSR, in order.
    """
    if n_rows < 1:
        msg = f"n_rows is {n_rows}; at least one row must be held at a time"
        raise ValueError(msg)
    n_cells = matrix.shape[0] if stop is None else min(stop, matrix.shape[0])
    if sparse.issparse(matrix) and matrix.format == "csc":
        yield from _csc_chunks(matrix, n_rows, n_cells)
        return
    if sparse.issparse(matrix) and matrix.format not in {"csr", "csc"}:
        matrix = matrix.tocsr()
    for start in range(0, n_cells, n_rows):
        yield Chunk(start, _as_csr(matrix[start : min(start + n_rows, n_cells)]))


def _as_csr(rows: Any) -> sparse.csr_array:
    """Read rows of any kind into a CSR array."""
    if hasattr(rows, "compute"):  # dask
        rows = rows.compute()
    if hasattr(rows, "to_memory"):  # anndata's on-disk sparse matrices, where a slice is lazy
        rows = rows.to_memory()
    if not sparse.issparse(rows):
        rows = np.asarray(rows)
    return sparse.csr_array(rows)


def _csc_chunks(matrix: Any, n_rows: int, n_cells: int) -> Iterator[Chunk]:
    """Walk a CSC matrix by rows with one pointer a column, so that the whole walk reads each entry twice, not once a chunk."""
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    position = matrix.indptr[:-1].astype(np.int64)
    for start in range(0, n_cells, n_rows):
        stop = min(start + n_rows, n_cells)
        row_counts = np.zeros(stop - start, dtype=np.int64)
        ends = slice_csc_rows(matrix.indptr, matrix.indices, position, stop, row_counts, start)
        indptr = np.concatenate([[0], np.cumsum(row_counts)])
        indices = np.empty(indptr[-1], dtype=np.int32)
        data = np.empty(indptr[-1], dtype=matrix.data.dtype)
        fill_csr_from_csc(matrix.indices, matrix.data, position, ends, start, indptr, indices, data)
        position = ends
        yield Chunk(start, sparse.csr_array((data, indices, indptr), shape=(stop - start, matrix.shape[1])))
