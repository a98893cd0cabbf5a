"""Damaged sparse matrices raise SparseStructureError before compiled code reads them."""

from __future__ import annotations

import warnings

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.errors import SparseStructureError
from sccello_tools.tokens import (
    check_indices,
    check_sparse_structure,
    looks_like_counts,
    row_chunks,
)

N_ROWS, N_COLUMNS = 12, 900


def pointers(change):
    def damage(arrays):
        arrays["indptr"] = change(arrays["indptr"])

    return damage


def indices(change):
    def damage(arrays):
        arrays["indices"] = change(arrays["indices"])

    return damage


def with_value(array, at, value):
    array = array.copy()
    array[at] = value
    return array


def overflowed(indptr, offset):
    """What a 32-bit writer keeps of larger pointers."""
    wide = indptr.astype(np.int64)
    wide[3:] += offset
    return wide.astype(np.int32)


POINTERS = {
    "overflow": (pointers(lambda p: overflowed(p, 2**31)), "32-bit overflow"),
    "wrapped": (pointers(lambda p: overflowed(p, 2**32 - 7)), "pointers"),
    "decrease": (pointers(lambda p: with_value(p, 4, p[2])), "decrease at"),
    "too few": (pointers(lambda p: p[:-1]), "pointers"),
    "too many": (pointers(lambda p: np.append(p, p[-1])), "pointers"),
    "end early": (pointers(lambda p: with_value(p, -1, p[-1] - 1)), "end at"),
    "end late": (pointers(lambda p: with_value(p, -1, p[-1] + 100)), "end at"),
    "start late": (pointers(lambda p: with_value(p, 0, 2)), "not 0"),
    "fractions": (pointers(lambda p: p.astype(np.float64)), "not integers"),
}  # fmt: skip
INDICES = {
    "1-based": (indices(lambda i: i + 1), "1-based"),
    "beyond": (indices(lambda i: with_value(i, -1, 2_000_000)), "2,000,000"),
    "just beyond": (indices(lambda i: with_value(i, 7, max(N_ROWS, N_COLUMNS))), "between 0 and"),
    "negative": (indices(lambda i: with_value(i, 7, -1)), "from -1"),
    "lowest": (indices(lambda i: with_value(i, 7, np.iinfo(i.dtype).min)), "between 0 and"),
}
DAMAGES = POINTERS | INDICES


def arrays_of(matrix) -> dict[str, np.ndarray]:
    return {name: getattr(matrix, name).copy() for name in ("data", "indices", "indptr")}


@pytest.fixture(scope="module")
def counts(dense_counts):
    counts = dense_counts[:N_ROWS].copy()
    counts[0, [0, -1]] = counts[[0, -1], 0] = 1  # the lowest and highest indices occur
    counts[-1, -1] = 1
    return counts


def damaged_in_memory(counts, kind, damage):
    """A SciPy matrix, whose constructor would refuse some of the damages."""
    matrix = getattr(sparse, kind)(counts)
    arrays = arrays_of(matrix)
    damage(arrays)
    for name, array in arrays.items():
        setattr(matrix, name, array)
    return matrix


def damaged_file(counts, gene_ids, kind, damage, path):
    adata = anndata.AnnData(getattr(sparse, kind)(counts))
    adata.var_names = gene_ids
    adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        group = file["X"]
        arrays = {name: group[name][:] for name in ("data", "indices", "indptr")}
        damage(arrays)
        for name, array in arrays.items():
            del group[name]
            group[name] = array
    return path


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix"])
@pytest.mark.parametrize("name", DAMAGES)
def test_in_memory(counts, kind, name):
    damage, says = DAMAGES[name]
    matrix = damaged_in_memory(counts, kind, damage)
    for n_rows in (5, 100):
        with pytest.raises(SparseStructureError, match=says):
            list(row_chunks(matrix, n_rows=n_rows))


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix"])
@pytest.mark.parametrize("name", DAMAGES)
def test_backed(counts, gene_ids, kind, name, tmp_path):
    damage, says = DAMAGES[name]
    path = damaged_file(counts, gene_ids, kind, damage, tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(path, backed="r")
    for n_rows in (5, 100):
        with pytest.raises(SparseStructureError, match=says):
            list(row_chunks(backed.X, n_rows=n_rows))
    with pytest.raises(SparseStructureError, match="damaged"):
        sccello.pp.tokenize(backed)
    assert "sccello_n_tokens" not in backed.obs
    backed.file.close()


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix"])
@pytest.mark.parametrize("name", ["overflow", "beyond", "negative"])
def test_zarr(counts, kind, name, tmp_path, write_zarr):
    import zarr

    write_zarr(anndata.AnnData(getattr(sparse, kind)(counts)), tmp_path / "x.zarr")
    group = zarr.open(tmp_path / "x.zarr", mode="r+")["X"]
    arrays = {part: group[part][:] for part in ("data", "indices", "indptr")}
    DAMAGES[name][0](arrays)
    for part in ("indices", "indptr"):
        group[part][:] = arrays[part]
    with pytest.raises(SparseStructureError, match="damaged"):
        list(row_chunks(anndata.io.sparse_dataset(group), n_rows=5))


@pytest.mark.parametrize("name", ["overflow", "decrease", "beyond", "negative"])
def test_functions_of_an_anndata(counts, gene_ids, name):
    adata = anndata.AnnData(sparse.csr_matrix(counts))
    adata.var_names = gene_ids
    adata.X = damaged_in_memory(counts, "csr_matrix", DAMAGES[name][0])
    for call in (sccello.pp.tokenize, sccello.tl.embed):
        with pytest.raises(SparseStructureError, match="damaged"):
            call(adata)
    assert adata.obs.columns.empty
    assert not adata.obsm


@pytest.mark.parametrize("name", ["decrease", "beyond"])
def test_a_view_of_a_damaged_matrix(counts, gene_ids, name):
    adata = anndata.AnnData(sparse.csr_matrix(counts))
    adata.var_names = gene_ids
    adata.X = damaged_in_memory(counts, "csr_matrix", DAMAGES[name][0])
    with pytest.raises(SparseStructureError, match="damaged"):
        sccello.pp.tokenize(adata[:3])


@pytest.mark.parametrize("change", [{"row": N_ROWS}, {"col": -2}])
def test_coordinates(counts, change):
    matrix = sparse.coo_matrix(counts)
    for name, value in change.items():
        setattr(matrix, name, with_value(getattr(matrix, name), 3, value))
    with pytest.raises(SparseStructureError, match="between 0 and"):
        list(row_chunks(matrix, n_rows=5))


def test_values_and_indices_of_unequal_number(counts):
    matrix = sparse.csr_matrix(counts)
    matrix.data = matrix.data[:-2]
    with pytest.raises(SparseStructureError, match="values but"):
        check_sparse_structure(matrix)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64, ">i4"])
def test_indices_of_any_type(dtype):
    check_indices(np.array([0, 4, 2], dtype=dtype), 5)
    check_indices(np.array([], dtype=dtype), 0)
    with pytest.raises(SparseStructureError, match="range from 0 to 4, but with 4 columns"):
        check_indices(np.array([0, 4, 2], dtype=dtype), 4)
    if np.dtype(dtype).kind == "i":
        with pytest.raises(SparseStructureError, match="from -9"):
            check_indices(np.array([0, -9], dtype=dtype), 4)


def test_undamaged_matrices_pass(counts):
    for kind in ("csr_matrix", "csc_array", "coo_matrix", "lil_array", "bsr_array"):
        matrix = getattr(sparse, kind)(counts)
        check_sparse_structure(matrix)
        rows = [chunk.rows.toarray() for chunk in row_chunks(matrix, n_rows=5)]
        np.testing.assert_array_equal(np.concatenate(rows), counts)
    check_sparse_structure(sparse.csr_matrix((0, 5)))
    check_sparse_structure(sparse.csr_matrix((5, 0)))
    check_sparse_structure(counts)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix"])
@pytest.mark.parametrize("name", ["overflow", "decrease", "beyond", "negative"])
def test_a_lazily_read_file(counts, gene_ids, kind, name, tmp_path):
    pytest.importorskip("xarray")
    from anndata.experimental import read_lazy

    path = damaged_file(counts, gene_ids, kind, DAMAGES[name][0], tmp_path / "x.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = read_lazy(path)
    with pytest.raises(SparseStructureError, match="damaged"):
        sccello.pp.tokenize(lazy)


def test_looks_like_counts_does_not_read_indices(counts):
    assert looks_like_counts(damaged_in_memory(counts, "csr_matrix", DAMAGES["beyond"][0]))
