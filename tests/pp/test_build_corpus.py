"""Building corpora: the same rows whatever the interruptions and workers, and every cell is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from typing import TYPE_CHECKING

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.corpus import Corpus, read_record
from sccello_tools.corpus.manifest import ShardRecord
from sccello_tools.errors import (
    ArgumentError,
    CorpusError,
    FileFormatError,
    FilesError,
    GeneMatchError,
    LabelError,
    NotCountsError,
    OutputError,
    OutputExistsError,
)
from sccello_tools.files import stores, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

T_CELL, B_CELL, MONOCYTE = "CL:0000084", "CL:0000236", "CL:0000576"
OBSOLETE, SUCCESSOR = "CL:0000044", "CL:0000051"  # of the snapshot
GONE = "CL:0000046"  # obsolete without successor


@pytest.fixture
def labelled(adata: anndata.AnnData) -> anndata.AnnData:
    """Thirty cells with labels, one of which is missing, and cell 4 without any count."""
    labels = [T_CELL, B_CELL, MONOCYTE] * 10
    labels[7] = None
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(labels)
    adata.obs["depth"] = np.asarray(adata.X.sum(axis=1)).ravel().astype(np.float32)
    adata.obs["n"] = np.arange(30)
    adata.obs["is_good"] = adata.obs["n"] % 2 == 0
    x = adata.X.tolil()
    x[4] = 0
    adata.X = sparse.csr_matrix(x)
    return adata


@pytest.fixture
def h5ad(labelled: anndata.AnnData, tmp_path: Path) -> Path:
    labelled.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def build(inputs: Any, out: Path, **options: Any) -> Corpus:
    return sccello.pp.build_corpus(
        inputs, out, **{"cells_per_shard": 4, "min_matched": 1} | options
    )


def rows_of(corpus: Corpus) -> list[dict[str, Any]]:
    return pa.Table.from_batches(corpus.record_batches()).to_pylist()


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


def stop_after(n: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Interrupt the work when ``n`` files have been written."""
    original = worker.write_rows

    def write(*args: Any, **options: Any) -> None:
        nonlocal n
        n -= 1
        if n < 0:
            raise error
        original(*args, **options)

    monkeypatch.setattr(worker, "write_rows", write)


# --- what a corpus holds


def test_a_corpus_holds_what_tokenize_gives(
    labelled: anndata.AnnData, h5ad: Path, tmp_path: Path
) -> None:
    corpus = build(h5ad, tmp_path / "out", max_length=64)
    with pytest.warns(UserWarning, match=r"1 of 30 cells"):
        tokens = sccello.pp.tokenize(labelled, min_matched=1, max_length=64)
    kept = [i for i in range(30) if i not in (4, 7)]
    rows = rows_of(corpus)
    assert [row["source_row"] for row in rows] == kept
    assert [row["gene_token_ids"] for row in rows] == [tokens[i].tolist() for i in kept]
    assert [row["length"] for row in rows] == tokens.lengths[kept].tolist()
    labels = labelled.obs["cell_type_ontology_term_id"]
    assert [row["cell_type_ontology_term_id"] for row in rows] == labels.iloc[kept].tolist()
    assert {row["source"] for row in rows} == {"cells"}
    assert len(corpus) == 28
    assert corpus.cell_types == {T_CELL: 10, MONOCYTE: 10, B_CELL: 8}
    assert len(corpus.shards) == 8
    corpus.verify()
    assert np.concatenate([shard.blocks for shard in corpus.shards]).sum() == 28


def test_the_manifest_reports_every_cell(h5ad: Path, tmp_path: Path) -> None:
    build(h5ad, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (report,) = manifest["inputs"]
    assert report["left_out"] == {"no_gene": 1, "no_label": 1}
    assert report["n_cells"] == 30 == report["n_kept"] + sum(report["left_out"].values())
    assert manifest["complete"] is True
    assert manifest["schema_version"] == 2
    assert manifest["config"]["ontology_release"] == "2026-03-26"
    assert len(manifest["config"]["vocabulary_sha256"]) == 64
    assert sum(sum(shard["blocks"]) for shard in manifest["shards"]) == 28
    for shard in manifest["shards"]:
        record = read_record(tmp_path / "out" / "shards" / f"{shard['name']}.parquet", ShardRecord)
        assert record == ShardRecord(**shard)


def test_columns_of_obs_keep_their_kind(
    labelled: anndata.AnnData, h5ad: Path, tmp_path: Path
) -> None:
    keys = ["donor", "depth", "n", "is_good"]
    rows = rows_of(build(h5ad, tmp_path / "out", obs_keys=keys))
    kept = labelled.obs.iloc[[row["source_row"] for row in rows]]
    for key in keys:
        assert [row[key] for row in rows] == kept[key].tolist()


def test_columns_with_gaps_and_of_two_kinds(labelled: anndata.AnnData, tmp_path: Path) -> None:
    gaps = [None, *range(1, 30)]
    labelled.obs["count"] = pd.array(gaps, dtype="Int64")
    labelled.obs["name"] = pd.Categorical([None, *["x"] * 29])
    labelled.write_h5ad(tmp_path / "a.h5ad")
    labelled.obs["n"] = labelled.obs["n"] + 0.5
    labelled.write_h5ad(tmp_path / "b.h5ad")
    keys = ["count", "name", "n"]
    rows = rows_of(
        build([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], tmp_path / "out", obs_keys=keys)
    )
    assert np.isnan(rows[0]["count"])
    assert (rows[0]["name"], rows[1]["name"]) == (None, "x")
    assert [rows[1][key] for key in ("count", "n")] == [1.0, 1.0]
    assert rows[28]["n"] == 0.5


def test_names_as_newer_anndata_writes_them(h5ad: Path, tmp_path: Path) -> None:
    """anndata 0.13 with pandas 3 writes names as a group: values, and a mask of those that are missing."""
    expected = rows_of(build({"cells": h5ad}, tmp_path / "before"))
    with h5py.File(h5ad, "r+") as file:
        for frame in (file["obs"], file["var"]):
            key = frame.attrs["_index"]
            names = frame[key].asstr()[:] if isinstance(frame[key], h5py.Dataset) else None
            if names is None:  # this anndata has written them so
                continue
            del frame[key]
            group = frame.create_group(key)
            group.attrs.update(
                {"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"}
            )
            group.create_dataset("values", data=names.astype(object), dtype=h5py.string_dtype())
            group.create_dataset("mask", data=np.zeros(len(names), dtype=bool))
    assert rows_of(build({"cells": h5ad}, tmp_path / "after")) == expected


@pytest.mark.parametrize(
    "form",
    ["csr", "csc", "dense", "layer", "raw", "zarr", "zarr_csc", "zarr_sharded", "h5mu"],
)
def test_every_form_of_file_gives_the_same_rows(
    form: str,
    labelled: anndata.AnnData,
    h5ad: Path,
    tmp_path: Path,
    write_zarr: Callable[[anndata.AnnData, Path], None],
) -> None:
    expected = rows_of(build(h5ad, tmp_path / "expected"))
    counts, layer = labelled.X, None
    if form == "dense":
        labelled.X = counts.toarray()
    elif form in {"csc", "zarr_csc"}:
        labelled.X = sparse.csc_matrix(counts)
    elif form == "layer":
        labelled.layers["counts"], labelled.X, layer = counts, counts / 3, "counts"
    elif form == "raw":
        labelled.raw = labelled.copy()
        labelled = labelled[:, :10].copy()
        labelled.X, layer = labelled.X / 3, "raw.X"
    path = tmp_path / form / "cells.x"
    path.parent.mkdir()
    if form == "zarr_sharded":
        write_sharded(labelled, path)
    elif form.startswith("zarr"):
        write_zarr(labelled, path)
    elif form == "h5mu":
        with h5py.File(path, "w") as file:
            anndata.io.write_elem(file.create_group("mod"), "rna", labelled)
        path = path / "rna"
    else:
        labelled.write_h5ad(path)
    corpus = build({"cells": path}, tmp_path / "out", layer=layer)
    assert rows_of(corpus) == expected
    assert [shard.n_cells for shard in corpus.shards] == [4, 2, 4, 4, 4, 4, 4, 2]


def write_sharded(adata: anndata.AnnData, path: Path) -> None:
    """Write a zarr v3 store whose matrix is sharded: 100 values per chunk, 700 per file."""
    zarr = pytest.importorskip("zarr")
    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=3):
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
        group = zarr.open_group(path, mode="r+", use_consolidated=False)["X"]
        for name in ("data", "indices"):
            values = group[name][:]
            n = -(-len(values) // 100) * 100
            del group[name]
            array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(100,), shards=(min(700, n),))  # fmt: skip
            array[:] = values
        zarr.consolidate_metadata(path)


def test_labels_of_anndata_0_7_are_read(h5ad: Path, tmp_path: Path) -> None:
    expected = rows_of(build(h5ad, tmp_path / "expected"))
    with h5py.File(h5ad, "r+") as file:
        obs = file["obs"]
        column = obs["cell_type_ontology_term_id"]
        codes, names = column["codes"][:], column["categories"][:]
        del obs["cell_type_ontology_term_id"]
        obs["cell_type_ontology_term_id"] = codes
        obs.create_group("__categories")["cell_type_ontology_term_id"] = names
    assert rows_of(build(h5ad, tmp_path / "out")) == expected


# --- the same again, whatever happens


def test_a_second_call_does_nothing(h5ad: Path, tmp_path: Path) -> None:
    build(h5ad, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    assert len(build(h5ad, tmp_path / "out")) == 28
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_inputs_can_be_added_at_the_end(h5ad: Path, tmp_path: Path) -> None:
    first = build({"a": h5ad}, tmp_path / "out")
    both = build({"a": h5ad, "b": h5ad}, tmp_path / "out")
    assert (len(first), len(both)) == (28, 56)
    assert [report.source for report in both.manifest.inputs] == ["a", "b"]
    with pytest.raises(
        CorpusError, match=r"inputs were \['a', 'b'\] and are now \['b', 'a'\]; inputs"
    ):
        build({"b": h5ad, "a": h5ad}, tmp_path / "out")


def test_processes_give_the_same_bytes(h5ad: Path, tmp_path: Path) -> None:
    build(h5ad, tmp_path / "alone", cells_per_shard=10)
    build(h5ad, tmp_path / "two", cells_per_shard=10, n_workers=2)
    assert shard_bytes(tmp_path / "alone") == shard_bytes(tmp_path / "two")


@pytest.mark.filterwarnings("default")
def test_a_client_gives_the_same_bytes(h5ad: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    build(h5ad, tmp_path / "alone")
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
        build(h5ad, tmp_path / "client", client=client)
    assert shard_bytes(tmp_path / "alone") == shard_bytes(tmp_path / "client")


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_an_interrupted_run_goes_on(
    form: str, labelled: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled.X = sparse.csc_matrix(labelled.X) if form == "csc" else labelled.X
    path = tmp_path / "cells.h5ad"
    labelled.write_h5ad(path)
    build(path, tmp_path / "whole")
    for after in range(1, 8):
        out = tmp_path / f"out{after}"
        with monkeypatch.context() as patch:
            stop_after(after, patch, KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                build(path, out)
        assert len(list((out / "shards").glob("*.parquet"))) == after
        with pytest.raises(CorpusError, match=r"is incomplete.*build_corpus"):
            Corpus.open(out)
        assert len(Corpus.open(out, partial=True)) > 0
        build(path, out)
        assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


SCRIPT = """
import sys, time
from pathlib import Path
import sccello_tools as sccello
from sccello_tools.files import worker
write = worker.write_rows
def write_some(*args, **options):
    write(*args, **options)
    if len(list(Path(sys.argv[2], "shards").glob("[0-9]*.parquet"))) >= int(sys.argv[3]):
        time.sleep(600)  # until it is killed, however busy the machine is
worker.write_rows = write_some
sccello.pp.build_corpus(sys.argv[1], sys.argv[2], cells_per_shard=50)
"""


def wait_for(what: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 600  # a busy machine may take minutes to import alone
    while not what() and time.monotonic() < until:
        assert process.poll() is None, "the process ended before it could be killed"
        time.sleep(0.002)


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    adata = sccello.datasets.pancreas_tritschler()
    path = tmp_path / "pancreas.h5ad"
    adata.write_h5ad(path)
    out = tmp_path / "out"
    for n_finished in (1, 4):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, path, out, str(n_finished)])
        finished = (out / "shards").glob
        try:
            wait_for(lambda: len(list(finished("[0-9]*.parquet"))) >= n_finished, process)  # noqa: B023
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not json.loads((out / "manifest.json").read_text())["complete"]
    half = out / "shards" / ".00000-000099.parquet.1.part"
    half.write_bytes(b"what a killed process was writing")
    n_before = len(list((out / "shards").glob("[0-9]*.parquet")))
    assert 4 <= n_before < 12
    corpus = sccello.pp.build_corpus(path, out, cells_per_shard=50)
    sccello.pp.build_corpus(path, tmp_path / "whole", cells_per_shard=50)
    half.unlink()
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")
    assert len(corpus) == 583


def test_two_processes_do_not_build_one_corpus(h5ad: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(CorpusError, match=r"Another call is writing to .*Wait until it"),
    ):
        build(h5ad, tmp_path / "out")


# --- bad input


@pytest.mark.parametrize("damage", ["cut", "gone", "footer"])
def test_a_damaged_shard_is_found_and_written_again(
    damage: str, h5ad: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build(h5ad, out)
    whole = shard_bytes(out)
    shard = out / "shards" / "00000-000002.parquet"
    content = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
        with pytest.raises(CorpusError, match=r"missing .*000002.parquet.*build_corpus again"):
            Corpus.open(out)
    else:
        shard.write_bytes(
            content[:100] if damage == "cut" else content[:-60] + b"\xff" * 52 + content[-8:]
        )
        with pytest.raises(
            CorpusError, match=r"000002.parquet cannot be read .*build_corpus again"
        ):
            Corpus.open(out).to_memory()
    assert len(build(h5ad, out)) == 28
    assert shard_bytes(out) == whole


def test_flipped_bits_are_found_by_checksums(h5ad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corpus = build(h5ad, out)
    shard = out / "shards" / "00000-000002.parquet"
    content = bytearray(shard.read_bytes())
    content[60] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorpusError, match=r"000002.parquet"):
        corpus.verify()


def test_a_changed_input_is_told(labelled: anndata.AnnData, h5ad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(h5ad, out)
    labelled.obs["more"] = 1
    labelled.write_h5ad(h5ad)
    with pytest.raises(CorpusError, match=r"cells.h5ad was changed since .*delete 00000-\*"):
        build(h5ad, out)
    assert len(Corpus.open(out)) == 28
    for path in (out / "shards").glob("00000-*"):
        path.unlink()
    assert len(build(h5ad, out)) == 28


def test_an_input_that_changes_during_the_run_is_told(
    h5ad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = worker.write_rows

    def and_touch(*args: Any, **options: Any) -> None:
        original(*args, **options)
        os.utime(h5ad, ns=(1, 1))

    monkeypatch.setattr(worker, "write_rows", and_touch)
    with pytest.raises(FilesError, match=r"was changed while it was processed"):
        build(h5ad, tmp_path / "out")


def test_other_arguments_are_told(h5ad: Path, tmp_path: Path) -> None:
    build(h5ad, tmp_path / "out")
    with pytest.raises(CorpusError, match=r"max_length was 2048 and is now 99; cell"):
        build(h5ad, tmp_path / "out", max_length=99, cells_per_shard=5)


def test_a_manifest_of_another_vocabulary_is_told(h5ad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(h5ad, out)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["config"]["vocabulary_sha256"] = "0" * 64
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorpusError, match=r"another gene vocabulary \(sha256 000000000000\.\.\."):
        Corpus.open(out)
    with pytest.raises(CorpusError, match=r"vocabulary_sha256 was '0000"):
        build(h5ad, out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as the manifest of a corpus"),
        ('{"schema_version": 99}', "schema version 99.*reads 2"),
        ('{"schema_version": 2, "inputs": 3}', "cannot be read as the manifest of a corpus"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(
    text: str, message: str, h5ad: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build(h5ad, out)
    (out / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=message):
        Corpus.open(out)
    with pytest.raises(CorpusError, match=message):
        build(h5ad, out)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told(h5ad: Path, tmp_path: Path, tiny_disk: Path) -> None:
    (tiny_disk / "ballast").write_bytes(b"x" * 60_000)
    with pytest.raises(OutputError, match=r"cannot be written: No space left.*Free space"):
        build(h5ad, tiny_disk / "out", cells_per_shard=2)
    finished = list((tiny_disk / "out" / "shards").glob("*.parquet"))
    assert 1 <= len(finished) < 15
    assert not list((tiny_disk / "out" / "shards").glob(".*"))
    (tiny_disk / "ballast").unlink()
    whole = build(h5ad, tmp_path / "whole", cells_per_shard=2)
    partial = Corpus.open(tiny_disk / "out", partial=True)
    assert rows_of(partial) == rows_of(whole)[: len(partial)]


def test_unknown_labels_raise_or_are_reported(labelled: anndata.AnnData, tmp_path: Path) -> None:
    labels = labelled.obs["cell_type_ontology_term_id"].astype(object)
    labels.iloc[:3] = "CL:9999999"
    labels.iloc[3] = "T cell"
    labels.iloc[5] = GONE
    labels.iloc[6] = OBSOLETE
    labelled.obs["cell_type_ontology_term_id"] = labels.astype("category")
    path = tmp_path / "cells.h5ad"
    labelled.write_h5ad(path)
    with pytest.raises(
        LabelError, match=r"cells: 'CL:9999999' \(3 cells\).*unknown_labels='leave_out'"
    ):
        build(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    corpus = build(path, tmp_path / "out", unknown_labels="leave_out")
    (report,) = corpus.manifest.inputs
    assert report.left_out == {
        "no_gene": 1, "no_label": 1, "obsolete_label": 1, "unknown_label": 4,
    }  # fmt: skip
    assert report.labels_left_out == {"CL:9999999": 3, "T cell": 1, GONE: 1}
    assert corpus.cell_types[SUCCESSOR] == 1
    assert "23 of 30 cells kept; left out: 1 no gene, 1 no label" in str(report)
    assert [shard.path.name for shard in corpus.shards][:1] == ["00000-000001.parquet"]
    assert corpus.manifest.shards[0].n_cells == 0


def test_labels_that_name_no_cell_type_are_left_out_and_counted(
    labelled: anndata.AnnData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = labelled.obs["cell_type_ontology_term_id"].astype(object)
    labels.iloc[:2] = "CL:0000003"
    labels.iloc[2:5] = "unknown"
    labels.iloc[5] = "nan"
    labelled.obs["cell_type_ontology_term_id"] = labels.astype("category")
    path = tmp_path / "cells.h5ad"
    labelled.write_h5ad(path)
    corpus = build(path, tmp_path / "out")
    (report,) = corpus.manifest.inputs
    assert report.labels_uninformative == {"unknown": 3, "CL:0000003": 2, "nan": 1}
    assert report.labels_left_out == {}
    assert report.left_out["uninformative_label"] == 6
    assert not {"CL:0000000", "CL:0000003"} & set(corpus.cell_types)
    assert "6 uninformative label" in caplog.text
    assert "'unknown', 'CL:0000003', 'nan'" in caplog.text


def test_what_is_no_input_is_told(labelled: anndata.AnnData, h5ad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileFormatError, match=r"nowhere.h5ad: file not found"):
        build(tmp_path / "nowhere.h5ad", out)
    (tmp_path / "text.h5ad").write_text("not at all")
    with pytest.raises(FileFormatError, match=r"text.h5ad is not an HDF5 file"):
        build(tmp_path / "text.h5ad", out)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1
    with pytest.raises(FileFormatError, match=r"other.h5 does not hold an AnnData"):
        build(tmp_path / "other.h5", out)
    with pytest.raises(ArgumentError, match=r"Two inputs are named 'cells'"):
        build([h5ad, tmp_path / "more" / "cells.h5ad"], out)
    with pytest.raises(ArgumentError, match=r"No input files"):
        build([], out)
    assert not out.exists()
    del labelled.obs["cell_type_ontology_term_id"]


def test_what_is_not_in_an_input_is_told(h5ad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        LabelError, match=r"obs has no column 'type' \(columns: 'cell_type_ontology"
    ):
        build(h5ad, out, label_key="type")
    with pytest.raises(CorpusError, match=r"obs has no column 'assay' .*Every input must have"):
        build(h5ad, out, obs_keys=["assay"])
    with pytest.raises(ArgumentError, match=r"obs_keys names 'source'.*reserved"):
        build(h5ad, out, obs_keys=["source"])
    with pytest.raises(GeneMatchError, match=r"var has no column 'symbol'"):
        build(h5ad, out, gene_ids="symbol")
    with pytest.raises(GeneMatchError, match=r"Only 900 of 900 genes match"):
        build(h5ad, out, min_matched=5000)
    with pytest.raises(
        NotCountsError, match=r"has no layers\['counts'\] \(layers: none\).*layer=None"
    ):
        build(h5ad, out, layer="counts")
    with pytest.raises(ValueError, match=r"unknown_labels.*'drop'"):
        build(h5ad, out, unknown_labels="drop")
    with pytest.raises(ValueError, match=r"cells_per_shard.*got 0 and 2048"):
        build(h5ad, out, cells_per_shard=0)
    assert not out.exists()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_is_not_counts_is_told(
    n_workers: int, labelled: anndata.AnnData, tmp_path: Path
) -> None:
    labelled.layers["raw_counts"] = labelled.X.copy()
    labelled.X.data[-1] = 0.5
    path = tmp_path / "cells.h5ad"
    labelled.write_h5ad(path)
    with pytest.raises(
        NotCountsError, match=r"X does not hold raw counts: 1 of .*layer='raw_counts'"
    ):
        build(path, tmp_path / "out", n_workers=n_workers)
    assert len(build(path, tmp_path / "other", layer="raw_counts")) == 28
    assert len(build(path, tmp_path / "out", counts="trust")) == 28


def test_a_file_that_breaks_off_is_told(labelled: anndata.AnnData, tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    labelled.write_h5ad(path, compression="gzip")
    with h5py.File(path, "r+") as file:
        offset = file["X/data"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset + 40)
        raw.write(b"\xff" * 200)
    with pytest.raises(FileFormatError, match=r"cells.h5ad cannot be read .*damaged"):
        build(path, tmp_path / "out")


def test_a_folder_with_something_else_is_left_alone(h5ad: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"is not empty .*new or an empty folder"):
        build(h5ad, tmp_path)
    with pytest.raises(OutputExistsError, match=r"is a file"):
        build(h5ad, h5ad)


def test_a_corpus_of_no_cell_is_told(labelled: anndata.AnnData, tmp_path: Path) -> None:
    labelled.obs["cell_type_ontology_term_id"] = pd.Categorical([None] * 30, categories=[T_CELL])
    labelled.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(
        CorpusError, match=r"No cells are left: cells: 0 of 30 cells kept; left out: 30"
    ):
        build(tmp_path / "cells.h5ad", tmp_path / "out")


# --- memory


def test_memory_does_not_grow_with_the_file(
    gene_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_ROWS", 100)
    rng = np.random.default_rng(0)
    one = sparse.csr_matrix(rng.poisson(1.0, size=(500, 900)).astype(np.float32))
    peaks = {}
    for n_copies in (1, 2, 12):
        x = sparse.vstack([one] * n_copies).tocsr()
        obs = pd.DataFrame(index=[str(i) for i in range(x.shape[0])])
        obs["cell_type_ontology_term_id"] = pd.Categorical([T_CELL] * x.shape[0])
        path = tmp_path / f"cells{n_copies}.h5ad"
        anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=gene_ids)).write_h5ad(path)
        whole_matrix = x.data.nbytes + x.indices.nbytes
        del x
        tracemalloc.start()
        corpus = build(path, tmp_path / f"out{n_copies}", cells_per_shard=500)
        peaks[n_copies] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(corpus) == 500 * n_copies
    assert peaks[12] < 1.3 * peaks[2] + 1e6
    assert peaks[12] < whole_matrix / 3
