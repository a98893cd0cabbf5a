"""annotate_files: the columns of tl.annotate_novel, one Parquet file per input, and copies with obs filled in."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.errors import ArgumentError, FilesError, LabelError, NotCountsError, WeightsError
from sccello_tools.files import read_any

if TYPE_CHECKING:
    from pathlib import Path

    import anndata

EXACT = {"precision": "float32", "device": "cpu"}
TISSUE = "pancreas"  # annotate_files does not infer it


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    return sccello.datasets.pancreas_tritschler()[::12].copy()


@pytest.fixture
def paths(cells, tmp_path, write_zarr) -> list[Path]:
    cells.write_h5ad(tmp_path / "one.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_zarr(cells[:10].copy(), tmp_path / "two.zarr")
    return [tmp_path / "one.h5ad", tmp_path / "two.zarr"]


@pytest.fixture(scope="module")
def expected(cells) -> pd.DataFrame:
    return _annotated(cells)


@pytest.fixture(scope="module")
def expected_of_ten(cells) -> pd.DataFrame:
    """A file is a data set: novelty and the threshold of confidence depend on all of its cells."""
    return _annotated(cells[:10])


def _annotated(cells, tissue=TISSUE) -> pd.DataFrame:
    adata = cells.copy()
    sccello.tl.embed(adata, **EXACT)
    sccello.tl.annotate_novel(adata, tissue=tissue)
    return adata.obs.drop(columns=cells.obs.columns)


def annotate(paths, out, **options) -> sccello.files.AnnotatedFiles:
    return sccello.annotate_files(paths, out, **{"cells_per_block": 16, **EXACT, **options})


def alike(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Same columns and values, numbers within 1e-4."""
    assert set(expected.columns) <= set(found.columns)
    for name in expected:
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
        else:
            assert found[name].astype(str).tolist() == expected[name].astype(str).tolist(), name


def test_columns_are_those_of_annotate_novel(paths, expected, expected_of_ten, tmp_path):
    found = annotate(paths, tmp_path / "out", tissue=TISSUE)
    assert found.sources == ["one", "two"]
    alike(found.read("one"), expected)
    alike(found.read("two"), expected_of_ten)
    assert found.read("one").index.tolist() == expected.index.tolist()
    assert found.read("two", ["source_row"])["source_row"].tolist() == list(range(10))
    assert repr(found).startswith("AnnotatedFiles(59 cells of 2 files")
    assert not list((tmp_path / "out").glob("blocks/*")), "blocks are joined"
    with pytest.raises(ArgumentError, match="'three' is not one"):
        found.read("three")


@pytest.mark.xfail(
    strict=True, reason="defect: blocks are scored before the tissues of the file are known"
)
def test_tissues_are_inferred_as_by_annotate_novel(paths, cells, tmp_path):
    found = annotate(paths, tmp_path / "out")
    alike(found.read("one"), _annotated(cells, tissue=None))


def test_the_summary_counts_every_cell(paths, expected, tmp_path):
    summary = annotate(paths, tmp_path / "out", tissue=TISSUE).summary
    assert summary.groupby("source")["n_cells"].sum().to_dict() == {"one": 49, "two": 10}
    one = summary[summary["source"] == "one"]
    counts = expected["sccello_cell_type"].value_counts()
    for name, n in counts[counts > 0].items():
        assert one.loc[one["sccello_cell_type"] == name, "n_cells"].sum() == n
    mean = np.average(one["mean_confidence"], weights=one["n_cells"])
    assert mean == pytest.approx(expected["sccello_cell_type_confidence"].mean(), abs=1e-3)


@pytest.mark.parametrize("after", [0, 2, 4, 5])
def test_an_interrupted_call_is_resumed(paths, tmp_path, after, stop_after, monkeypatch):
    from sccello_tools.files import worker

    whole = annotate(paths, tmp_path / "whole")
    original = worker.write_rows
    stop_after(after)
    if after < 5:
        with pytest.raises(KeyboardInterrupt):
            annotate(paths, tmp_path / "out")
        with pytest.raises(FilesError):
            sccello.open_embedded(tmp_path / "out")
    else:  # 4 blocks and 1: all are written by workers; joining uses another writer
        annotate(paths, tmp_path / "out")
    monkeypatch.setattr(worker, "write_rows", original)
    resumed = annotate(paths, tmp_path / "out")
    for source in whole.sources:
        pd.testing.assert_frame_equal(resumed.read(source), whole.read(source))
    pd.testing.assert_frame_equal(resumed.summary, whole.summary)


def test_a_finished_call_and_a_lost_file(paths, tmp_path, written):
    out = tmp_path / "out"
    found = annotate(paths, out)
    assert written == [
        "00000-000000",
        "00000-000001",
        "00000-000002",
        "00000-000003",
        "00001-000000",
    ]
    annotate(paths, out)
    assert len(written) == 5
    found.path("two").unlink()
    annotate(paths, out)
    assert written[5:] == ["00001-000000"]


def test_results_are_written_back(paths, cells, expected, expected_of_ten, tmp_path):
    found = annotate(paths, tmp_path / "out", tissue=TISSUE, write_back=True)
    one, two = (tmp_path / "out" / "files" / name for name in ("one.h5ad", "two.zarr"))
    for path, n, table in ((one, 49, expected), (two, 10, expected_of_ten)):
        copy = read_any(path)
        alike(copy.obs, table)
        assert set(cells.obs.columns) <= set(copy.obs.columns)
        assert (cells.X[:n] != copy.X).nnz == 0
        assert (
            copy.uns["sccello_cell_type"]["weights_sha256"] == found.manifest.config.weights_sha256
        )
        copy.write_h5ad(tmp_path / "again.h5ad")
    before = one.stat().st_mtime_ns
    annotate(paths, tmp_path / "out", tissue=TISSUE, write_back=True)
    assert one.stat().st_mtime_ns == before
    with h5py.File(paths[0]) as original:
        assert "sccello_cell_type" not in original["obs"], "inputs are never written to"


def test_other_file_types_are_written_back_as_h5ad(cells, expected, tmp_path):
    from .test_read import write_10x_h5

    write_10x_h5(cells, tmp_path / "filtered.h5")
    annotate(tmp_path / "filtered.h5", tmp_path / "out", tissue=TISSUE, write_back=True)
    alike(read_any(tmp_path / "out" / "files" / "filtered.h5ad").obs, expected)


def test_a_name_with_a_slash(paths, tmp_path):
    found = annotate({"donor 1/a": paths[1]}, tmp_path / "out", write_back=True)
    assert len(found.read("donor 1/a")) == 10
    assert found.path("donor 1/a").parent == tmp_path / "out" / "cells"


def test_arguments_are_checked_before_anything_is_written(paths, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    unlabelled = shutil.copytree(tiny_model_folder, tmp_path / "unlabelled")
    (unlabelled / "labels.tsv").unlink()
    for error, options in (
        (LabelError, {"candidates": ["no such cell"]}),
        (ArgumentError, {"errors": "ignore"}),
        (ValueError, {"alpha": 1.5}),
        (WeightsError, {"model": unlabelled}),  # has neither calibration nor labels
        (NotCountsError, {"layer": "counts"}),
    ):
        with pytest.raises(error):
            annotate(paths, out, **options)
        assert not out.exists()


def test_candidates_and_other_arguments(paths, tmp_path):
    out = tmp_path / "out"
    found = annotate(paths[1], out, candidates="pancreatic endocrine cell")
    terms = set(found.read("two")["sccello_cell_type_ontology_term_id"])
    below = sccello.ontology.CellOntology.load().descendants("CL:0008024")
    assert terms <= set(below)
    assert json.loads((out / "manifest.json").read_text())["complete"]
    with pytest.raises(FilesError, match="parameters was"):
        annotate(paths[1], out)


def test_a_corpus_is_not_annotated(tmp_path, cells):
    cells.write_h5ad(tmp_path / "a.h5ad")
    sccello.pp.build_corpus(tmp_path / "a.h5ad", tmp_path / "corpus")
    with pytest.raises(ValueError, match="corpus of tokens, but counts are needed"):
        annotate(tmp_path / "corpus", tmp_path / "out")


def test_a_bad_file_is_reported(paths, tmp_path):
    (tmp_path / "bad.h5ad").write_text("no HDF5")
    with pytest.warns(UserWarning, match="1 files failed.*bad: .*not an HDF5 file"):
        found = annotate([tmp_path / "bad.h5ad", paths[1]], tmp_path / "out", errors="report")
    assert found.sources == ["two"]
    assert list(found.failures) == ["bad"]
    assert set(found.summary["source"]) == {"two"}
