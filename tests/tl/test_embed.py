"""tl.embed: fields written from every type of AnnData, warnings, and the state after errors."""

from __future__ import annotations

import importlib
import logging
import threading
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools._threads import prefetch
from sccello_tools.engine import encode
from sccello_tools.errors import (
    BackedDataError,
    BackendError,
    ConfigError,
    GeneMatchError,
    ModelNotFoundError,
    NotCountsError,
)
from sccello_tools.models.hub import is_available

KEY, N_TOKENS, TRUNCATED = "X_sccello", "sccello_n_tokens", "sccello_truncated"
EXACT = {"precision": "float32", "device": "cpu"}


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def assert_untouched(adata: anndata.AnnData, before: anndata.AnnData) -> None:
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    np.testing.assert_array_equal(dense(adata.X), dense(before.X))
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        one, other = getattr(adata, slot), getattr(before, slot)
        assert list(one) == list(other)
        for key in other:
            np.testing.assert_array_equal(dense(one[key]), dense(other[key]))
    assert dict(adata.uns) == dict(before.uns)


def same(one, other) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return models.load(tiny_model_folder, device="cpu")


@pytest.fixture(scope="module")
def expected(model, dense_counts, gene_ids) -> np.ndarray:
    """The embedding by its parts: tokenize, then encode."""
    plain = anndata.AnnData(sparse.csr_matrix(dense_counts), var=pd.DataFrame(index=gene_ids))
    tokens = sccello.pp.tokenize(plain, max_length=256)
    return encode(model.network, tokens, precision="float32")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(sccello.settings, "progress", False)


def test_writes_its_slots_and_names_them_in_one_line(adata, model, expected, caplog):
    before = adata.copy()
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        assert sccello.tl.embed(adata, model=model, **EXACT) is None
    slots = (".obsm['X_sccello']", ".uns['X_sccello']", ".obs['sccello_n_tokens']", ".obs['sccello_truncated']")  # fmt: skip
    assert sum(all(slot in message for slot in slots) for message in caplog.messages) == 1
    assert adata.obsm[KEY].shape == (30, 16)
    assert adata.obsm[KEY].dtype == np.float32
    same(adata.obsm[KEY], expected)
    assert np.isfinite(expected).all()

    n_genes = (dense(before.X) > 0).sum(axis=1)
    assert adata.obs[N_TOKENS].dtype == np.int32
    assert adata.obs[N_TOKENS].tolist() == np.minimum(n_genes + 1, 256).tolist()
    assert adata.obs[TRUNCATED].dtype == bool
    assert adata.obs[TRUNCATED].tolist() == (n_genes + 1 > 256).tolist()
    assert adata.obs[TRUNCATED].nunique() == 2
    assert adata.uns[KEY] == {
        "model": "tiny",
        "weights_sha256": model.sha256,
        "representation": "cls",
        "max_length": 256,
        "precision": "float32",
        "layer": "X",
        "genes_sha256": adata.uns[KEY]["genes_sha256"],
        "ontology_release": "",
        "sccello_tools_version": sccello.__version__,
    }

    del adata.obsm[KEY], adata.uns[KEY], adata.obs[N_TOKENS], adata.obs[TRUNCATED]
    assert_untouched(adata, before)


def test_the_precision_that_was_computed_in_is_noted(adata, model, monkeypatch):
    monkeypatch.setattr("sccello_tools.engine._has_bfloat16", lambda device: True)
    sccello.tl.embed(adata, model=model)
    assert adata.uns[KEY]["precision"] == "bfloat16"


def test_survives_h5ad_and_zarr_and_a_subset_of_rows(adata, model, tmp_path, write_zarr):
    sccello.tl.embed(adata, model=model, **EXACT)
    adata.write_h5ad(tmp_path / "x.h5ad")
    write_zarr(adata, tmp_path / "x.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata and zarr, of each other's versions
        from_zarr = anndata.read_zarr(tmp_path / "x.zarr")
    for read in (anndata.read_h5ad(tmp_path / "x.h5ad"), from_zarr):
        np.testing.assert_array_equal(read.obsm[KEY], adata.obsm[KEY])
        assert read.obsm[KEY].dtype == np.float32
        assert {k: type(v)(read.uns[KEY][k]) for k, v in adata.uns[KEY].items()} == adata.uns[KEY]
        assert read.obs[N_TOKENS].dtype == np.int32
        assert read.obs[TRUNCATED].dtype == bool
    part = adata[[7, 3]].copy()
    np.testing.assert_array_equal(part.obsm[KEY], adata.obsm[KEY][[7, 3]])
    assert part.uns[KEY]["model"] == "tiny"


def test_copy(adata, model, expected):
    before = adata.copy()
    changed = sccello.tl.embed(adata, model=model, copy=True, **EXACT)
    assert_untouched(adata, before)
    same(changed.obsm[KEY], expected)
    assert changed.obs.columns.tolist() == ["donor", N_TOKENS, TRUNCATED]


def test_key_added_keeps_two_embeddings_apart(adata, model, expected):
    sccello.tl.embed(adata, model=model, **EXACT)
    sccello.tl.embed(adata, model=model, key_added="cell", representation="cell", **EXACT)
    same(adata.obsm[KEY], expected)
    np.testing.assert_allclose(np.linalg.norm(adata.obsm["cell"], axis=1), 1, atol=1e-5)
    assert adata.uns["cell"]["representation"] == "cell"
    assert adata.uns[KEY]["representation"] == "cls"


def test_layer_and_gene_ids_and_raw_is_not_read(adata, model, expected):
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata.copy()
    adata.X = adata.X.log1p()
    adata.var["ensembl"] = [f"{gene}.7" for gene in adata.var_names]
    adata.var_names = [f"row{i}" for i in range(adata.n_vars)]
    sccello.tl.embed(adata, model=model, layer="counts", gene_ids="ensembl", **EXACT)
    same(adata.obsm[KEY], expected)
    assert adata.uns[KEY]["layer"] == "counts"
    with pytest.raises(NotCountsError, match="layer='counts'"):
        sccello.tl.embed(adata, model=model, gene_ids="ensembl")


def test_max_length(adata, model):
    sccello.tl.embed(adata, model=model, max_length=20, **EXACT)
    assert adata.obs[N_TOKENS].max() == 20
    assert adata.obs[TRUNCATED].all()
    assert adata.uns[KEY]["max_length"] == 20
    tokens = sccello.pp.tokenize(adata, max_length=20)
    same(adata.obsm[KEY], encode(model.network, tokens, precision="float32"))
    with pytest.raises(ValueError, match=r"max_length must be <= 256.*'tiny'; got 257"):
        sccello.tl.embed(adata, model=model, max_length=257)


@pytest.mark.parametrize("convert", [str, lambda folder: folder])
def test_model_by_folder(adata, tiny_model_folder, expected, convert):
    sccello.tl.embed(adata, model=convert(tiny_model_folder), **EXACT)
    same(adata.obsm[KEY], expected)


def test_the_bundled_model():
    entry = models.registry.read_manifest()["sccello-small"]
    if not is_available(entry):
        pytest.skip("sccello-small is not trained yet: its weights are not in the package")
    adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    sccello.tl.embed(adata, device="cpu")
    assert np.isfinite(adata.obsm[KEY]).all()
    assert adata.obsm[KEY].shape == (40, models.load(device="cpu").config.hidden_size)
    assert adata.uns[KEY]["model"] == "sccello-small"


@pytest.mark.parametrize(
    "convert", [np.asarray, sparse.csr_array, sparse.csc_matrix, lambda x: x.astype(np.int64)]
)
def test_whatever_the_matrix(dense_counts, gene_ids, model, expected, convert, monkeypatch):
    monkeypatch.setattr(sccello.settings, "chunk_cells", 8)
    adata = anndata.AnnData(convert(dense_counts), var=pd.DataFrame(index=gene_ids))
    sccello.tl.embed(adata, model=model, **EXACT)
    same(adata.obsm[KEY], expected)


def test_dask(dense_counts, gene_ids, model, expected, monkeypatch):
    da = pytest.importorskip("dask.array")
    monkeypatch.setattr(sccello.settings, "chunk_cells", 8)
    matrix = da.from_array(dense_counts, chunks=(7, 900)).map_blocks(sparse.csr_matrix)
    adata = anndata.AnnData(matrix, var=pd.DataFrame(index=gene_ids))
    sccello.tl.embed(adata, model=model, **EXACT)
    same(adata.obsm[KEY], expected)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_backed(adata, model, expected, tmp_path, monkeypatch, form):
    monkeypatch.setattr(sccello.settings, "chunk_cells", 8)
    if form != "csr":
        adata.X = adata.X.toarray() if form == "dense" else adata.X.tocsc()
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r+")
    sccello.tl.embed(backed, model=model, **EXACT)
    same(backed.obsm[KEY], expected)
    assert backed.isbacked
    backed.write()
    backed.file.close()
    read = anndata.read_h5ad(tmp_path / "x.h5ad")
    same(read.obsm[KEY], expected)
    assert read.uns[KEY]["model"] == "tiny"
    np.testing.assert_array_equal(dense(read.X), dense(adata.X))


def test_what_a_backed_anndata_cannot_do_is_said_before_the_work(
    adata, model, tmp_path, monkeypatch
):
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    monkeypatch.setattr(model.network, "encode", None)
    with pytest.raises(BackedDataError, match="copy=True would read all of it into memory"):
        sccello.tl.embed(backed, model=model, copy=True)
    with pytest.raises(BackedDataError, match="a view of it cannot be written to"):
        sccello.tl.embed(backed[:3], model=model)
    backed.file.close()


def test_view(adata, model, expected):
    before = adata.copy()
    view = adata[[5, 1, 8]]
    sccello.tl.embed(view, model=model, **EXACT)  # warnings are errors: none is to come
    same(view.obsm[KEY], expected[[5, 1, 8]])
    assert not view.is_view
    assert_untouched(adata, before)

    view = adata[4:6]
    copied = sccello.tl.embed(view, model=model, copy=True, **EXACT)
    same(copied.obsm[KEY], expected[4:6])
    assert view.is_view


@pytest.mark.parametrize("seed", range(2))
def test_order_of_cells_and_genes_and_chunks(adata, model, expected, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    cells, genes = rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)
    shuffled = adata[cells, genes].copy()
    monkeypatch.setattr(sccello.settings, "chunk_cells", 4 + seed)
    sccello.tl.embed(shuffled, model=model, batch_tokens=700, **EXACT)
    same(shuffled.obsm[KEY], expected[cells])


@pytest.fixture
def two_empty(adata):
    x = adata.X.tolil()
    x[[2, 11]] = 0
    adata.X = x.tocsr()
    return adata


def test_cells_without_genes_are_nan_and_counted_in_one_warning(
    two_empty, model, expected, monkeypatch
):
    monkeypatch.setattr(sccello.settings, "chunk_cells", 4)
    with pytest.warns(UserWarning, match="2 of 30 cells have no counts") as caught:
        sccello.tl.embed(two_empty, model=model, **EXACT)
    # the warning points to the user's line, not into a thread
    assert [(w.filename, w.category) for w in caught] == [(__file__, UserWarning)]
    assert np.isnan(two_empty.obsm[KEY][[2, 11]]).all()
    others = np.setdiff1d(np.arange(30), [2, 11])
    same(two_empty.obsm[KEY][others], expected[others])
    assert two_empty.obs[N_TOKENS].to_numpy()[[2, 11]].tolist() == [0, 0]
    assert not two_empty.obs[TRUNCATED].to_numpy()[[2, 11]].any()


def test_no_cells(adata, model):
    empty = adata[:0].copy()
    sccello.tl.embed(empty, model=model)
    assert empty.obsm[KEY].shape == (0, 16)


def negative(adata):
    adata.X = -adata.X


def log_values_in_a_late_chunk(adata):
    x = adata.X.tolil()
    x[29] = x[29].toarray() * 0.5 + 0.25
    adata.X = x.tocsr()


def foreign_genes(adata):
    adata.var_names = [str(i) for i in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("spoil", "options", "error", "says"),
    [
        (negative, {}, NotCountsError, "adata.X does not hold raw counts"),
        (log_values_in_a_late_chunk, {}, NotCountsError, "adata.X does not hold raw counts"),
        (foreign_genes, {}, GeneMatchError, "0 of 900 genes match"),
        (None, {"layer": "spliced"}, NotCountsError, "adata has no layer 'spliced'"),
        (None, {"gene_ids": "ensembl"}, GeneMatchError, "adata.var has no column 'ensembl'"),
        (None, {"precision": "float16"}, BackendError, "precision must be.*'float16'"),
        (None, {"attention": "fast"}, BackendError, "attention backend 'fast'"),
        (None, {"representation": "gene"}, ConfigError, "representation is 'gene'"),
        (None, {"batch_tokens": 0}, ValueError, "batch_tokens.*got 0"),
        (None, {"max_length": 1}, ValueError, "max_length.*got 1"),
        (None, {"counts": "maybe"}, ValueError, "got 'maybe'"),
        (None, {"device": "cuda:77"}, BackendError, "device='cuda:77'.*model 'tiny'"),
    ],
)
def test_errors_leave_adata_as_it_was_and_no_thread_behind(
    adata, model, monkeypatch, spoil, options, error, says
):
    monkeypatch.setattr(sccello.settings, "chunk_cells", 4)
    if spoil:
        spoil(adata)
    before = adata.copy()
    with pytest.raises(error, match=says):
        sccello.tl.embed(adata, model=model, **options)
    assert_untouched(adata, before)
    assert not [t for t in threading.enumerate() if t.name.startswith("sccello-tokenize")]


def test_unknown_model_and_device(adata, tiny_model_folder):
    before = adata.copy()
    with pytest.raises(ModelNotFoundError, match=r"'sccello-smal'.*Did you mean 'sccello-small'"):
        sccello.tl.embed(adata, model="sccello-smal")
    with pytest.raises(BackendError, match="Device 'tpu9' is not available"):
        sccello.tl.embed(adata, model=tiny_model_folder, device="tpu9")
    assert_untouched(adata, before)


def test_an_error_of_the_network_ends_the_thread(adata, model, monkeypatch):
    monkeypatch.setattr(sccello.settings, "chunk_cells", 4)

    def fail(*args, **kwargs):
        msg = "broken"
        raise RuntimeError(msg)

    monkeypatch.setattr(model.network, "encode", fail)
    before = adata.copy()
    with pytest.raises(RuntimeError, match="broken") as caught:
        sccello.tl.embed(adata, model=model)
    # even while the traceback, which holds every frame, is alive
    assert caught.tb is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("sccello-tokenize")]
    assert_untouched(adata, before)


def test_items_are_prepared_one_ahead_and_in_order():
    made: list[int] = []
    closed = []

    def source():
        try:
            for i in range(10):
                made.append(i)
                yield i + 1
        finally:
            closed.append(True)

    assert list(prefetch(source())) == list(range(1, 11))
    made.clear()
    closed.clear()
    ahead = prefetch(source())
    assert [next(ahead), next(ahead)] == [1, 2]
    ahead.close()
    assert closed == [True]
    assert made in ([0, 1], [0, 1, 2])  # never more than one ahead


def test_the_progress_bar_gets_every_cell(adata, model, monkeypatch):
    embed_module = importlib.import_module("sccello_tools.tl._embed")
    seen = {}

    class Bar:
        def __init__(self, description, total):
            seen.update(description=description, total=total, done=0)

        def __enter__(self):
            return lambda n: seen.update(done=seen["done"] + n)

        def __exit__(self, *error):
            return False

    monkeypatch.setattr(embed_module, "progress_bar", Bar)
    monkeypatch.setattr(sccello.settings, "chunk_cells", 8)
    sccello.tl.embed(adata, model=model)
    assert seen == {"description": "embedding cells", "total": 30, "done": 30}
