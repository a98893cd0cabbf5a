"""read_any and write_any: every supported type of file, and one clear error for every other."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING

import anndata
import h5py
import numpy as np
import pytest
from scipy import io, sparse

from sccello_tools._io import atomic_path, check_output
from sccello_tools.errors import ArgumentError, FileFormatError, OutputError, OutputExistsError
from sccello_tools.files import read_any, write_any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anndata import AnnData


@pytest.fixture
def h5ad(adata: AnnData, tmp_path: Path) -> Path:
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def write_10x_h5(adata: AnnData, path: Path, version: int = 3) -> Path:
    x = sparse.csr_matrix(adata.X)
    names = np.array([n.encode() for n in adata.var_names])
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        group["barcodes"] = np.array([n.encode() for n in adata.obs_names])
        group["data"], group["indices"], group["indptr"] = (
            x.data.astype(np.int32),
            x.indices,
            x.indptr,
        )
        group["shape"] = np.array(x.shape[::-1])
        if version == 3:
            features = group.create_group("features")
            features["id"], features["name"] = names, names
            features["feature_type"] = np.array([b"Gene Expression"] * len(names))
        else:
            group["genes"], group["gene_names"] = names, names
    return path


def write_mtx(adata: AnnData, folder: Path, *, compressed: bool = True, prefix: str = "") -> Path:
    folder.mkdir()
    end = ".gz" if compressed else ""
    opened: Callable[..., object] = gzip.open if compressed else open
    files = {
        "features.tsv": "".join(
            f"{n}\tsymbol{i}\tGene Expression\n" for i, n in enumerate(adata.var_names)
        ),
        "barcodes.tsv": "".join(f"{n}\n" for n in adata.obs_names),
    }
    for name, text in files.items():
        with opened(folder / f"{prefix}{name}{end}", "wt") as file:  # type: ignore[attr-defined]
            file.write(text)
    with opened(folder / f"{prefix}matrix.mtx{end}", "wb") as file:  # type: ignore[attr-defined]
        io.mmwrite(file, sparse.coo_matrix(adata.X.T.astype(np.int32)))
    return folder


def as_dense(adata: AnnData) -> np.ndarray:
    return adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)


# --- types that are supported


@pytest.mark.parametrize(
    "form", ["h5ad", "zarr", "10x-3", "10x-2", "mtx", "mtx.gz", "mtx-prefix", "h5mu"]
)
def test_supported_types_give_the_same_cells(
    form: str, adata: AnnData, tmp_path: Path, write_zarr: Callable[[AnnData, Path], None]
) -> None:
    path = tmp_path / "in"
    if form == "h5ad":
        adata.write_h5ad(path)  # the content decides, not the name
    elif form == "zarr":
        write_zarr(adata, path)
    elif form.startswith("10x"):
        write_10x_h5(adata, path, int(form[-1]))
    elif form.startswith("mtx"):
        write_mtx(
            adata, path, compressed=form == "mtx.gz", prefix="GSM1_" if form == "mtx-prefix" else ""
        )
    else:
        write_h5mu(adata, path)
        path = path / "rna"
    found = read_any(path)
    assert found.obs_names.tolist() == adata.obs_names.tolist()
    assert found.var_names.tolist() == adata.var_names.tolist()
    np.testing.assert_array_equal(as_dense(found), as_dense(adata))
    if form in {"10x-3", "mtx"}:
        assert set(found.var["feature_types"]) == {"Gene Expression"}


def write_h5mu(adata: AnnData, path: Path) -> None:
    """What mudata writes, without mudata: a header, then HDF5."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.attrs["encoding-type"] = "MuData"
        modalities = file.create_group("mod")
        anndata.io.write_elem(modalities, "rna", adata)
        anndata.io.write_elem(modalities, "prot", adata[:, :2].copy())
        anndata.io.write_elem(file, "obs", adata.obs)
        anndata.io.write_elem(file, "var", adata.var)
    with path.open("r+b") as raw:
        raw.write(b"MuData (format-version=0.1.0;creator=muon;)")


def test_half_precision_is_refused_or_read_as_it_is(adata: AnnData, h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file["X/data"] = values.astype(np.float16)
    try:
        found, message = read_any(h5ad), ""
    except FileFormatError as error:
        found, message = None, str(error)
    if found is None:
        assert re.search(r"float16.*float32", message)
    else:  # older versions of SciPy accept float16
        np.testing.assert_array_equal(found.X.data, adata.X.data)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_are_written_by_extension_and_replaced(
    adata: AnnData, tmp_path: Path, suffix: str
) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    path = tmp_path / f"out{suffix}"
    for n in (5, 7):
        write_any(adata[:n].copy(), path)
        assert read_any(path).n_obs == n
    assert path.is_dir() == (suffix == ".zarr")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ArgumentError, match=r"out\.loom.*\.h5ad"):
        write_any(adata, tmp_path / "out.loom")


# --- files that are repaired


def test_reserved_column_names_are_renamed(adata: AnnData, h5ad: Path, tmp_path: Path) -> None:
    adata.raw = adata.copy()
    adata.write_h5ad(h5ad)
    with h5py.File(h5ad, "r+") as file:
        for table, n_rows in ((file["raw/var"], adata.n_vars), (file["obs"], adata.n_obs)):
            index = table.attrs["_index"]
            if index == "_index":
                table.move("_index", "features")
                table.attrs["_index"] = "features"
            anndata.io.write_elem(table, "_index", np.array(["x"] * n_rows, dtype=object))
            table.attrs["column-order"] = ["_index"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_any(h5ad)
    said = [str(w.message) for w in caught if w.category is UserWarning]
    assert sorted(text.split("of ")[1].split(",")[0] for text in said) == ["obs", "raw.var"]
    found.write_h5ad(tmp_path / "again.h5ad")
    assert "index_column" in read_any(tmp_path / "again.h5ad").raw.var


def test_names_stored_as_bytes_are_decoded(adata: AnnData, h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        names = np.array([n.encode() for n in adata.var_names])
        for key in ("_index", "symbol"):
            if key in file["var"]:
                del file[f"var/{key}"]
            file[f"var/{key}"] = names
            file[f"var/{key}"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        file["var"].attrs["_index"], file["var"].attrs["column-order"] = "_index", ["symbol"]
    found = read_any(h5ad)
    assert found.var_names.tolist() == adata.var_names.tolist() == found.var["symbol"].tolist()


# --- files that are refused


def other_compression(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(values.shape)
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple(values.shape)
        made = h5py.h5d.create(
            file["X"].id, b"data", h5py.h5t.py_create(values.dtype), space, plist
        )
        made.write_direct_chunk((0,), zlib.compress(values.tobytes()), 0)


def unknown_encoding(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["uns"].create_dataset("pipeline", data=1).attrs["encoding-type"] = "martian"
        file["uns/pipeline"].attrs["encoding-version"] = "9"


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_compression, "pip install hdf5plugin"),
        (unknown_encoding, r"/uns/pipeline is stored in an encoding .*Update anndata"),
        (cut_off, r"is incomplete .*again"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("cells"), "not an HDF5 file"),
        (lambda path: path.unlink(), "file not found"),
    ],
)
def test_damaged_files_give_one_message(
    damage: Callable[[Path], object], says: str, h5ad: Path
) -> None:
    if damage is other_compression:
        pytest.importorskip("h5py")
        if any(name == "hdf5plugin" for name in sys.modules):
            pytest.skip("the filter is installed")
    damage(h5ad)
    with pytest.raises(FileFormatError, match=says) as caught:
        read_any(h5ad)
    assert str(h5ad) in str(caught.value)


def loom(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = np.ones((2, 3))
        file.create_group("row_attrs"), file.create_group("col_attrs")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cells.h5ad", "x")


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("in.loom", loom, r"loom file.*read_loom"),
        ("in.h5ad.gz", lambda p: p.write_bytes(gzip.compress(b"x")), r"gunzip"),
        ("in.zip", zipped, r"unzip"),
        ("in.rds", lambda p: p.write_bytes(gzip.compress(b"x")), r"R object.*writeH5AD"),
        ("in.csv", lambda p: p.write_text("a,b"), r"text table.*read_csv"),
        ("matrix.mtx", lambda p: p.write_text("%%MatrixMarket"), r"Pass the folder"),
        ("in", lambda p: p.mkdir(), r"neither a zarr store nor has a matrix\.mtx"),
        (
            "outs",
            lambda p: (p / "filtered_feature_bc_matrix").mkdir(parents=True),
            r"Pass .*filtered_feature_bc_matrix",
        ),
        ("in.h5", lambda p: h5py.File(p, "w").close(), r"obs and var are missing"),
        (
            "in.h5seurat",
            lambda p: h5py.File(p, "w").create_group("assays").file.close(),
            r"Seurat file",
        ),
    ],
)
def test_other_types_name_the_remedy(
    name: str, make: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(FileFormatError, match=says):
        read_any(tmp_path / name)


def test_mudata_names_its_modalities(adata: AnnData, tmp_path: Path) -> None:
    write_h5mu(adata, tmp_path / "in.h5mu")
    with pytest.raises(
        FileFormatError, match=r"MuData file with modalities .*'rna'.*in\.h5mu/prot"
    ):
        read_any(tmp_path / "in.h5mu")
    with pytest.raises(FileFormatError, match=r"no modality 'atac' \(modalities: .*'rna'"):
        read_any(tmp_path / "in.h5mu" / "atac")


def test_spatialdata_names_its_table(
    adata: AnnData, tmp_path: Path, write_zarr: Callable[..., None]
) -> None:
    zarr = pytest.importorskip("zarr")
    store = tmp_path / "in.zarr"
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.create_group("images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anndata.io.write_elem(group.create_group("tables"), "table", adata)
    with pytest.raises(
        FileFormatError, match=r"SpatialData store; pass its table .*tables/table"
    ) as caught:
        read_any(store)
    named = str(caught.value).split("'")[1]
    assert read_any(named).shape == adata.shape


def test_incomplete_matrix_folders(adata: AnnData, tmp_path: Path) -> None:
    folder = write_mtx(adata, tmp_path / "in", compressed=False)
    (folder / "barcodes.tsv").write_text("one\n")
    with pytest.raises(FileFormatError, match=r"900 features and 1 barcodes"):
        read_any(folder)
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(FileFormatError, match=r"no barcodes\.tsv"):
        read_any(folder)
    (folder / "b_matrix.mtx").touch()
    with pytest.raises(FileFormatError, match=r"2 matrices"):
        read_any(folder)


# --- outputs


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    both = (".h5ad", ".zarr")
    check_output(tmp_path / "new" / "out.h5ad", suffixes=both)
    assert (tmp_path / "new").is_dir()
    with pytest.raises(ArgumentError, match=r"'\.pdf'.*\.h5ad or \.zarr"):
        check_output(tmp_path / "out.pdf", suffixes=both)
    (tmp_path / "out.h5ad").write_text("old")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        check_output(tmp_path / "out.h5ad", suffixes=both)
    check_output(tmp_path / "out.h5ad", suffixes=both, overwrite=True)
    with pytest.raises(OutputExistsError, match="is a file"):
        check_output(tmp_path / "out.h5ad")
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(OutputExistsError, match="is a folder"):
        check_output(tmp_path / "folder.h5ad", suffixes=both, overwrite=True)
    with pytest.raises(OutputError, match=r"needs about .* free in"):
        check_output(tmp_path / "out", needed=1 << 60)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "out.h5ad" / "in" / "a file.h5ad", suffixes=both)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 60 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(disk)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


# zarr's buffers of the failed write, under Python 3.13
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_full_disk_keeps_the_previous_output(
    adata: AnnData, tiny_disk: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiny_disk / f"out{suffix}"
    if suffix == ".zarr":
        pytest.importorskip("zarr")
        path.mkdir()
        (path / "old").touch()
    else:
        path.write_text("old")
    adata.layers["noise"] = np.random.default_rng(0).random(adata.shape)
    for _ in range(2):
        with pytest.raises(
            OutputError, match=r"out\.\w+ cannot be written: No space left.*Free space.*kept"
        ):
            write_any(adata, path)
    assert (path / "old").exists() if suffix == ".zarr" else path.read_text() == "old"
    assert [p.name for p in tiny_disk.iterdir()] == [path.name]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o600)
    with atomic_path(path) as part:
        part.write_text("new")
    assert path.stat().st_mode & 0o777 == 0o600
