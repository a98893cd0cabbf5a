"""row_chunks: identical rows from every type of matrix, with memory bounded by the chunk."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from sccello_tools.errors import NotCountsError
from sccello_tools.tokens import RaggedTokens, Tokenizer, _csc_on_disk, match_gene_names, row_chunks
from sccello_tools.tokens import chunks as _row_chunks

IN_MEMORY = {
    "float32": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "longdouble": lambda x: x.astype(np.longdouble),
    "uint8": lambda x: x.astype(np.uint8),
    "uint16": lambda x: x.astype(np.uint16),
    "int32": lambda x: x.astype(np.int32),
    "int64": lambda x: x.astype(np.int64),
    "big-endian": lambda x: x.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "read-only": lambda x: np.frombuffer(x.tobytes(), dtype=x.dtype).reshape(x.shape),
    "csr_array": sparse.csr_array,
    "csr_matrix": sparse.csr_matrix,
    "csr_array uint8": lambda x: sparse.csr_array(x.astype(np.uint8)),
    "csr_array int64": lambda x: sparse.csr_array(x.astype(np.int64)),
    "csr_array, unsorted": lambda x: unsorted(sparse.csr_array(x)),
    "csc_array": sparse.csc_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array uint16": lambda x: sparse.csc_array(x.astype(np.uint16)),
    "csc_array float64": lambda x: sparse.csc_array(x.astype(np.float64)),
    "csc_array, unsorted": lambda x: unsorted(sparse.csc_array(x)),
    "coo_array": sparse.coo_array,
    "coo_matrix": sparse.coo_matrix,
    "lil_array": sparse.lil_array,
    "bsr_array": sparse.bsr_array,
}
ON_DISK = ["csr", "csc", "dense"]
CHUNKS = [1, 7, 30, 4096]


def unsorted(matrix):
    """The same matrix with the entries of each row (or column) in reverse, and a zero stored in each."""
    pieces = [slice(a, b) for a, b in pairwise(matrix.indptr)]
    data = np.concatenate([[*matrix.data[p][::-1], 0] for p in pieces])
    indices = np.concatenate([[*matrix.indices[p][::-1], 0] for p in pieces])
    indptr = matrix.indptr + np.arange(len(matrix.indptr))
    changed = type(matrix)((data.astype(matrix.dtype), indices, indptr), shape=matrix.shape)
    assert not changed.has_canonical_format
    return changed


def tokens_of(matrix, gene_ids, n_rows) -> RaggedTokens:
    tokenizer = Tokenizer(match_gene_names(gene_ids))
    chunks = list(row_chunks(matrix, n_rows=n_rows))
    assert all(isinstance(chunk.rows, sparse.csr_array) for chunk in chunks)
    assert all(chunk.rows.shape[0] <= n_rows for chunk in chunks)
    starts = np.cumsum([0, *(chunk.rows.shape[0] for chunk in chunks)])
    assert [chunk.start for chunk in chunks] == starts[:-1].tolist()
    assert starts[-1] == matrix.shape[0]
    return RaggedTokens.concatenate([tokenizer(chunk.rows) for chunk in chunks])


def assert_bits(tokens, expected):
    for name in ("indptr", "ids", "n_genes", "known_fraction"):
        assert getattr(tokens, name).tobytes() == getattr(expected, name).tobytes(), name


@pytest.fixture(scope="module")
def expected(dense_counts, gene_ids):
    match = match_gene_names(gene_ids)
    return Tokenizer(match)(sparse.csr_array(dense_counts))


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_every_matrix_in_memory(kind, dense_counts, gene_ids, expected):
    matrix = IN_MEMORY[kind](dense_counts)
    for n_rows in CHUNKS:
        assert_bits(tokens_of(matrix, gene_ids, n_rows), expected)


def as_stored(dense, kind):
    return dense if kind == "dense" else getattr(sparse, f"{kind}_matrix")(dense)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
@pytest.mark.parametrize("kind", ON_DISK)
def test_every_matrix_in_an_h5ad(kind, dtype, dense_counts, gene_ids, expected, tmp_path):
    path = tmp_path / "x.h5ad"
    anndata.AnnData(as_stored(dense_counts.astype(dtype), kind)).write_h5ad(path)
    backed = anndata.read_h5ad(path, backed="r")
    assert not isinstance(backed.X, np.ndarray)
    for n_rows in CHUNKS:
        assert_bits(tokens_of(backed.X, gene_ids, n_rows), expected)
    backed.file.close()


@pytest.mark.parametrize("block", [1, 97, 12_047])
def test_csc_file_read_in_small_blocks(
    block, dense_counts, gene_ids, expected, tmp_path, monkeypatch
):
    small = np.where(np.arange(900) < 40, dense_counts, 0) if block == 1 else dense_counts
    expected = tokens_of(small, gene_ids, 30)
    path = tmp_path / "x.h5ad"
    anndata.AnnData(sparse.csc_matrix(small)).write_h5ad(path)
    monkeypatch.setattr(_csc_on_disk, "_BLOCK", block)
    assert_bits(tokens_of(anndata.read_h5ad(path, backed="r").X, gene_ids, 7), expected)


@pytest.mark.parametrize("kind", ON_DISK)
def test_every_matrix_in_a_zarr(kind, dense_counts, gene_ids, expected, tmp_path, write_zarr):
    import zarr

    write_zarr(anndata.AnnData(as_stored(dense_counts, kind)), tmp_path / "x.zarr")
    stored = zarr.open(tmp_path / "x.zarr", mode="r")["X"]
    matrix = stored if kind == "dense" else anndata.io.sparse_dataset(stored)
    for n_rows in (7, 4096):
        assert_bits(tokens_of(matrix, gene_ids, n_rows), expected)


@pytest.mark.parametrize(
    "chunks", [(10, 900), (30, 100), (7, 450), (1, 900)], ids=["rows", "columns", "both", "single"]
)
@pytest.mark.parametrize("kind", ["dense", "csr_matrix", "csr_array", "csc_matrix"])
def test_dask(kind, chunks, dense_counts, gene_ids, expected):
    da = pytest.importorskip("dask.array")
    array = da.from_array(dense_counts, chunks=chunks)
    if kind != "dense":
        array = array.map_blocks(getattr(sparse, kind))
    for n_rows in (1, 7, 12, 4096):
        assert_bits(tokens_of(array, gene_ids, n_rows), expected)


def test_dask_computes_each_chunk_once(dense_counts):
    da = pytest.importorskip("dask.array")
    computed = []

    def count(block, block_info):
        computed.append(block_info[0]["chunk-location"])
        return block

    array = da.from_array(dense_counts, chunks=(4, 900)).map_blocks(
        count, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    for n_rows in (1, 3, 9, 100):
        computed.clear()
        rows = [chunk.rows for chunk in row_chunks(array, n_rows=n_rows)]
        np.testing.assert_array_equal(sparse.vstack(rows).toarray(), dense_counts)
        assert len(computed) == len(set(computed)) == 8


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.int16, st.tuples(st.integers(0, 9), st.integers(1, 6)), elements=st.integers(0, 3)
    ),
    st.integers(1, 11),
    st.sampled_from(["dense", "csr", "csc", "coo"]),
)
def test_chunks_put_together_are_the_matrix(dense, n_rows, kind):
    matrix = dense if kind == "dense" else getattr(sparse, f"{kind}_array")(dense)
    rows = [chunk.rows.toarray() for chunk in row_chunks(matrix, n_rows=n_rows)]
    np.testing.assert_array_equal(np.concatenate([dense[:0], *rows]), dense)


def test_wide_dense_matrices_come_in_fewer_rows(dense_counts, monkeypatch):
    monkeypatch.setattr(_row_chunks, "_DENSE_VALUES", 900 * 5)
    assert [chunk.rows.shape[0] for chunk in row_chunks(dense_counts, n_rows=30)] == [5] * 6


@pytest.mark.parametrize(
    ("matrix", "dtype"),
    [
        (np.array([["1", "2"]]), "<U1"),
        (np.array([[1, None]], dtype=object), "object"),
        (np.array([[1 + 2j]]), "complex128"),
        (np.array([["2024-01-01"]], dtype="M8[D]"), "datetime64"),
        (sparse.csr_array(np.array([[1 + 2j]])), "complex128"),
    ],
)
def test_values_that_are_not_numbers(matrix, dtype):
    with pytest.raises(NotCountsError, match=rf"values of type {dtype}.*must be numbers"):
        next(row_chunks(matrix, n_rows=1))


def test_at_least_one_row():
    with pytest.raises(ValueError, match=r"chunk_cells\) must be >= 1, got 0"):
        next(row_chunks(np.ones((2, 2)), n_rows=0))


# --- memory ---------------------------------------------------------------------------------------------------------

N_CELLS, N_COLUMNS, PER_CELL = 8000, 20_000, 100
MACHINERY = 1_000_000  # memory of anndata and h5py that does not depend on the size of the file, and a few arrays of length n_columns


@pytest.fixture(scope="module")
def wide():
    """CSR counts, (8000, 20000), 100 entries a row: 6.4 MB as it is, 640 MB if it were dense."""
    rng = np.random.default_rng(3)
    step = N_COLUMNS // PER_CELL
    indices = np.arange(PER_CELL) * step + rng.integers(0, step, (N_CELLS, PER_CELL))
    data = rng.integers(1, 9, N_CELLS * PER_CELL).astype(np.float32)
    indptr = np.arange(N_CELLS + 1, dtype=np.int32) * PER_CELL
    parts = data, indices.ravel().astype(np.int32), indptr
    return sparse.csr_matrix(parts, shape=(N_CELLS, N_COLUMNS))


def stored_bytes(matrix) -> int:
    return matrix.data.nbytes + matrix.indices.nbytes


def peak_bytes(matrix, n_rows, n_cells=N_CELLS) -> int:
    """Peak memory besides the matrix while iterating over its rows."""
    next(
        row_chunks(matrix, n_rows=n_rows)
    )  # modules are imported and functions compiled on first use
    tracemalloc.start()
    try:
        n = sum(chunk.rows.shape[0] for chunk in row_chunks(matrix, n_rows=n_rows))
        assert n == n_cells
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_memory_of_a_sparse_file_is_bounded_by_the_chunk(kind, wide, tmp_path, monkeypatch):
    monkeypatch.setattr(_csc_on_disk, "_BLOCK", 1 << 12)
    anndata.AnnData(wide.asformat(kind)).write_h5ad(tmp_path / "x.h5ad")
    matrix = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r").X
    assert peak_bytes(matrix, N_CELLS) > stored_bytes(wide), "the measure sees what is read"
    assert peak_bytes(matrix, 200) < stored_bytes(wide) / 8 + MACHINERY


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_memory_beside_a_sparse_matrix_is_bounded_by_the_chunk(kind, wide):
    matrix = wide.asformat(kind)
    assert peak_bytes(matrix, 200) < stored_bytes(wide) / 8 + (MACHINERY if kind == "csc" else 0)


def test_memory_of_a_dense_file_is_bounded_by_the_chunk(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("X", (400, N_COLUMNS), "f4", chunks=(10, N_COLUMNS))
        stored[::7, ::11] = 3
        whole = 400 * N_COLUMNS * 4
        assert peak_bytes(stored, 400, 400) > whole
        assert peak_bytes(stored, 10, 400) < whole / 8


def test_memory_of_a_dask_array_is_bounded_by_the_chunk(wide):
    da = pytest.importorskip("dask.array")
    import dask

    def block(start):
        rows = dask.delayed(wide.__getitem__)(slice(start, start + 200))
        return da.from_delayed(rows, (200, N_COLUMNS), "f4", meta=wide[:0])

    array = da.concatenate([block(start) for start in range(0, N_CELLS, 200)])
    with dask.config.set(scheduler="synchronous"):
        assert peak_bytes(array, N_CELLS) > stored_bytes(wide)
        assert peak_bytes(array, 200) < stored_bytes(wide) / 4
