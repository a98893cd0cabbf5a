"""Iterate over the rows of a CSC matrix on disk, where the entries of a row are spread over the whole file."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sccello_tools._logging import logger

from .structure import check_indices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

_BLOCK = 1 << 19  # entries read and regrouped at a time


def csc_file_chunks(
    group: Any, shape: tuple[int, int], *, n_rows: int
) -> Iterator[tuple[int, sparse.csr_array]]:
    """Regroup the entries by chunk of rows in a temporary file, then yield the chunks with the index of their first row.

    Takes two passes over the file and one over the copy, independent of the number of chunks. Memory holds one chunk and one block
    of entries.

    Parameters
    ----------
    group
        Group with the arrays "data", "indices" and "indptr", as anndata writes them to h5ad and zarr.
    shape
        Shape of the matrix.
    n_rows
        Rows per chunk.

    Raises
    ------
    SparseStructureError
        If a row index is out of range.
    """
    data = group["data"]
    n_chunks = -(-shape[0] // n_rows)
    n_entries = np.zeros(n_chunks, dtype=np.int64)
    for first, last in _blocks(data.shape[0]):
        rows = group["indices"][first:last]
        check_indices(rows, shape[0], axis="row")
        n_entries += np.bincount(rows // n_rows, minlength=n_chunks)
    bounds = np.concatenate([[0], np.cumsum(n_entries)])

    entry = np.dtype([("row", np.int32), ("column", np.int32), ("value", data.dtype)])
    logger.info(
        "The matrix is CSC on disk: regrouping %.0f MB by rows in %s",
        data.shape[0] * entry.itemsize / 1e6,
        tempfile.gettempdir(),
    )
    with tempfile.TemporaryFile(prefix="sccello-") as file:
        at = bounds[:-1].copy()
        for block in _entries(group, entry):
            chunk_of = block["row"] // n_rows
            ordered = block[np.argsort(chunk_of, kind="stable")]
            ends = np.cumsum(np.bincount(chunk_of, minlength=n_chunks))
            for chunk in np.unique(chunk_of):
                part = ordered[ends[chunk - 1] if chunk else 0 : ends[chunk]]
                file.seek(at[chunk] * entry.itemsize)
                file.write(part.tobytes())
                at[chunk] += len(part)
        for chunk in range(n_chunks):
            file.seek(bounds[chunk] * entry.itemsize)
            found = np.frombuffer(file.read(n_entries[chunk] * entry.itemsize), dtype=entry)
            start = chunk * n_rows
            yield start, _as_csr(found, start, (min(n_rows, shape[0] - start), shape[1]))


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, _BLOCK):
        yield first, min(first + _BLOCK, n)


def _entries(group: Any, entry: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Yield blocks of row, column and value of the stored entries, in file order."""
    indptr = np.asarray(group["indptr"][:], dtype=np.int64)
    for first, last in _blocks(group["data"].shape[0]):
        block = np.empty(last - first, dtype=entry)
        block["row"], block["value"] = group["indices"][first:last], group["data"][first:last]
        begins, ends = np.clip(indptr[:-1], first, last), np.clip(indptr[1:], first, last)
        block["column"] = np.repeat(np.arange(len(begins)), ends - begins)
        yield block


def _as_csr(entries: NDArray[Any], start: int, shape: tuple[int, int]) -> sparse.csr_array:
    """Sort entries, which are sorted by column, by row."""
    rows = entries["row"] - start
    entries = entries[np.argsort(rows, kind="stable")]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return sparse.csr_array(
        (entries["value"].copy(), entries["column"].copy(), indptr), shape=shape
    )
