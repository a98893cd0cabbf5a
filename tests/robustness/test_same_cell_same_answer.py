"""The embedding of a cell does not depend on how it is computed: within 1e-5 in float32, within 2 % of its length in bfloat16.

Tokens are identical. Bits depend on the CPU, its threads and the batches, so they are compared for the same batches only.
"""

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
    """The bundled model."""
    return models.load("sccello-small", device="cpu")


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    """Real cells with very different numbers of tokens."""
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


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


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
def test_matrix_types_batches_and_layers(cells, model, expected, way):
    same(WAYS[way](cells, model), expected)


def test_the_same_batches_give_the_same_bits(cells, model, expected):
    np.testing.assert_array_equal(embedded(cells.copy(), model), expected)


def test_threads(cells, model, expected):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        same(embedded(cells.copy(), model), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_chunks(cells, model, expected, chunk, monkeypatch):
    monkeypatch.setattr(sccello.settings, "chunk_cells", chunk)
    same(embedded(cells.copy(), model), expected)


@pytest.mark.parametrize("seed", range(2))
def test_order_of_cells_and_genes(cells, model, expected, seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    found = embedded(cells[rows][:, columns].copy(), model)
    same(found, expected[rows])


def test_subsets_of_cells(cells, model, expected):
    for rows in ([3], [0, 19], list(range(7))):
        same(embedded(cells[rows].copy(), model), expected[rows])


@pytest.mark.parametrize("block", [1, 7])
def test_files_and_blocks(cells, model, expected, tmp_path, block):
    pytest.importorskip("zarr")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    found = sccello.embed_files(
        tmp_path / "cells.h5ad", tmp_path / "out", cells_per_block=block, device="cpu", **EXACT
    )
    same(np.asarray(found), expected)


def test_counts_that_float16_represents(cells, model, expected):
    """float16 represents integers up to 2,048 exactly."""
    assert cells.X.max() > 2048
    small = np.asarray((cells.X > 2048).sum(axis=1)).ravel() == 0
    found = WAYS["half"](cells, model)
    same(found[small], expected[small])


PREDICTED = ("sccello_cell_type", "sccello_cell_type_status")


@pytest.mark.filterwarnings("ignore:2 of 20 cells have fewer than")  # genes were removed from them
def test_predictions_do_not_depend_on_batches_and_chunks(cells, model, monkeypatch):
    expected = cells.copy()
    sccello.tl.embed(expected, model=model, precision="float32")
    sccello.tl.annotate_novel(expected, model=model)
    monkeypatch.setattr(sccello.settings, "chunk_cells", 3)
    found = cells.copy()
    sccello.tl.embed(found, model=model, precision="float32", batch_tokens=700)
    sccello.tl.annotate_novel(found, model=model)
    for key in PREDICTED:
        assert found.obs[key].astype(str).tolist() == expected.obs[key].astype(str).tolist()
    np.testing.assert_allclose(
        found.obs["sccello_cell_type_confidence"],
        expected.obs["sccello_cell_type_confidence"],
        atol=1e-4,
    )


def test_bfloat16_is_within_two_percent(cells, model, expected):
    found = embedded(cells.copy(), model, precision="bfloat16")
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < away.max() < 0.02
