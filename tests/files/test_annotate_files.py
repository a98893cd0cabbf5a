"""annotate_files: the columns of tl.annotate_novel, one Parquet file per input, and copies with obs filled in."""

from __future__ import annotations

import errno
import json
import shutil
import warnings
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.errors import (
    ArgumentError,
    FileFormatError,
    FilesError,
    LabelError,
    NotCountsError,
    WeightsError,
)
from sccello_tools.files import read_any

if TYPE_CHECKING:
    from pathlib import Path

    import anndata

EXACT = {"precision": "float32", "device": "cpu"}
TISSUE = "pancreas"  # files are read once if tissues are not inferred


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
    return _annotated_adata(cells, tissue).obs.drop(columns=cells.obs.columns)


def _annotated_adata(cells, tissue) -> anndata.AnnData:
    adata = cells.copy()
    sccello.tl.embed(adata, **EXACT)
    sccello.tl.annotate_novel(adata, tissue=tissue)
    return adata


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


@pytest.fixture
def two_tissues(cells, tmp_path) -> dict[str, anndata.AnnData]:
    """Cells of pancreas, by row, and of blood, by column, in files of the same names."""
    blood = sccello.datasets.pbmc3k_subsample()[::20].copy()
    found = {"pancreas": cells, "blood": blood}
    for name, adata in found.items():
        stored = adata.copy()
        if name == "blood":
            stored.X = sparse.csc_matrix(stored.X)
        stored.write_h5ad(tmp_path / f"{name}.h5ad")
    return found


@pytest.fixture
def sampled(monkeypatch) -> None:
    """Tissues are inferred from every third cell of the pancreas, across blocks, and every second one of the blood."""
    monkeypatch.setattr("sccello_tools.annotation.prepare._TISSUE_CELLS", 20)


@pytest.mark.usefixtures("sampled")
@pytest.mark.filterwarnings("ignore:.*variables repeat a gene")
def test_tissues_are_inferred_for_each_file_as_by_annotate_novel(two_tissues, tmp_path):
    paths = [tmp_path / f"{name}.h5ad" for name in two_tissues]
    found = annotate(paths, tmp_path / "out", write_back=True)
    for name, adata in two_tissues.items():
        assert 20 < adata.n_obs <= 60
        expected = _annotated_adata(adata, tissue=None)
        alike(found.read(name), expected.obs.drop(columns=adata.obs.columns))
        inferred = expected.uns["sccello_cell_type"]["inferred_tissues"]
        assert found.inferred_tissues[name] == pytest.approx(inferred, abs=1e-4)
        assert (max(inferred, key=inferred.get) == "pancreas") == (name == "pancreas")
        copy = read_any(tmp_path / "out" / "files" / f"{name}.h5ad")
        assert copy.uns["sccello_cell_type"]["inferred_tissues"] == found.inferred_tissues[name]


def test_tissues_that_are_passed_are_not_inferred(paths, tmp_path, written):
    found = annotate(paths[1], tmp_path / "out", tissue=TISSUE)
    assert found.inferred_tissues == {"two": {}}
    assert written == ["00000-000000"], "annotated when it was embedded"


def test_the_summary_counts_every_cell(paths, expected, tmp_path):
    summary = annotate(paths, tmp_path / "out", tissue=TISSUE).summary
    assert summary.groupby("source")["n_cells"].sum().to_dict() == {"one": 49, "two": 10}
    one = summary[summary["source"] == "one"]
    counts = expected["sccello_cell_type"].value_counts()
    for name, n in counts[counts > 0].items():
        assert one.loc[one["sccello_cell_type"] == name, "n_cells"].sum() == n
    mean = np.average(one["mean_confidence"], weights=one["n_cells"])
    assert mean == pytest.approx(expected["sccello_cell_type_confidence"].mean(), abs=1e-3)


@pytest.mark.parametrize("after", [0, 3, 5, 7, 10])
def test_an_interrupted_call_is_resumed(paths, tmp_path, after, stop_after, embedded, monkeypatch):
    """Five blocks are embedded, and annotated when the tissues of their file are known."""
    from sccello_tools.files import worker

    whole = annotate(paths, tmp_path / "whole")
    original = worker.write_rows
    embedded.clear()
    stop_after(after)
    if after < 10:
        with pytest.raises(KeyboardInterrupt):
            annotate(paths, tmp_path / "out")
        with pytest.raises(FilesError):
            sccello.open_embedded(tmp_path / "out")
    else:  # all blocks are written by workers; joining uses another writer
        annotate(paths, tmp_path / "out")
    monkeypatch.setattr(worker, "write_rows", original)
    resumed = annotate(paths, tmp_path / "out")
    for source in whole.sources:
        pd.testing.assert_frame_equal(resumed.read(source), whole.read(source))
    pd.testing.assert_frame_equal(resumed.summary, whole.summary)
    for source, tissues in whole.inferred_tissues.items():
        assert resumed.inferred_tissues[source] == pytest.approx(tissues, abs=1e-6)
    # a block that was interrupted while it was written is embedded again, finished ones are not
    repeated = {0: 16, 3: 1}.get(after, 0)
    assert sum(embedded) == 59 + repeated


@pytest.fixture
def embedded(monkeypatch) -> list[int]:
    """Number of cells of each block that is embedded from here on."""
    from sccello_tools.files import worker

    sizes: list[int] = []
    original = worker.embed

    def embed(cells, *args, **options):
        sizes.append(len(cells.tokens))
        return original(cells, *args, **options)

    monkeypatch.setattr(worker, "embed", embed)
    return sizes


@pytest.mark.filterwarnings("ignore:.*variables repeat a gene")
def test_blocks_are_read_again_after_an_error_of_the_file_system(
    two_tissues, tmp_path, monkeypatch
):
    """All blocks of a file by columns are one task; those annotated before the error are kept."""
    from sccello_tools.files import worker

    path = tmp_path / "blood.h5ad"
    whole = annotate(path, tmp_path / "whole")
    n_blocks = -(-two_tissues["blood"].n_obs // 16)
    names: list[str] = []
    original = worker.write_rows

    def write(target, *args, **options):
        names.append(target.stem)
        if len(names) == n_blocks + 2:
            raise FileFormatError("stale") from OSError(errno.ESTALE, "stale file handle")
        original(target, *args, **options)

    monkeypatch.setattr(worker, "write_rows", write)
    monkeypatch.setattr(worker, "_WAITS", (0,))
    found = annotate(path, tmp_path / "out")
    assert names[n_blocks:] == [
        "00000-000000", "00000-000001", *(f"00000-{i:06d}" for i in range(1, n_blocks)),
    ]  # fmt: skip
    pd.testing.assert_frame_equal(found.read("blood"), whole.read("blood"))


def test_cells_outside_the_calibrated_range_of_tokens_are_reported(cells, tmp_path):
    shallow = cells[:12].copy()
    shallow.X = sparse.csr_matrix(shallow.X)
    for i in range(10):  # 40 genes each
        first, last = shallow.X.indptr[i : i + 2]
        shallow.X.data[first + 40 : last] = 0
    shallow.X.eliminate_zeros()
    shallow.write_h5ad(tmp_path / "shallow.h5ad")
    cells.write_h5ad(tmp_path / "deep.h5ad")
    paths = [tmp_path / "shallow.h5ad", tmp_path / "deep.h5ad"]
    for _ in range(2):  # a call that finds everything finished warns as well
        with pytest.warns(UserWarning, match="calibrated") as caught:
            annotate(paths, tmp_path / "out", tissue=TISSUE)
        (warning,) = caught
        assert "10 cells of 1 of 2 files ('shallow') have fewer than 63" in str(warning.message)
        assert "tl.calibrate" in str(warning.message)


def test_a_finished_call_and_a_lost_file(paths, tmp_path, written):
    out = tmp_path / "out"
    found = annotate(paths, out, tissue=TISSUE)
    assert written == [
        "00000-000000",
        "00000-000001",
        "00000-000002",
        "00000-000003",
        "00001-000000",
    ]
    annotate(paths, out, tissue=TISSUE)
    assert len(written) == 5
    found.path("two").unlink()
    annotate(paths, out, tissue=TISSUE)
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
