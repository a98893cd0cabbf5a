"""Open files of counts: h5ad, zarr, Cell Ranger ``.h5`` and ``matrix.mtx`` folders; clear errors for everything else."""

from __future__ import annotations

import gzip
import shutil
import warnings
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
import pandas as pd

from sccello_tools._io import atomic_folder, atomic_path
from sccello_tools._messages import quoted
from sccello_tools.errors import ArgumentError, FileFormatError, MissingExtraError, ScCelloError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from anndata import AnnData

Kind = Literal["h5ad", "zarr", "10x-h5", "10x-mtx"]

SUPPORTED = "Supported are h5ad files, zarr stores of AnnData, Cell Ranger .h5 files and folders with matrix.mtx."
WRITABLE = (".h5ad", ".zarr")
"""Extensions that :func:`write_any` accepts."""

_NOT_COUNTS = {
    ".rds": "It is an R object: in R, convert it with zellkonverter::writeH5AD or sceasy.",
    ".h5seurat": "It is a Seurat file: in R, convert it with SeuratDisk::Convert(path, dest='h5ad').",
    ".csv": "It is a text table: read it with anndata.io.read_csv and write it with write_h5ad.",
    ".tsv": "It is a text table: read it with anndata.io.read_text and write it with write_h5ad.",
    ".txt": "It is a text table: read it with anndata.io.read_text and write it with write_h5ad.",
    ".mtx": "Pass the folder that holds it together with barcodes.tsv and features.tsv.",
    ".parquet": "It is a Parquet table; a corpus of tokens is passed as its folder.",
}


class Location(NamedTuple):
    """A file or folder, and a group inside of it."""

    path: Path
    """The file or folder on disk."""
    group: str
    """Group within an HDF5 file, such as ``"mod/rna"``; "" for its root."""
    kind: Kind


class TenxMatrix(NamedTuple):
    """Files of a Cell Ranger folder."""

    matrix: Path
    features: Path
    barcodes: Path


def locate(path: Path | str) -> Location:
    """Find out what a path is, from its content rather than its name.

    ``file.h5mu/rna`` is the modality ``rna`` of a MuData file.

    Raises
    ------
    FileFormatError
        If it does not exist or is not of a supported type. The message names the type found and what to pass instead.
    """
    path = Path(path)
    if not path.exists():
        for parent in path.parents:
            if parent.is_file():  # a modality inside a MuData file
                return Location(parent, *_inside_h5(parent, str(path.relative_to(parent))))
        msg = f"{path}: file not found. {SUPPORTED}"
        raise FileFormatError(msg)
    if path.is_dir():
        return Location(path, "", _kind_of_folder(path))
    import h5py

    if h5py.is_hdf5(path):  # mudata writes a header before the signature
        return Location(path, *_inside_h5(path, ""))
    with path.open("rb") as file:
        start = file.read(8)
    raise FileFormatError(_not_supported(path, start))


@contextmanager
def open_group(location: Location) -> Iterator[Any]:
    """Open an HDF5 file or a zarr store for reading and yield the group of ``location``.

    Raises
    ------
    FileFormatError
        If it is damaged, or reading from it fails inside the ``with`` block.
    MissingExtraError
        If zarr or a compression filter is needed and not installed.
    """
    with translated_errors(location.path):
        if location.kind == "zarr":
            yield import_zarr(location.path).open_group(location.path, mode="r")
        else:
            with _open_h5(location.path) as file:
                yield file[location.group] if location.group else file


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn the exceptions of h5py, zarr, anndata and SciPy about the content of a file into FileFormatError."""
    try:
        yield
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        EOFError,
        AttributeError,
    ) as error:
        if isinstance(error, ScCelloError) or (isinstance(error, OSError) and error.filename):
            raise  # about another file, or already clear
        raise FileFormatError(_why(path, error)) from error
    except Exception as error:  # anndata's error for unknown encodings derives from Exception alone
        if type(error).__name__ != "IORegistryError":
            raise
        raise FileFormatError(_why(path, error)) from error


def read_any(path: Path | str) -> AnnData:
    """Read a file of counts of any supported type into memory.

    Columns named ``_index``, which cannot be written again, are renamed with a warning; names stored as bytes are decoded. The genes of
    Cell Ranger files are indexed by their ids, with symbols in ``var["gene_symbols"]``.

    Parameters
    ----------
    path
        An h5ad file, a zarr store, a Cell Ranger ``.h5`` file, a folder with ``matrix.mtx``, or a modality ``file.h5mu/rna``.

    Raises
    ------
    FileFormatError
        If the file does not exist, is damaged, or is of another type. The message names the remedy.
    MissingExtraError
        If zarr is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> from sccello_tools.files import read_any
    >>> path = f"{tempfile.mkdtemp()}/pancreas.h5ad"
    >>> sccello.datasets.pancreas_tritschler().write_h5ad(path)
    >>> read_any(path).shape
    (583, 33053)
    """
    import anndata

    adata: AnnData
    location = locate(path)
    if location.kind == "10x-mtx":
        return _read_mtx(location.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # anndata, about older encodings
        warnings.filterwarnings("ignore", "Transforming to str index")  # repaired below
        with open_group(location) as group:
            if location.kind == "10x-h5":
                return _read_10x(group)
            if location.kind == "zarr":
                adata = anndata.io.read_zarr(location.path)
            elif location.group:
                adata = cast("AnnData", anndata.io.read_elem(group))
            else:
                adata = anndata.io.read_h5ad(location.path)
    _repair(adata, location.path)
    return adata


def write_any(adata: AnnData, path: Path) -> None:
    """Write an h5ad file or a zarr store, according to the extension, atomically.

    Raises
    ------
    ArgumentError
        If the extension is neither ``.h5ad`` nor ``.zarr``.
    OutputError
        If the disk is full or not writable; an existing file is kept.
    """
    if path.suffix == ".zarr":
        import_zarr(path)
        with atomic_folder(path) as part, warnings.catch_warnings():
            # anndata and zarr about each other's versions
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            adata.write_zarr(part)
    elif path.suffix == ".h5ad":
        with atomic_path(path) as part:
            if adata.isbacked or shutil.disk_usage(part.parent).free > 2 * adata.__sizeof__():
                adata.write_h5ad(part, compression="gzip")
            else:
                part.write_bytes(_as_h5ad(adata))
    else:
        msg = f"{path}: the extension must be one of {', '.join(WRITABLE)}"
        raise ArgumentError(msg)


def _as_h5ad(adata: AnnData) -> memoryview:
    """Return an AnnData as the bytes of an h5ad file, since HDF5 may crash when the disk that it writes to is full."""
    import h5py
    from anndata.io import write_elem

    image = BytesIO()
    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    with h5py.File(image, "w") as file:
        write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    return image.getbuffer()


def import_zarr(path: Path) -> Any:
    """Import zarr, an optional dependency."""
    try:
        import zarr
    except ImportError as error:
        what = f"{path}: zarr"
        raise MissingExtraError(what, extra="scale") from error
    return zarr


def _tenx_files(folder: Path) -> TenxMatrix:
    """Return the three files of a Cell Ranger or STARsolo folder.

    Raises
    ------
    FileFormatError
        If there is no matrix or more than one, or a companion file is missing.
    """
    matrices = sorted(
        p for p in folder.iterdir() if p.name.endswith(("matrix.mtx", "matrix.mtx.gz"))
    )
    if not matrices:
        inner = sorted(
            p
            for p in folder.iterdir()
            if p.name.startswith(("filtered_", "sample_filtered_", "cell_feature_matrix"))
        )
        if inner:
            msg = f"{folder} is an output folder of Cell Ranger. Pass {inner[0]}."
            raise FileFormatError(msg)
        msg = f"{folder} is a folder that is neither a zarr store nor has a matrix.mtx. {SUPPORTED}"
        raise FileFormatError(msg)
    if len(matrices) > 1:
        msg = f"{folder} has {len(matrices)} matrices ({', '.join(p.name for p in matrices[:5])}). Move each one, with its barcodes and features, to its own folder."
        raise FileFormatError(msg)
    prefix = matrices[0].name.split("matrix.mtx")[0]
    found = []
    for names in (("features.tsv", "genes.tsv"), ("barcodes.tsv",)):
        candidates = [folder / f"{prefix}{name}{end}" for name in names for end in ("", ".gz")]
        existing = next((path for path in candidates if path.is_file()), None)
        if existing is None:
            msg = f"{folder} has {matrices[0].name} but no {prefix}{names[0]}. Copy it from the output folder of the aligner."
            raise FileFormatError(msg)
        found.append(existing)
    return TenxMatrix(matrices[0], *found)


def tenx_features(path: Path) -> pd.DataFrame:
    """Read ``features.tsv`` or ``genes.tsv``: ids as index, ``gene_symbols`` and, if present, ``feature_types``."""
    table = pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)
    names = ["gene_ids", "gene_symbols", "feature_types"][: table.shape[1]]
    return table.iloc[:, : len(names)].set_axis(names, axis=1).set_index("gene_ids")


def as_text(values: Any, *, missing: str | None) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Return values as strings, bytes decoded; each distinct value is converted once."""
    codes, distinct = pd.factorize(np.asarray(values, dtype=object))
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in distinct]
    found: np.ndarray[Any, np.dtype[np.object_]] = np.array([*texts, missing], dtype=object)[codes]
    return found


def _kind_of_folder(path: Path) -> Kind:
    if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs")):
        with translated_errors(path):
            group = import_zarr(path).open_group(path, mode="r")
            keys, attrs = set(group.keys()), dict(group.attrs)
        if {"obs", "var"} <= keys and "mod" not in keys:
            return "zarr"
        raise FileFormatError(_not_anndata(path, group, keys, attrs))
    _tenx_files(path)  # raises an error for any other folder
    return "10x-mtx"


def _inside_h5(path: Path, inner: str) -> tuple[str, Kind]:
    """Return the group and kind of an HDF5 file, or of one of its modalities."""
    with translated_errors(path), _open_h5(path) as file:
        keys, attrs = set(file.keys()), dict(file.attrs)
        if inner:
            name = inner if inner in file else f"mod/{inner}"
            if name not in file or "obs" not in file[name]:
                found = (
                    f"modalities: {', '.join(map(repr, file['mod']))}"
                    if "mod" in keys
                    else "no modalities"
                )
                msg = f"{path} has no modality {inner!r} ({found})."
                raise FileFormatError(msg)
            return name, "h5ad"
        if "mod" in keys:
            raise FileFormatError(_not_anndata(path, file, keys, attrs))
        if {"obs", "var"} <= keys:
            return "", "h5ad"
        if "matrix" in keys and "barcodes" in getattr(file["matrix"], "keys", set)():
            return "matrix", "10x-h5"
        genomes = [
            key for key in keys if {"barcodes", "genes"} <= set(getattr(file[key], "keys", set)())
        ]
        if len(genomes) == 1:
            return genomes[0], "10x-h5"
        raise FileFormatError(_not_anndata(path, file, keys, attrs))


def _not_anndata(path: Path, group: Any, keys: set[str], attrs: dict[str, Any]) -> str:
    """Return the message for a readable store that does not hold one AnnData."""
    if "mod" in keys:
        names = list(group["mod"])
        first = names[0] if names else "rna"
        inner = f"{path}/mod/{first}" if path.is_dir() else f"{path}/{first}"
        return f"{path} is a MuData file with modalities {', '.join(map(repr, names))}. Name the one with gene expression: pass {inner!r}, or mdata[{first!r}] in Python."
    if "tables" in keys or "spatialdata_attrs" in attrs:
        tables = list(group["tables"]) if "tables" in keys else []
        advice = (
            f"pass its table {str(path / 'tables' / tables[0])!r}"
            if tables
            else "it has no table of counts"
        )
        return f"{path} is a SpatialData store; {advice}."
    if {"row_attrs", "col_attrs"} <= keys:
        return f"{path} is a loom file. Convert it: anndata.io.read_loom({str(path)!r}).write_h5ad('cells.h5ad')."
    if "cell.names" in keys or "assays" in keys:
        return f"{path}: {_NOT_COUNTS['.h5seurat']}"
    if attrs.get("encoding-type") and not keys & {"obs", "var"}:
        return f"{path} holds {attrs['encoding-type']!r}, not an AnnData. {SUPPORTED}"
    shown = quoted(sorted(keys)) or "nothing"
    return f"{path} does not hold an AnnData: obs and var are missing (found: {shown}). {SUPPORTED}"


def _not_supported(path: Path, start: bytes) -> str:
    """Return the message for a file that is not HDF5."""
    if not start:
        return f"{path} is empty (0 bytes). Copy or download it again."
    suffix = path.suffix.lower()
    if suffix in _NOT_COUNTS:
        return f"{path} cannot be read as AnnData. {_NOT_COUNTS[suffix]}"
    if start[:2] == b"\x1f\x8b":
        return f"{path} is compressed with gzip. Decompress it first: gunzip {path}"
    if start[:2] == b"PK":
        return f"{path} is a zip archive. Unpack it first: unzip {path}"
    if start[:4] == b"\x28\xb5\x2f\xfd" or start[:3] == b"BZh" or start[:6] == b"\xfd7zXZ\x00":
        return f"{path} is a compressed archive. Decompress it first."
    return f"{path} is not an HDF5 file: it may be damaged or of another type. {SUPPORTED}"


def _why(path: Path, error: Exception) -> str:
    """Return the message for a failure inside h5py, zarr, anndata or SciPy, with the remedy where one is known."""
    text = " ".join(str(error).split())
    at = _element(error)
    if "plugin" in text or ("filter" in text and ("required" in text or "not registered" in text)):
        return f"{path} is compressed with a filter that h5py does not include ({text[:120]}). Install it with: pip install hdf5plugin"
    if "No read method registered" in text or "IOSpec" in text:
        return f"{path}{at} is stored in an encoding that the installed anndata does not know ({text[:160]}). Update anndata, or delete this element and write the file again."
    if "float16" in text:
        return f"{path}{at} holds sparse float16 values, which SciPy does not support. Convert them with h5py: replace the dataset 'data' by data[:].astype('float32')."
    if "truncated" in text:
        return f"{path} is incomplete ({text}). Copy or download it again."
    return f"{path}{at} cannot be read ({text[:200]}). It may be damaged: copy or download it again, or write it again with anndata."


def _element(error: Exception) -> str:
    """Name the element that anndata was reading, from its note on the exception."""
    for note in getattr(error, "__notes__", []):
        if "while reading key" in note:
            key, parent = note.split("'")[1], note.rsplit("from ", 1)[-1]
            return f": {parent.rstrip('/')}/{key}" if key else ""
    return ""


def _open_h5(path: Path) -> Any:
    import importlib.util

    import h5py

    if importlib.util.find_spec("hdf5plugin"):  # registers further compression filters with HDF5
        importlib.import_module("hdf5plugin")
    return h5py.File(path, "r")


def _read_10x(group: Any) -> AnnData:
    """Read the matrix group of a Cell Ranger file."""
    from anndata import AnnData
    from scipy import sparse

    var = tenx_h5_features(group)
    shape = (int(group["shape"][1]), int(group["shape"][0]))
    parts = group["data"][:].astype(np.float32), group["indices"][:], group["indptr"][:]
    obs = pd.DataFrame(index=pd.Index(as_text(group["barcodes"][:], missing=""), dtype=object))
    return AnnData(sparse.csr_matrix(parts, shape=shape), obs=obs, var=var)


def tenx_h5_features(group: Any) -> pd.DataFrame:
    """Read the features of a Cell Ranger ``.h5`` file of version 2 or 3, in the form of :func:`tenx_features`."""
    features = group.get("features")
    if features is None:  # version 2
        columns = {"gene_symbols": group["gene_names"]}
        ids = group["genes"]
    else:
        columns = {"gene_symbols": features["name"], "feature_types": features["feature_type"]}
        ids = features["id"]
    table = {name: as_text(column[:], missing="") for name, column in columns.items()}
    return pd.DataFrame(table, index=pd.Index(as_text(ids[:], missing=""), name="gene_ids"))


def _read_mtx(folder: Path) -> AnnData:
    from anndata import AnnData

    files = _tenx_files(folder)
    with translated_errors(folder):
        var = tenx_features(files.features)
        opened = gzip.open if files.barcodes.suffix == ".gz" else open
        with opened(files.barcodes, "rt", encoding="utf-8") as lines:
            names = [line.rstrip("\r\n").split("\t")[0] for line in lines]
        matrix = read_mtx(files.matrix)
    if matrix.shape != (len(names), len(var)):
        msg = f"{files.matrix} has shape {matrix.shape[1]} x {matrix.shape[0]}, but there are {len(var)} features and {len(names)} barcodes. The files do not belong together."
        raise FileFormatError(msg)
    return AnnData(matrix, obs=pd.DataFrame(index=pd.Index(names, dtype=object)), var=var)


def read_mtx(path: Path) -> Any:
    """Read a matrix of features by cells as a CSR matrix of cells by features, float32."""
    from scipy import io, sparse

    return sparse.csr_matrix(sparse.csc_matrix(io.mmread(path)).T.astype(np.float32))


def _repair(adata: AnnData, path: Path) -> None:
    """Rename columns that cannot be written, and decode names that are bytes."""
    tables: dict[str, Any] = {"obs": adata.obs, "var": adata.var}
    if adata.raw is not None:
        tables["raw.var"] = adata.raw.var
    for name, table in tables.items():
        if "_index" in table:
            table.rename(columns={"_index": "index_column"}, inplace=True)  # noqa: PD002 - raw.var has no setter
            warnings.warn(
                f"{path}: the column '_index' of {name}, a reserved name, is renamed to 'index_column'.",
                UserWarning,
                stacklevel=3,
            )
        for column in table.columns:
            values = table[column]
            if values.dtype == object and any(isinstance(value, bytes) for value in values):
                table[column] = as_text(values, missing=None)
        if len(table) and all(str(name).startswith("b'") for name in table.index):  # str(bytes)
            table.index = pd.Index([str(name)[2:-1] for name in table.index], dtype=object)
