"""embed_files: the rows of tl.embed, whatever the files, blocks and processes, and whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.errors import (
    BackendError,
    ConfigError,
    CorpusError,
    EmbeddingFilesError,
    FileFormatError,
    GeneMatchError,
    NotCountsError,
    ScCelloError,
)
from sccello_tools.files import work as _work
from sccello_tools.files.part import PartWriter
from sccello_tools.files.processes import Place, places

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("zarr")
EXACT = {"precision": "float32", "device": "cpu"}


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Blocks form other batches than a whole AnnData, so float32 embeddings agree within 1e-5."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(sccello.settings, "progress", False)


@pytest.fixture
def files(adata, tmp_path, write_zarr) -> list[Path]:
    """Thirty cells in an h5ad file, ten of them as CSC, and five in a zarr folder."""
    paths = [tmp_path / "a.h5ad", tmp_path / "b.h5ad", tmp_path / "c.zarr"]
    adata.write_h5ad(paths[0])
    by_column = adata[10:20].copy()
    by_column.X = sparse.csc_matrix(by_column.X)
    by_column.obs_names = [f"b{i}" for i in range(10)]
    by_column.write_h5ad(paths[1])
    write_zarr(adata[:5].copy(), paths[2])
    return paths


@pytest.fixture
def expected(adata, tiny_model_folder) -> np.ndarray:
    sccello.tl.embed(adata, model=tiny_model_folder, **EXACT)
    rows = adata.obsm["X_sccello"]
    return np.concatenate([rows, rows[10:20], rows[:5]])


def embed(files, out, model, **options) -> sccello.files.EmbeddedCells:
    return sccello.embed_files(
        files, out, model=model, **{"cells_per_block": 4, **EXACT, **options}
    )


def test_rows_are_those_of_tl_embed_in_input_order(files, expected, tiny_model_folder, tmp_path):
    cells = embed(files, tmp_path / "out", tiny_model_folder)
    assert cells.complete
    assert cells.shape == (45, 16)
    assert repr(cells).startswith("EmbeddedCells(45 × 16 float32 in ")
    same(np.asarray(cells), expected)
    obs = cells.obs
    assert obs["source"].tolist() == ["a"] * 30 + ["b"] * 10 + ["c"] * 5
    assert obs["source_row"].tolist() == [*range(30), *range(10), *range(5)]
    assert obs.index[[0, 30, 44]].tolist() == ["a:cell0", "b:b0", "c:cell4"]  # cell0 is in a and c


KEYS = [
    3, -1, slice(2, 40, 3), slice(None, None, -1), [7, 31, 7, 44], np.arange(45) % 5 == 0,
    (slice(0, 9), 2), (5, slice(1, 3)), slice(0, 0),
]  # fmt: skip


def test_it_is_read_like_an_array(files, expected, tiny_model_folder, tmp_path):
    cells = embed(files, tmp_path / "out", tiny_model_folder)
    for key in KEYS:
        np.testing.assert_array_equal(cells[key], expected[key])
    with pytest.raises(IndexError, match="row 45 is out of range: there are 45 cells"):
        cells[45]
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, copy=False meant "if need be"
        with pytest.raises(ValueError, match="cannot become an array without being copied"):
            np.array(cells, copy=False)


def test_it_becomes_an_anndata_that_can_be_annotated(tmp_path):
    adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    sccello.embed_files(tmp_path / "cells.h5ad", tmp_path / "out", cells_per_block=16, **EXACT)
    found = sccello.open_embedded(tmp_path / "out").to_anndata()
    sccello.tl.embed(adata, **EXACT)
    same(found.obsm["X_sccello"], adata.obsm["X_sccello"])
    assert found.uns["X_sccello"] == adata.uns["X_sccello"]
    for key in ("sccello_n_tokens", "sccello_truncated"):
        assert found.obs[key].tolist() == adata.obs[key].tolist()
    assert found.obs_names.tolist() == adata.obs_names.tolist()
    sccello.tl.annotate_novel(found)
    sccello.tl.annotate_novel(adata)
    assert found.obs["sccello_cell_type"].tolist() == adata.obs["sccello_cell_type"].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.write_h5ad(tmp_path / "found.h5ad")


def test_two_processes_give_the_bytes_of_one(files, expected, tiny_model_folder, tmp_path):
    cells = embed(files, tmp_path / "out", tiny_model_folder, devices=2)
    parts = sorted(path.name for path in (tmp_path / "out" / "parts").glob("*.zarr"))
    assert parts == ["rank-0000.zarr", "rank-0001.zarr"]
    assert {record.part for record in cells.manifest.records} == set(parts)
    same(np.asarray(cells), expected)


def test_an_error_of_a_process_is_raised_as_it_is(adata, tiny_model_folder, tmp_path):
    adata.X[25] = adata.X[25] * 0.5
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(NotCountsError, match=r"a\.h5ad: X does not hold raw counts: .* fractions"):
        embed(tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder, devices=2)
    with pytest.raises(
        EmbeddingFilesError, match=r"incomplete: \d of 8 blocks are finished\. Wait"
    ):
        sccello.open_embedded(tmp_path / "out")[:]


# --- it goes on


def stop_after(n: int, monkeypatch) -> None:
    original = PartWriter.append

    def append(self, *args):
        nonlocal n
        n -= 1
        if n < 0:
            raise KeyboardInterrupt
        original(self, *args)

    monkeypatch.setattr(PartWriter, "append", append)


@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_an_interrupted_call_goes_on(
    files, expected, tiny_model_folder, tmp_path, monkeypatch, after
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(after, patch)
        with pytest.raises(KeyboardInterrupt):
            embed(files, out, tiny_model_folder)
    journal = out / "parts" / "rank-0000.jsonl"
    before = journal.read_text() if journal.exists() else ""
    assert before.count("\n") == after
    if after == 5:  # what a killed process was writing
        with journal.open("a") as file:
            file.write('{"block": "00000-0000')
    n_embedded = []
    original = PartWriter.append
    monkeypatch.setattr(
        PartWriter, "append", lambda self, *args: n_embedded.append(1) or original(self, *args)
    )
    cells = embed(files, out, tiny_model_folder)
    assert len(n_embedded) == 13 - after
    same(np.asarray(cells), expected)
    embed(files, out, tiny_model_folder)
    assert len(n_embedded) == 13 - after, "a finished call does nothing again"


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_block_is_made_again(files, expected, tiny_model_folder, tmp_path, damage):
    import zarr

    out = tmp_path / "out"
    embed(files, out, tiny_model_folder)
    part = out / "parts" / "rank-0000.zarr"
    if damage == "changed":
        zarr.open_group(part)["embedding"][5] = 0
    else:
        chunk = next(
            path for path in sorted(part.rglob("*")) if path.is_file() and "c" in path.parts
        )
        chunk.unlink()
    cells = embed(files, out, tiny_model_folder)
    same(np.asarray(cells), expected)


SCRIPT = """
import sys
import sccello_tools as sccello
from sccello_tools.shard._part import PartWriter
import time
append = PartWriter.append
def slow(self, *args):
    append(self, *args)
    time.sleep(0.3)
PartWriter.append = slow
if __name__ == "__main__":
    sccello.embed_files(sys.argv[1], sys.argv[2], model=sys.argv[3], cells_per_block=4, device="cpu", precision="float32")
"""


def test_a_killed_process_loses_nothing_and_others_go_on(adata, tiny_model_folder, tmp_path):
    path, out = tmp_path / "a.h5ad", tmp_path / "out"
    adata.write_h5ad(path)
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", path, out, tiny_model_folder]
    )
    journal = out / "parts" / "rank-0000.jsonl"
    until = time.monotonic() + 300
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_done = journal.read_text().count("\n")
    assert 2 <= n_done < 8
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    assert not sccello.open_embedded(out).complete
    with pytest.raises(EmbeddingFilesError, match=rf"{n_done} of 8 blocks are finished"):
        sccello.open_embedded(out)[0]
    first = journal.read_text()
    cells = embed(path, out, tiny_model_folder)
    assert journal.read_text().startswith(first), "what was finished is kept"
    sccello.tl.embed(adata, model=tiny_model_folder, **EXACT)
    same(np.asarray(cells), adata.obsm["X_sccello"])


def test_a_cluster_fills_the_places_one_by_one(
    files, expected, tiny_model_folder, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    for rank in (1, 0):
        variables = {
            "TORCHELASTIC_RUN_ID": "x", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "GROUP_RANK": 0,
            "MASTER_ADDR": "localhost", "MASTER_PORT": 1,
        }  # fmt: skip
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        cells = embed(files, out, tiny_model_folder, devices=2)
        assert cells.complete == (rank == 0)
    same(np.asarray(cells), expected)


def test_places(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "NODE_RANK", "GROUP_RANK", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    assert places(1, 1) == ([Place(0, 1, 0, 1)], False)
    assert places(2, 1) == ([Place(0, 2, 0, 2), Place(1, 2, 1, 2)], False)
    with pytest.raises(
        ConfigError, match=r"NODE_RANK in the environment is None; expected is 0 to 1"
    ):
        places(2, 2)
    monkeypatch.setenv("NODE_RANK", "1")
    assert places(2, 2) == ([Place(2, 4, 0, 2), Place(3, 4, 1, 2)], False)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "cells")
    with pytest.raises(ConfigError, match=r"--ntasks-per-node=4"):
        places(2, 2)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    for name, value in (("SLURM_PROCID", 3), ("SLURM_LOCALID", 1), ("SLURM_NODEID", 1)):
        monkeypatch.setenv(name, str(value))
    assert places(2, 2) == ([Place(3, 4, 1, 2)], True)
    with pytest.raises(ConfigError, match=r"started 4 processes, and devices=8 times num_nodes=1"):
        places(8, 1)


# --- bad input and faults


def test_what_cannot_be_is_told_before_anything_is_written(files, tiny_model_folder, tmp_path):
    out = tmp_path / "out"

    def refuses(error: type[Exception], says: str, paths=files, **options) -> None:
        with pytest.raises(error, match=says):
            embed(paths, out, tiny_model_folder, **options)
        assert not out.exists()

    refuses(FileFormatError, r"There is no file .*none\.h5ad\. Expected is", tmp_path / "none.h5ad")
    refuses(CorpusError, r"There is no input\. Pass", [])
    refuses(CorpusError, r"Two inputs are called 'a'", [files[0], files[0]])
    refuses(GeneMatchError, "at least 5,000 are expected", min_matched=5000)
    refuses(NotCountsError, "has no layers/counts", layer="counts")
    refuses(ConfigError, r"devices is 0; expected is", devices=0)
    refuses(ConfigError, r"num_nodes is True; expected is", num_nodes=True)
    refuses(BackendError, "Device 'tpu9' is not available", device="tpu9")
    refuses(BackendError, "needs a CUDA device", attention="torch_varlen")
    refuses(ValueError, "max_length is 257; expected is 2 to 256", max_length=257)
    refuses(ValueError, "cells_per_block is 0; expected is at least 1", cells_per_block=0)
    refuses(ValueError, "representation is 'cells'", representation="cells")
    refuses(ValueError, "counts is 'checked'", counts="checked")


def test_other_arguments_and_changed_inputs_are_told(files, tiny_model_folder, tmp_path, adata):
    out = tmp_path / "out"
    embed(files, out, tiny_model_folder)
    with pytest.raises(EmbeddingFilesError, match=r"max_length was 256 and is now 99\. Call with"):
        embed(files, out, tiny_model_folder, max_length=99)
    with pytest.raises(EmbeddingFilesError, match=r"the inputs \(and their cells\) were"):
        embed(files[::-1], out, tiny_model_folder)
    adata.obs["more"] = 1
    adata.write_h5ad(files[0])
    with pytest.raises(EmbeddingFilesError, match=r"a\.h5ad was changed since its cells were"):
        embed(files, out, tiny_model_folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(EmbeddingFilesError, match=r"holds something else than embeddings"):
        embed(files, tmp_path / "other", tiny_model_folder)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_input_that_changes_on_the_way_is_told(files, tiny_model_folder, tmp_path, monkeypatch):
    original = PartWriter.append

    def and_touch(self, *args):
        original(self, *args)
        os.utime(files[0], ns=(1, 1))

    monkeypatch.setattr(PartWriter, "append", and_touch)
    with pytest.raises(EmbeddingFilesError, match="was changed while its cells were embedded"):
        embed(files, tmp_path / "out", tiny_model_folder)


def test_two_calls_do_not_write_to_one_folder(files, tiny_model_folder, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(_work, "_PATIENCE", 0)
    (tmp_path / "out" / "parts").mkdir(parents=True)
    with (
        FileLock(tmp_path / "out" / "parts" / "rank-0000.lock"),
        pytest.raises(EmbeddingFilesError, match="Another process is embedding into"),
    ):
        embed(files, tmp_path / "out", tiny_model_folder)


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 120 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_and_the_call_goes_on(
    files, expected, tiny_model_folder, tmp_path, tiny_disk
):
    (tiny_disk / "filler").mkdir()
    filler = tiny_disk / "filler" / "bytes"
    out = tiny_disk / "out"
    filler.write_bytes(b"x" * 80_000)
    with pytest.raises(EmbeddingFilesError, match=r"cannot be written \(No space left.*Free space"):
        embed(files, out, tiny_model_folder, cells_per_block=1)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    cells = embed(files, out, tiny_model_folder, cells_per_block=1)
    same(np.asarray(cells), expected)


def test_cells_without_tokens_are_nan_and_counted(adata, tiny_model_folder, tmp_path):
    x = adata.X.tolil()
    x[[2, 11]] = 0
    adata.X = x.tocsr()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="2 of 30 cells have no count in any gene"):
        cells = embed(tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder)
    assert np.flatnonzero(np.isnan(np.asarray(cells)).any(axis=1)).tolist() == [2, 11]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "holds no embeddings: it has no manifest.json"),
        ("{", "manifest.json cannot be read"),
        ("[]", "manifest.json cannot be read"),
        ('{"schema_version": 9}', "has schema version 9; expected is 1"),
    ],
)
def test_a_folder_without_embeddings(tmp_path, text, says):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(EmbeddingFilesError, match=says) as caught:
        sccello.open_embedded(tmp_path)
    assert isinstance(caught.value, ScCelloError)


def test_names_that_repeat_become_places(adata, tiny_model_folder, tmp_path):
    adata.obs_names = ["same"] * adata.n_obs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata, of names that repeat
        adata.write_h5ad(tmp_path / "a.h5ad")
    cells = embed(tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder)
    assert cells.obs.index.tolist() == [f"a:{i}" for i in range(30)]
    assert isinstance(cells.obs, pd.DataFrame)
    assert anndata.AnnData(obs=cells.obs).obs_names.is_unique


def test_the_command_line(adata, tiny_model_folder, tmp_path):
    from typer.testing import CliRunner

    from sccello_tools.__main__ import app

    adata.write_h5ad(tmp_path / "a.h5ad")
    command = [
        "embed",
        str(tmp_path / "a.h5ad"),
        "--model",
        str(tiny_model_folder),
        "--devices",
        "1",
    ]
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1]) == {
        "folder": str(tmp_path / "out"), "cells": 30, "complete": True, "dimensions": 16, "model": "tiny",
    }  # fmt: skip
    assert sccello.open_embedded(tmp_path / "out").complete
    wrong = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out.h5ad")])
    assert "the output is a folder" in str(wrong.exception)


def test_a_missing_extra_comes_back_from_another_process():
    import pickle

    from sccello_tools.errors import MissingExtraError

    error = MissingExtraError("embed_files", extra="scale")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
