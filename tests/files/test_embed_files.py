"""embed_files: the rows of tl.embed, whatever the files, blocks and interruptions."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.errors import (
    ArgumentError,
    BackendError,
    FileFormatError,
    FilesError,
    GeneMatchError,
    MissingExtraError,
    NotCountsError,
    OutputError,
    SparseStructureError,
)
from sccello_tools.files import worker

pytest.importorskip("zarr")
EXACT = {"precision": "float32", "device": "cpu"}


@pytest.fixture
def expected(adata, tiny_model_folder) -> np.ndarray:
    """Rows of tl.embed for the cells of `files`."""
    sccello.tl.embed(adata, model=tiny_model_folder, **EXACT)
    rows = adata.obsm["X_sccello"]
    return np.concatenate([rows, rows[10:20], rows[:5]])


def embed(files, out, model, **options) -> sccello.files.EmbeddedCells:
    return sccello.embed_files(
        files, out, model=model, **{"cells_per_block": 4, **EXACT, **options}
    )


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_are_those_of_tl_embed_in_input_order(files, expected, tiny_model_folder, tmp_path):
    cells = embed(files, tmp_path / "out", tiny_model_folder)
    assert cells.complete
    assert cells.shape == (45, 16)
    assert repr(cells).startswith("EmbeddedCells(45 × 16 float32 in ")
    close(np.asarray(cells), expected)
    obs = cells.obs
    assert obs["source"].tolist() == ["a"] * 30 + ["b"] * 10 + ["c"] * 5
    assert obs["source_row"].tolist() == [*range(30), *range(10), *range(5)]
    assert obs.index[[0, 30, 44]].tolist() == ["a:cell0", "b:b0", "c:cell4"]  # cell0 is in a and c


def test_dask_is_not_imported_without_need(files, tiny_model_folder, tmp_path):
    code = (
        "import sys, sccello_tools as s;"
        f"s.embed_files({str(files[0])!r}, {str(tmp_path / 'out')!r}, model={str(tiny_model_folder)!r}, device='cpu');"
        "print([m for m in sys.modules if m == 'distributed'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "distributed" not in done.stdout.splitlines()[-1]


KEYS = [
    3, -1, slice(2, 40, 3), slice(None, None, -1), [7, 31, 7, 44], np.arange(45) % 5 == 0,
    (slice(0, 9), 2), (5, slice(1, 3)), slice(0, 0),
]  # fmt: skip


def test_it_is_read_like_an_array(files, tiny_model_folder, tmp_path):
    cells = embed(files, tmp_path / "out", tiny_model_folder)
    whole = np.asarray(cells)
    for key in KEYS:
        np.testing.assert_array_equal(cells[key], whole[key])
    with pytest.raises(IndexError, match="got 45"):
        cells[45]
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, copy=False meant "if need be"
        with pytest.raises(ArgumentError, match="copy=False"):
            np.array(cells, copy=False)


def test_it_becomes_an_anndata_that_can_be_annotated(tmp_path):
    adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    sccello.embed_files(tmp_path / "cells.h5ad", tmp_path / "out", cells_per_block=16, **EXACT)
    found = sccello.open_embedded(tmp_path / "out").to_anndata()
    sccello.tl.embed(adata, **EXACT)
    close(found.obsm["X_sccello"], adata.obsm["X_sccello"])
    assert found.uns["X_sccello"].items() <= adata.uns["X_sccello"].items()
    for key in ("sccello_n_tokens", "sccello_truncated"):
        assert found.obs[key].tolist() == adata.obs[key].tolist()
    assert found.obs_names.tolist() == adata.obs_names.tolist()
    with pytest.warns(UserWarning, match="annotated without marker evidence"):  # no counts
        sccello.tl.annotate_novel(found)
    sccello.tl.annotate_novel(adata, evidence=("embedding", "ontology"))
    assert found.obs["sccello_cell_type"].tolist() == adata.obs["sccello_cell_type"].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # anndata, of options of pandas
        found.write_h5ad(tmp_path / "found.h5ad")


def test_a_corpus_gives_the_rows_of_its_counts(adata, tiny_model_folder, tmp_path):
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(
        ["CL:0000084", None, "CL:0000236"] * 10
    )
    adata.write_h5ad(tmp_path / "a.h5ad")
    sccello.pp.build_corpus(tmp_path / "a.h5ad", tmp_path / "corpus", cells_per_shard=7)
    cells = embed(tmp_path / "corpus", tmp_path / "out", tiny_model_folder)
    sccello.tl.embed(adata, model=tiny_model_folder, **EXACT)
    labelled = [i for i in range(30) if i % 3 != 1]
    close(cells[:], adata.obsm["X_sccello"][labelled])
    assert cells.obs["source_row"].tolist() == labelled
    assert set(cells.obs["source"]) == {"a"}
    assert cells.obs.index[1] == "a:2"


def test_collections_stand_for_their_files(files, tiny_model_folder, tmp_path, adata, write_zarr):
    zarr = pytest.importorskip("zarr")
    collection = tmp_path / "collection.zarr"
    group = zarr.open_group(collection, mode="w", zarr_format=2)
    group.attrs.update({"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"})
    for i in (0, 1, 10, 2):
        write_zarr(adata[i : i + 3].copy(), collection / f"dataset_{i}")
    cells = embed(collection, tmp_path / "out", tiny_model_folder)
    assert [f.source for f in cells.manifest.inputs] == [
        f"collection/dataset_{i}" for i in (0, 1, 2, 10)
    ]
    assert len(cells) == 12
    folder = tmp_path / "folder"
    folder.mkdir()
    files[0].rename(folder / "x.h5ad")
    files[1].rename(folder / "y.h5ad")
    assert len(embed(folder, tmp_path / "out2", tiny_model_folder)) == 40


@pytest.mark.parametrize("form", ["10x-2", "10x-3", "mtx", "h5mu"])
def test_other_file_types_give_the_same_rows(form, adata, tiny_model_folder, tmp_path, expected):
    from .test_read import write_10x_h5, write_h5mu, write_mtx

    path = tmp_path / "in"
    if form.startswith("10x"):
        write_10x_h5(adata, path, int(form[-1]))
    elif form == "mtx":
        write_mtx(adata, path)
    else:
        write_h5mu(adata, path)
        path = path / "rna"
    cells = embed(path, tmp_path / "out", tiny_model_folder)
    close(cells[:], expected[:30])
    assert cells.obs.index.tolist() == adata.obs_names.tolist()
    file = path if path.exists() else path.parent
    os.utime(file, ns=(1, 1))
    if form != "mtx":
        with pytest.raises(FilesError, match="was changed"):
            embed(path, tmp_path / "out", tiny_model_folder)


# --- resuming


@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_an_interrupted_call_is_resumed(
    files, expected, tiny_model_folder, tmp_path, after, stop_after, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        del patch
        original = worker.write_rows
        stop_after(after)
        with pytest.raises(KeyboardInterrupt):
            embed(files, out, tiny_model_folder)
        monkeypatch.setattr(worker, "write_rows", original)
    before = sorted(path.name for path in out.glob("blocks/*.parquet"))
    assert len(before) == after
    with pytest.raises(FilesError, match=rf"{after} of 13 blocks are finished"):
        sccello.open_embedded(out)[:]
    names: list[str] = []

    def write(path, *args, **options):
        names.append(path.name)
        original(path, *args, **options)

    monkeypatch.setattr(worker, "write_rows", write)
    cells = embed(files, out, tiny_model_folder)
    assert len(names) == 13 - after
    assert not set(names) & set(before), "finished blocks are kept"
    close(np.asarray(cells), expected)
    embed(files, out, tiny_model_folder)
    assert len(names) == 13 - after, "a finished call does nothing again"


def test_inputs_can_be_added_at_the_end(files, expected, tiny_model_folder, tmp_path, written):
    out = tmp_path / "out"
    embed(files[:2], out, tiny_model_folder)
    n_before = len(written)
    close(embed(files, out, tiny_model_folder)[:], expected)
    assert len(written) == n_before + 2


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_block_is_written_again(files, expected, tiny_model_folder, tmp_path, damage):
    out = tmp_path / "out"
    embed(files, out, tiny_model_folder)
    block = out / "blocks" / "00000-000002.parquet"
    block.unlink() if damage == "gone" else block.write_bytes(block.read_bytes()[:-20])
    with pytest.raises(FilesError, match=r"00000-000002\.parquet is missing or damaged"):
        sccello.open_embedded(out)[:]
    close(np.asarray(embed(files, out, tiny_model_folder)), expected)


def test_flipped_bits_are_found_by_checksums(files, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    embed(files, out, tiny_model_folder)
    block = out / "blocks" / "00000-000002.parquet"
    group = pq.read_metadata(block).row_group(0)
    chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    chunk = chunks["embedding.list.element"]
    content = bytearray(block.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 10] ^= 1  # past the page header
    block.write_bytes(content)
    with pytest.raises(FilesError, match=r"00000-000002\.parquet is missing or damaged"):
        sccello.open_embedded(out)[:]


SCRIPT = """
import sys, time
from pathlib import Path
import sccello_tools as sccello
from sccello_tools.files import worker
write = worker.write_rows
def write_two(*args, **options):
    write(*args, **options)
    if len(list(Path(sys.argv[2]).glob("blocks/*.parquet"))) >= 2:
        time.sleep(600)  # until it is killed, however busy the machine is
worker.write_rows = write_two
sccello.embed_files(sys.argv[1], sys.argv[2], model=sys.argv[3], cells_per_block=4, device="cpu", precision="float32")
"""


def test_a_killed_process_loses_nothing(adata, tiny_model_folder, tmp_path):
    path, out = tmp_path / "a.h5ad", tmp_path / "out"
    adata.write_h5ad(path)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, path, out, tiny_model_folder])
    until = time.monotonic() + 300
    while len(list(out.glob("blocks/*.parquet"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p: p.stat().st_mtime_ns for p in out.glob("blocks/*.parquet")}
    assert 2 <= len(done) < 8
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    cells = embed(path, out, tiny_model_folder)
    assert done == {p: p.stat().st_mtime_ns for p in done}, "what was finished is kept"
    sccello.tl.embed(adata, model=tiny_model_folder, **EXACT)
    close(np.asarray(cells), adata.obsm["X_sccello"])


# --- bad input and faults


def test_arguments_are_checked_before_anything_is_written(files, tiny_model_folder, tmp_path):
    out = tmp_path / "out"

    def refuses(error: type[Exception], says: str, paths=files, **options) -> None:
        with pytest.raises(error, match=says):
            embed(paths, out, tiny_model_folder, **options)
        assert not out.exists()

    refuses(FileFormatError, r"none\.h5ad: file not found", tmp_path / "none.h5ad")
    refuses(ArgumentError, "No input files", [])
    refuses(ArgumentError, "Two inputs are named 'a'", [files[0], files[0]])
    refuses(ArgumentError, r"got AnnData.*write_h5ad", anndata.AnnData(np.ones((2, 2))))
    refuses(GeneMatchError, "5,000", min_matched=5000)
    refuses(NotCountsError, r"has no layers\['counts'\]", layer="counts")
    refuses(ArgumentError, r"n_workers.*got 0", n_workers=0)
    refuses(BackendError, "tpu9", device="tpu9")
    refuses(BackendError, "CUDA", attention="torch_varlen")
    refuses(ArgumentError, r"\[2, 256\].*got 257", max_length=257)
    refuses(ArgumentError, r"cells_per_block.*got 0", cells_per_block=0)
    refuses(ArgumentError, "'cells'", representation="cells")
    refuses(ArgumentError, "'checked'", counts="checked")
    refuses(ArgumentError, "'ignore'", errors="ignore")


def test_other_arguments_and_changed_inputs_are_refused(files, tiny_model_folder, tmp_path, adata):
    out = tmp_path / "out"
    embed(files, out, tiny_model_folder)
    with pytest.raises(FilesError, match=r"max_length was 256 and is now 99"):
        embed(files, out, tiny_model_folder, max_length=99)
    with pytest.raises(FilesError, match=r"the inputs were .*added at the end"):
        embed(files[::-1], out, tiny_model_folder)
    adata.obs["more"] = 1
    adata.write_h5ad(files[0])
    with pytest.raises(FilesError, match=r"a\.h5ad was changed since .*delete 00000-"):
        embed(files, out, tiny_model_folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(FilesError, match=r"is not empty \(thesis\.tex\)"):
        embed(files, tmp_path / "other", tiny_model_folder)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_input_that_changes_during_the_call_is_refused(
    files, tiny_model_folder, tmp_path, monkeypatch
):
    original = worker.write_rows

    def and_touch(*args, **options):
        original(*args, **options)
        os.utime(files[0], ns=(1, 1))

    monkeypatch.setattr(worker, "write_rows", and_touch)
    with pytest.raises(FilesError, match="was changed while it was processed"):
        embed(files, tmp_path / "out", tiny_model_folder)


def test_two_calls_do_not_write_to_one_folder(files, tiny_model_folder, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(FilesError, match="Another call is writing to"),
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


def test_a_full_disk_is_reported_and_the_call_resumed(
    files, expected, tiny_model_folder, tmp_path, tiny_disk
):
    out, filler = tiny_disk / "out", tiny_disk / "filler"
    filler.write_bytes(b"x" * 80_000)
    with pytest.raises(OutputError, match="No space left"):
        embed(files, out, tiny_model_folder, cells_per_block=1)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    close(np.asarray(embed(files, out, tiny_model_folder, cells_per_block=1)), expected)


def test_a_bad_file_is_reported_and_the_others_are_embedded(
    files, adata, tiny_model_folder, tmp_path, expected
):
    bad = adata.copy()
    bad.X[25] = bad.X[25] * 0.5
    bad.write_h5ad(files[1])
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(files[0].read_bytes()[:3000])
    paths = [files[0], files[1], cut, files[2]]
    with pytest.raises(FileFormatError, match=r"cut\.h5ad is incomplete"):
        embed(paths, tmp_path / "out", tiny_model_folder)
    with pytest.warns(UserWarning, match="2 files failed .*b: .*fractions.*cut: .*incomplete"):
        cells = embed(paths, tmp_path / "out", tiny_model_folder, errors="report")
    assert cells.shape == (35, 16)
    assert list(cells.failures) == ["b", "cut"]
    close(cells[:], np.concatenate([expected[:30], expected[40:]]))
    assert set(cells.obs["source"]) == {"a", "c"}
    # the mended files are embedded by the next call, and nothing else
    adata.write_h5ad(cut)
    with pytest.warns(UserWarning, match="1 files failed"):
        assert len(embed(paths, tmp_path / "out", tiny_model_folder, errors="report")) == 65
    assert sccello.open_embedded(tmp_path / "out").failures.keys() == {"b"}


def test_damaged_sparse_matrices_are_refused(files, tiny_model_folder, tmp_path):
    with h5py.File(files[0], "r+") as file:
        pointers = file["X/indptr"][:]
        pointers[12] = pointers[14] + 3
        file["X/indptr"][...] = pointers
    with pytest.raises(SparseStructureError, match="decrease"):
        embed(files[0], tmp_path / "out", tiny_model_folder)
    with h5py.File(files[1], "r+") as file:
        file["X/indices"][3] = 10_000
    with pytest.raises(SparseStructureError, match="10,000"):
        embed(files[1], tmp_path / "out2", tiny_model_folder)


def test_only_gene_expression_counts(adata, tiny_model_folder, tmp_path, expected):
    antibodies = anndata.AnnData(
        sparse.csr_matrix(np.full((30, 3), 50, dtype=np.float32)),
        obs=adata.obs[[]],
        var=pd.DataFrame({"feature_types": "Antibody Capture"}, index=["CD4", "CD8A", "CD19"]),
    )
    adata.var["feature_types"] = "Gene Expression"
    both = anndata.concat([adata, antibodies], axis=1)
    both.var["feature_types"] = [*adata.var["feature_types"], *antibodies.var["feature_types"]]
    both.X = sparse.csr_matrix(both.X)
    both.write_h5ad(tmp_path / "both.h5ad")
    with pytest.warns(UserWarning, match=r"both\.h5ad: 3 of 903 .*'Antibody Capture'") as caught:
        cells = embed([tmp_path / "both.h5ad"], tmp_path / "out", tiny_model_folder)
    assert len(caught) == 1
    close(cells[:], expected[:30])


def test_half_precision_and_legacy_names_are_read(adata, tiny_model_folder, tmp_path, expected):
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file["X/data"] = values.astype(np.float16)
        index = file["var"].attrs["_index"]
        names = [n.encode() for n in adata.var_names]
        del file[f"var/{index}"]
        file[f"var/{index}"] = np.array(names)
    close(embed(path, tmp_path / "out", tiny_model_folder)[:], expected[:30])


def test_cells_without_tokens_are_nan_and_counted(adata, tiny_model_folder, tmp_path):
    x = adata.X.tolil()
    x[[2, 11]] = 0
    adata.X = x.tocsr()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="2 of 30 cells"):
        cells = embed(tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder)
    assert np.flatnonzero(np.isnan(np.asarray(cells)).any(axis=1)).tolist() == [2, 11]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "manifest.json not found"),
        ("{", "manifest.json cannot be read"),
        ("[]", "manifest.json cannot be read"),
        ('{"schema_version": 9}', "schema version 9.*reads 2"),
    ],
)
def test_a_folder_without_embeddings(tmp_path, text, says):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FilesError, match=says):
        sccello.open_embedded(tmp_path)


def test_repeated_names_become_positions(adata, tiny_model_folder, tmp_path):
    adata.obs_names = ["same"] * adata.n_obs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata, of names that repeat
        adata.write_h5ad(tmp_path / "a.h5ad")
    cells = embed(tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder)
    assert cells.obs.index.tolist() == [f"a:{i}" for i in range(30)]


def test_a_missing_extra_comes_back_from_another_process():
    error = MissingExtraError("embed_files", extra="scale")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
