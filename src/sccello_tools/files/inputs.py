"""Look into an h5ad or zarr file without reading it whole: its genes, labels, chosen columns and matrix."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools.corpus.manifest import Fingerprint
from sccello_tools.errors import (
    CorpusError,
    FileFormatError,
    GeneMatchError,
    LabelError,
    MissingExtraError,
    NotCountsError,
)
from sccello_tools.tokens import looks_like_counts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

RAW = "raw.X"  # name by which the matrix of .raw is asked for


@contextmanager
def open_store(path: Path) -> Iterator[Any]:
    """Open an h5ad file or a zarr folder for reading.

    Raises
    ------
    FileFormatError
        If there is none, or it is damaged, of another format, or breaks off while it is read.
    MissingExtraError
        If it is a zarr folder and zarr is not installed.
    """
    try:
        if path.is_dir():
            yield _open_zarr(path)
        else:
            import h5py

            with h5py.File(path, "r") as file:
                yield file
    except (OSError, KeyError) as error:
        msg = f"{path} cannot be read as h5ad or zarr ({error}). It may be damaged, cut off, or of another format."
        raise FileFormatError(msg) from error


def fingerprint_of(path: Path) -> Fingerprint:
    """Size and time of the last change of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in files]
    return Fingerprint(
        sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
    )


def frame_of(store: Any, path: Path, name: str) -> Any:
    """Return the group of ``obs`` or ``var``."""
    frame = store.get(name)
    if frame is None or not hasattr(frame, "keys") or "_index" not in frame.attrs:
        what = "no such table" if frame is None else "a table in the form of anndata older than 0.7"
        msg = f"{path} has {what} as {name!r}. Expected is AnnData on disk: read it with anndata and write it again."
        raise FileFormatError(msg)
    return frame


def n_cells_of(store: Any, path: Path) -> int:
    """Count the rows of ``obs``."""
    obs = frame_of(store, path, "obs")
    index = obs[obs.attrs["_index"]]
    # anndata 0.13 writes names that pandas 3 holds as strings as a group: values, and a mask of those that are missing
    return int((index["values"] if _is_group(index) else index).shape[0])


def gene_names(store: Any, path: Path, gene_ids: str | None, layer: str | None) -> list[str]:
    """Names of the matrix' columns: a column of ``var``, that of `pp.match_genes` if it is there, or the index.

    Raises
    ------
    GeneMatchError
        If the column is not there.
    """
    var = frame_of(store["raw"] if layer == RAW else store, path, "var")
    if gene_ids is None:
        gene_ids = _keys.GENE_ID if _keys.GENE_ID in var else var.attrs["_index"]
    elif gene_ids not in var:
        msg = f"{path}: var has no column {gene_ids!r} (columns: {_columns(var)}). Name one of them in gene_ids=, or leave it out."
        raise GeneMatchError(msg)
    values = read_column(var, gene_ids, 0, None)
    return ["" if pd.isna(name) else str(name) for name in values]


def matrix_of(store: Any, path: Path, layer: str | None) -> Any:
    """Return the matrix of counts as row_chunks takes it, still on disk.

    Raises
    ------
    NotCountsError
        If there is no such layer.
    """
    place = {None: "X", RAW: "raw/X"}.get(layer, f"layers/{layer}")
    if place not in store:
        names = ", ".join(map(repr, store["layers"])) if "layers" in store else ""
        msg = (
            f"{path} has no {place} (layers: {names or 'none'}). {_where_counts_are(store, place)}"
        )
        raise NotCountsError(msg)
    return _lazy(store[place])


def not_counts(store: Any, path: Path, layer: str | None, complaint: str) -> str:
    """Say that a matrix does not hold counts, and where they may be."""
    place = {None: "X", RAW: "raw/X"}.get(layer, f"layers/{layer}")
    return (
        f"{path}: {place} does not hold raw counts: {complaint}. {_where_counts_are(store, place)}"
    )


def labels_of(store: Any, path: Path, label_key: str, start: int, stop: int | None) -> NDArray[Any]:
    """Labels of some rows, "" where one is missing.

    Raises
    ------
    LabelError
        If the column is not there.
    """
    obs = frame_of(store, path, "obs")
    if label_key not in obs:
        msg = (
            f"{path}: obs has no column {label_key!r} (columns: {_columns(obs)}). "
            "Name the column that holds Cell Ontology ids in label_key=; see pp.map_cell_types for free-text labels."
        )
        raise LabelError(msg)
    return as_text(read_column(obs, label_key, start, stop), missing="")


def obs_kind(store: Any, path: Path, key: str) -> str:
    """Kind of a column of ``obs``: "string", "bool", "int64" or "float64".

    Raises
    ------
    CorpusError
        If the column is not there.
    """
    obs = frame_of(store, path, "obs")
    if key not in obs:
        msg = f"{path}: obs has no column {key!r} (columns: {_columns(obs)}). Every input must have the columns of obs_keys."
        raise CorpusError(msg)
    values = read_column(obs, key, 0, None if _is_group(obs[key]) else 1)
    kind = getattr(values.dtype, "kind", "O")
    return {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}.get(kind, "string")


def read_column(frame: Any, key: str, start: int, stop: int | None) -> Any:
    """Read some rows of a column, and of a categorical one its categories."""
    from anndata.io import read_elem

    column = frame[key]
    if "__categories" in frame and key in frame["__categories"]:  # anndata 0.7
        names = as_text(frame["__categories"][key][:], missing=None)
        return _decoded(column[start:stop], names)
    if not _is_group(column):
        return _numbers_or_text(column[start:stop])
    if column.attrs.get("encoding-type") == "categorical":
        return _decoded(column["codes"][start:stop], read_elem(column["categories"]))
    if "mask" not in column:
        msg = f"The column {key!r} is stored as {column.attrs.get('encoding-type')!r}, which cannot be read by rows. Store it as strings or numbers."
        raise CorpusError(msg)
    values, mask = _numbers_or_text(column["values"][start:stop]), column["mask"][start:stop]
    if not mask.any():
        return values
    if values.dtype.kind in "iu":
        return np.where(mask, np.nan, values)
    return np.where(mask, None, values.astype(object))


def _numbers_or_text(values: Any) -> Any:
    return values if values.dtype.kind in "biuf" else as_text(values, missing=None)


def as_text(values: Any, *, missing: str | None) -> NDArray[np.object_]:
    """Values as strings; each distinct value is turned once."""
    codes, distinct = pd.factorize(np.asarray(values, dtype=object))
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in distinct]
    found: NDArray[np.object_] = np.array([*texts, missing], dtype=object)[codes]
    return found


def _decoded(codes: Any, categories: Any) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=pd.Index(categories))


def _open_zarr(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        what = f"Reading {path}"
        raise MissingExtraError(what, extra="scale") from error
    return zarr.open_group(path, mode="r")


def _is_group(element: Any) -> bool:
    return hasattr(element, "keys")


def _lazy(element: Any) -> Any:
    if not _is_group(element):
        return element
    from anndata.io import sparse_dataset

    return sparse_dataset(element)


def _columns(frame: Any) -> str:
    names = [name for name in frame if name not in {frame.attrs["_index"], "__categories"}]
    return ", ".join(map(repr, sorted(names))) or "none"


def _where_counts_are(store: Any, tried: str) -> str:
    names = list(store["layers"]) if "layers" in store else []
    places = {"X": "layer=None", "raw/X": f"layer={RAW!r}"}
    places |= {f"layers/{name}": f"layer={name!r}" for name in names}
    ways = [
        way
        for place, way in places.items()
        if place != tried and place in store and looks_like_counts(_lazy(store[place]))
    ]
    if ways:
        return f"Raw counts are in: {', '.join(ways)}."
    return "No layer holds raw counts either. If these are estimated counts, pass counts='trust'."
