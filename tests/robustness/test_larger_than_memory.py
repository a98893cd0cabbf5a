"""AnnData with the matrix on disk: how much of it is read, and that results are those in memory."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools.errors import ArgumentError, GroupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 8
FORMS = ["csr", "csc", "dense"]
KEY = "X_sccello"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(sccello.settings, "progress", False)
    monkeypatch.setattr(sccello.settings, "chunk_cells", CHUNK)


@pytest.fixture(scope="module")
def pancreas() -> anndata.AnnData:
    adata = sccello.datasets.pancreas_tritschler()[:64].copy()
    adata.obs["donor"] = pd.Categorical(["a", "b"] * 32)
    return adata


@pytest.fixture(scope="module")
def annotated(pancreas) -> anndata.AnnData:
    """Results for an AnnData in memory, float32."""
    adata = pancreas.copy()
    model = models.load("sccello-small", device="cpu")
    sccello.tl.embed(adata, model=model, precision="float32")
    sccello.tl.annotate_novel(adata, groupby="donor", return_scores=True)
    return adata


class Guard:
    """Counts the values read of a matrix on disk, and fails on reading many at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.read = 0

    def take(self, values: np.ndarray, name: str) -> None:
        if "/X" in name or name.startswith("X"):
            assert values.size <= self.limit, f"{values.size} values of {name} at once"
            self.read += values.size


@pytest.fixture
def guard(pancreas, monkeypatch) -> Iterator[Guard]:
    """Fail if more than three chunks of rows are read at once; pointers and rows of one chunk are below that."""
    zarr = pytest.importorskip("zarr")
    found = Guard(3 * CHUNK * pancreas.n_vars)
    for kind, name in ((h5py.Dataset, "name"), (zarr.Array, "path")):
        original = kind.__getitem__

        def counted(self, key, *rest, original=original, name=name):
            values = original(self, key, *rest)
            found.take(np.asarray(values), str(getattr(self, name)))
            return values

        monkeypatch.setattr(kind, "__getitem__", counted)

    def refused(self, *args, **kwargs):
        pytest.fail("the whole AnnData was read into memory")

    monkeypatch.setattr(anndata.AnnData, "to_memory", refused)
    return found


def on_disk(adata: anndata.AnnData, form: str, path: Path) -> Path:
    adata = adata.copy()
    if form != "csr":
        adata.X = adata.X.toarray() if form == "dense" else sparse.csc_matrix(adata.X)
    if path.suffix == ".zarr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata and zarr, of each other's versions
            adata.write_zarr(path, chunks=(CHUNK, adata.n_vars) if form == "dense" else None)
    else:
        adata.write_h5ad(path)
    return path


def read(path: Path, how: str) -> anndata.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "backed":
            return anndata.read_h5ad(path, backed="r")
        pytest.importorskip("dask")
        pytest.importorskip("xarray")
        from anndata.experimental import read_lazy

        return read_lazy(path)


def assert_alike(found: anndata.AnnData, expected: anndata.AnnData) -> None:
    np.testing.assert_allclose(np.asarray(found.obsm[KEY]), expected.obsm[KEY], rtol=0, atol=1e-5)
    for key in ("sccello_cell_type", "sccello_cell_type_status", "sccello_cell_type_cluster"):
        given = found.obs[key]
        assert list(np.asarray(given, dtype=str)) == expected.obs[key].astype(str).tolist()
    np.testing.assert_allclose(
        np.asarray(found.obs["sccello_cell_type_confidence"]),
        expected.obs["sccello_cell_type_confidence"],
        rtol=0,
        atol=1e-4,
    )


WAYS = [("h5ad", "backed"), ("h5ad", "lazy"), ("zarr", "lazy")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("ending", "how"), WAYS)
def test_embed_and_annotate_read_a_few_rows_at_a_time(
    pancreas, annotated, tmp_path, form, ending, how, guard
):
    adata = read(on_disk(pancreas, form, tmp_path / f"cells.{ending}"), how)
    guard.read = 0
    model = models.load("sccello-small", device="cpu")
    sccello.tl.embed(adata, model=model, precision="float32")
    # each value once; of a CSC file also row indices twice; pointers of rows and columns
    size = pancreas.X.nnz if form != "dense" else pancreas.n_obs * pancreas.n_vars
    # a lazy array of anndata reads its pointers once per chunk, and CSC has one per gene
    bounds = 12 * (pancreas.n_obs + pancreas.n_vars)
    assert size <= guard.read <= 3 * size + bounds
    before = guard.read
    sccello.tl.annotate_novel(adata, model=model, groupby="donor", return_scores=True)
    # the embedding is reused; marker evidence reads the counts once more, and a sample that shows that they are counts
    assert size <= guard.read - before <= before + size + bounds
    assert_alike(adata, annotated)


@pytest.mark.parametrize(("ending", "how"), WAYS)
def test_annotate_alone_embeds_from_disk(
    pancreas, annotated, tmp_path, ending, how, guard, monkeypatch
):
    # compare in float32 on machines with bfloat16 units, too
    monkeypatch.setattr("sccello_tools.engine._has_bfloat16", lambda device: False)
    adata = read(on_disk(pancreas, "csr", tmp_path / f"cells.{ending}"), how)
    sccello.tl.annotate_novel(adata, groupby="donor", device="cpu", return_scores=True)
    assert_alike(adata, annotated)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_corpus_is_built_a_few_rows_at_a_time(pancreas, tmp_path, form, ending, guard):
    path = on_disk(pancreas, form, tmp_path / f"cells.{ending}")
    corpus = sccello.pp.build_corpus(path, tmp_path / "corpus", cells_per_shard=2 * CHUNK)
    assert len(corpus) == pancreas.n_obs
    assert guard.read >= pancreas.X.nnz


def test_the_guard_sees_whole_reads(pancreas, tmp_path, guard):
    adata = read(on_disk(pancreas, "dense", tmp_path / "cells.h5ad"), "backed")
    with pytest.raises(AssertionError, match="at once"):
        adata.X[:]
    with pytest.raises(pytest.fail.Exception, match="read into memory"):
        adata.to_memory()


@pytest.mark.parametrize("what", ["groups", "cell types"])
def test_columns_of_a_lazy_anndata_are_read_as_others(pancreas, tmp_path, what):
    adata = read(on_disk(pancreas, "csr", tmp_path / "cells.h5ad"), "lazy")
    if what == "groups":
        with pytest.raises(GroupError, match="no column 'donors'"):
            sccello.tl.annotate_novel(adata, groupby="donors")
    else:
        memory = pancreas.copy()
        sccello.pp.map_cell_types(memory, "cell_type")
        sccello.pp.map_cell_types(adata, "cell_type")
        key = "sccello_mapped_cell_type_ontology_term_id"
        assert list(np.asarray(adata.obs[key], dtype=str)) == memory.obs[key].tolist()


def test_a_corpus_is_not_built_from_what_is_open(pancreas, tmp_path):
    with pytest.raises(ArgumentError, match=r"paths, got AnnData.*write_h5ad"):
        sccello.pp.build_corpus(pancreas, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
