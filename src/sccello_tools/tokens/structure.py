"""Check the index arrays of a sparse matrix before compiled code, which has no bounds checks, reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import SparseStructureError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_REWRITE = "Write the matrix again from its source"


def is_on_disk_sparse(matrix: Any) -> bool:
    """Whether this is a sparse matrix of a backed h5ad or zarr file, as anndata wraps it."""
    return hasattr(matrix, "group") and getattr(matrix, "format", "") in {"csr", "csc"}


def check_sparse_structure(matrix: Any) -> None:
    """Check that the pointers and lengths of a CSR or CSC matrix are consistent; matrices of other kinds pass.

    Call this once for a matrix, before any of its rows are sliced. It reads the pointers only: the indices are checked with
    :func:`check_indices` as they are read, which :func:`row_chunks` does.

    Parameters
    ----------
    matrix
        A SciPy sparse matrix in memory, or a sparse matrix of a backed h5ad or zarr file as anndata wraps it.

    Raises
    ------
    SparseStructureError
        If pointers are missing, negative, decreasing, or do not end at the number of stored values, or if there are more or fewer
        indices than values.
    """
    if is_on_disk_sparse(matrix):
        group = matrix.group
        indptr, n_indices, n_values = (
            group["indptr"][:],
            group["indices"].shape[0],
            group["data"].shape[0],
        )
    elif hasattr(matrix, "tocsr") and matrix.format in {"csr", "csc"}:
        indptr, n_indices, n_values = matrix.indptr, len(matrix.indices), len(matrix.data)
    else:
        return
    axis = "row" if matrix.format == "csr" else "column"
    n_major = matrix.shape[0 if axis == "row" else 1]
    if n_indices != n_values:
        msg = f"The sparse matrix is damaged: it stores {n_values:,} values but {n_indices:,} indices. {_REWRITE}."
        raise SparseStructureError(msg)
    if fault := _pointer_fault(np.asarray(indptr), n_major, n_values, axis):
        msg = f"The sparse matrix is damaged: {fault}"
        raise SparseStructureError(msg)


def check_indices(indices: NDArray[Any], n: int, *, axis: str = "column") -> None:
    """Check that indices of a CSR matrix lie in ``[0, n)``, in one pass over them.

    Parameters
    ----------
    indices
        Column indices, shape (n_stored,); of a CSC matrix, row indices.
    n
        Number of columns; of a CSC matrix, of rows.
    axis
        What the indices count, for the message: "column" or "row".

    Raises
    ------
    SparseStructureError
        If an index is out of range.
    """
    if not indices.size:
        return
    if indices.dtype.kind not in "iu":
        msg = f"The sparse matrix is damaged: its {axis} indices are of type {indices.dtype}, not integers. {_REWRITE}."
        raise SparseStructureError(msg)
    # a negative index is a huge unsigned one, so that one maximum tells both
    unsigned = indices.view(np.dtype(f"u{indices.dtype.itemsize}").newbyteorder(indices.dtype.byteorder))  # fmt: skip
    if int(unsigned.max()) < n:
        return
    lowest, highest = int(indices.min()), int(indices.max())
    if lowest == 1 and highest == n:
        advice = f"They look 1-based, as in R and Matrix Market files: subtract 1 from all {axis} indices."
    else:
        advice = f"{_REWRITE}."
    msg = (
        f"The sparse matrix is damaged: {axis} indices range from {lowest:,} to {highest:,}, but with {n:,} {axis}s they must lie "
        f"between 0 and {n - 1:,}. {advice}"
    )
    raise SparseStructureError(msg)


def _pointer_fault(indptr: NDArray[Any], n_major: int, n_values: int, axis: str) -> str:
    """Describe what is wrong with the pointers and how to repair it; "" if they are consistent."""
    if indptr.dtype.kind not in "iu":
        return f"its {axis} pointers are of type {indptr.dtype}, not integers. {_REWRITE}."
    if len(indptr) != n_major + 1:
        return f"it has {len(indptr):,} {axis} pointers, but {n_major:,} {axis}s need {n_major + 1:,}. {_REWRITE}."
    if int(indptr[0]) != 0:
        return f"its first {axis} pointer is {int(indptr[0]):,}, not 0. {_REWRITE}."
    if n_negative := int(np.count_nonzero(indptr < 0)):
        return (
            f"{n_negative:,} of {len(indptr):,} {axis} pointers are negative, as after a 32-bit overflow (more than 2,147,483,647 "
            f"stored values). {_REWRITE}, with 64-bit pointers."
        )
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        return f"its {axis} pointers decrease at {axis} {int(falls.argmax()):,}. {_REWRITE}, with 64-bit pointers."
    if int(indptr[-1]) != n_values:
        return f"its {axis} pointers end at {int(indptr[-1]):,}, but {n_values:,} values are stored. {_REWRITE}."
    return ""
