"""Every way to an embedding gives a cell the same vector: to the last bit in float32, within 2 % of its length in bfloat16."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models

KEY = "X_sccello"
EXACT = {"precision": "float32", "max_length": 128}


@pytest.fixture(scope="module")
def model():
    """The bundled model, in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield models.load("sccello-small", device="cpu")
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    """Real cells of very different length."""
    adata = sccello.datasets.pancreas_tritschler()[:20].copy()
    counts = sparse.csr_matrix(adata.X).toarray().astype(np.float32)
    for i in range(8):
        counts[i, (i + 1) * 900 :] = 0
    return anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=adata.var_names))


@pytest.fixture(scope="module")
def expected(model, cells) -> np.ndarray:
    adata = cells.copy()
    sccello.tl.embed(adata, model=model, **EXACT)
    return adata.obsm[KEY]


def embedded(adata: anndata.AnnData, model, **options) -> np.ndarray:
    sccello.tl.embed(adata, model=model, **{**EXACT, **options})
    return np.asarray(adata.obsm[KEY])


def converted(cells: anndata.AnnData, x) -> anndata.AnnData:
    return anndata.AnnData(x, obs=cells.obs.copy(), var=cells.var.copy())


WAYS = {
    "batches of one cell": lambda c, m: embedded(c.copy(), m, batch_tokens=1),
    "small batches": lambda c, m: embedded(c.copy(), m, batch_tokens=700),
    "large batches": lambda c, m: embedded(c.copy(), m, batch_tokens=100_000),
    "dense": lambda c, m: embedded(converted(c, c.X.toarray()), m),
    "Fortran": lambda c, m: embedded(converted(c, np.asfortranarray(c.X.toarray())), m),
    "CSC": lambda c, m: embedded(converted(c, sparse.csc_matrix(c.X)), m),
    "integers": lambda c, m: embedded(converted(c, c.X.astype(np.int64)), m),
    "double": lambda c, m: embedded(converted(c, c.X.astype(np.float64)), m),
    "half": lambda c, m: embedded(converted(c, np.minimum(c.X.toarray(), 2048).astype(np.float16)), m),
    "layer": lambda c, m: embedded(_in_layer(c), m, layer="counts"),
    "view": lambda c, m: embedded(c[:], m),
    "loaded by name": lambda c, m: embedded(c.copy(), "sccello-small", device="cpu"),
}  # fmt: skip


def _in_layer(cells: anndata.AnnData) -> anndata.AnnData:
    adata = cells.copy()
    adata.layers["counts"], adata.X = adata.X, None
    return adata


@pytest.mark.parametrize("way", [way for way in WAYS if way != "half"])
def test_bits_do_not_depend_on_the_way(cells, model, expected, way):
    np.testing.assert_array_equal(WAYS[way](cells, model), expected)


@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_bits_do_not_depend_on_the_chunk(cells, model, expected, chunk, monkeypatch):
    monkeypatch.setattr(sccello.settings, "chunk_cells", chunk)
    np.testing.assert_array_equal(embedded(cells.copy(), model), expected)


@pytest.mark.parametrize("seed", range(2))
def test_bits_do_not_depend_on_the_order_of_cells_and_genes(cells, model, expected, seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    found = embedded(cells[rows][:, columns].copy(), model)
    np.testing.assert_array_equal(found, expected[rows])


def test_bits_do_not_depend_on_the_company(cells, model, expected):
    for rows in ([3], [0, 19], list(range(7))):
        np.testing.assert_array_equal(embedded(cells[rows].copy(), model), expected[rows])


@pytest.mark.parametrize("block", [1, 7])
def test_bits_do_not_depend_on_files_and_blocks(cells, model, expected, tmp_path, block):
    pytest.importorskip("zarr")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    found = sccello.embed_files(
        tmp_path / "cells.h5ad", tmp_path / "out", cells_per_block=block, device="cpu", **EXACT
    )
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_counts_that_another_number_format_rounds_are_other_counts(cells, model, expected):
    """Half precision holds whole numbers up to 2,048: what fits is the same."""
    assert cells.X.max() > 2048
    small = np.asarray((cells.X > 2048).sum(axis=1)).ravel() == 0
    found = WAYS["half"](cells, model)
    np.testing.assert_array_equal(found[small], expected[small])


def test_bfloat16_is_within_two_percent(cells, model, expected):
    found = embedded(cells.copy(), model, precision="bfloat16")
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < away.max() < 0.02
