"""Lazy access to the parts of a file of counts: names, columns of obs, and rows of its matrix."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools import _keys
from sccello_tools._anndata.counts import RAW
from sccello_tools._messages import quoted
from sccello_tools.errors import (
    CorpusError,
    FileFormatError,
    GeneMatchError,
    LabelError,
    NotCountsError,
)
from sccello_tools.tokens import Chunk, check_indices, looks_like_counts, row_chunks

from .read import as_text, locate, open_group, read_any, tenx_h5_features

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.corpus.manifest import ColumnKind

# rows of a sparse matrix, and values of a dense one, that are read at a time: about 30 and 70 MB
_ROWS: Final = 2048
_DENSE_VALUES: Final = 1 << 24
_KINDS: Final[dict[str, ColumnKind]] = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}


@contextmanager
def open_cells(path: Path) -> Iterator[CellFile]:
    """Open any supported file of counts.

    Raises
    ------
    FileFormatError
        If it is missing, damaged or of another type, or reading fails inside the ``with`` block.
    """
    location = locate(path)
    if location.kind == "10x-mtx":
        adata: Any = read_any(path)  # text: rows cannot be read without parsing all of it
        yield CellFile(path, {None: adata.X}, FrameTable(adata.obs), {None: FrameTable(adata.var)})
        return
    with open_group(location) as group:
        if location.kind == "10x-h5":
            obs = pd.DataFrame(index=pd.Index(as_text(group["barcodes"][:], missing="")))
            matrix = CsrOnDisk(group, (len(obs), int(group["shape"][0])))
            var = FrameTable(tenx_h5_features(group))
            yield CellFile(path, {None: matrix}, FrameTable(obs), {None: var})
            return
        places: dict[str | None, str] = {None: "X", RAW: "raw/X"}
        # since anndata 0.13, X is listed among the layers
        places |= {name: f"layers/{name}" for name in group.get("layers", ()) if name != "X"}
        var_of: dict[Any, DiskTable | FrameTable] = {None: DiskTable(group, "var", path)}
        if "raw/X" in group:
            var_of[RAW] = DiskTable(group["raw"], "var", path)
        matrices = {layer: group[place] for layer, place in places.items() if place in group}
        yield CellFile(path, matrices, DiskTable(group, "obs", path), var_of)


class CellFile(NamedTuple):
    """One open file of counts."""

    path: Path
    matrices: dict[str | None, Any]
    """Matrix on disk by name of the layer; None is ``X``."""
    obs: DiskTable | FrameTable
    var_of: dict[Any, DiskTable | FrameTable]
    """Table of the columns of ``X`` and the layers (None), and of ``raw.X``."""

    @property
    def n_cells(self) -> int:
        """Number of rows of ``obs``."""
        return self.obs.n_rows

    def var(self, layer: str | None) -> DiskTable | FrameTable:
        """Return the table of a matrix's columns."""
        return self.var_of[RAW if layer == RAW and RAW in self.var_of else None]

    def gene_names(self, layer: str | None, gene_ids: str | None) -> list[str]:
        """Return the gene name of each column, "" for columns that are not genes.

        Raises
        ------
        GeneMatchError
            If ``gene_ids`` is not a column.
        """
        var = self.var(layer)
        if gene_ids is None:
            gene_ids = _keys.GENE_ID if _keys.GENE_ID in var.columns else None
        elif gene_ids not in var.columns:
            msg = f"{self.path}: var has no column {gene_ids!r} (columns: {_listed(var.columns)}). Pass one of them as gene_ids=, or omit it."
            raise GeneMatchError(msg)
        if gene_ids is None:
            return list(map(str, var.index(0, None)))
        values = np.asarray(var.column(gene_ids, 0, None), dtype=object)
        # in the stored match, a missing value, as after a concatenation, means "not matched yet"
        other: Any = var.index(0, None) if gene_ids == _keys.GENE_ID else [""] * len(values)
        return [str(o) if pd.isna(v) else str(v) for v, o in zip(values, other)]

    def feature_types(self, layer: str | None) -> NDArray[np.object_] | None:
        """Return the feature type of each column, None if the file does not say."""
        var = self.var(layer)
        for name in ("feature_types", "feature_type"):
            if name in var.columns:
                return as_text(np.asarray(var.column(name, 0, None), dtype=object), missing="")
        return None

    def matrix(self, layer: str | None) -> Any:
        """Return a matrix that is still on disk.

        Raises
        ------
        NotCountsError
            If it does not exist.
        FileFormatError
            If its number of rows is not that of ``obs``.
        """
        if layer not in self.matrices:
            names = [name for name in self.matrices if name not in {None, RAW}]
            msg = f"{self.path} has no {_place(layer)} (layers: {_listed(names)}). {self.where_counts_are(layer)}"
            raise NotCountsError(msg)
        matrix = _lazy(self.matrices[layer])
        if matrix.shape[0] != self.n_cells:
            msg = f"{self.path} has {self.n_cells:,} rows in obs but {matrix.shape[0]:,} in {_place(layer)}. It is damaged: write it again."
            raise FileFormatError(msg)
        return matrix

    def labels(self, label_key: str, start: int, stop: int | None) -> NDArray[np.object_]:
        """Return the labels of some rows, "" if missing.

        Raises
        ------
        LabelError
            If the column does not exist.
        """
        if label_key not in self.obs.columns:
            msg = (
                f"{self.path}: obs has no column {label_key!r} (columns: {_listed(self.obs.columns)}). "
                "Pass the column of Cell Ontology ids as label_key=; for free-text labels see pp.map_cell_types."
            )
            raise LabelError(msg)
        return as_text(self.obs.column(label_key, start, stop), missing="")

    def column_kind(self, key: str) -> ColumnKind:
        """Return the kind of a column of ``obs``.

        Raises
        ------
        CorpusError
            If the column does not exist.
        """
        if key not in self.obs.columns:
            msg = f"{self.path}: obs has no column {key!r} (columns: {_listed(self.obs.columns)}). Every input must have the columns of obs_keys."
            raise CorpusError(msg)
        return _KINDS.get(getattr(self.obs.column(key, 0, None).dtype, "kind", "O"), "string")

    def not_counts(self, layer: str | None, complaint: str) -> NotCountsError:
        """Return the error for a matrix that does not hold raw counts."""
        return NotCountsError(
            f"{self.path}: {_place(layer)} does not hold raw counts: {complaint}. {self.where_counts_are(layer)}"
        )

    def where_counts_are(self, tried: str | None) -> str:
        """Name the matrices that hold raw counts and how to select them."""
        ways = [
            f"layer={name!r}"
            for name, matrix in self.matrices.items()
            if name != tried and looks_like_counts(_lazy(matrix))
        ]
        if ways:
            return f"Raw counts are available with {' or '.join(ways)}."
        return (
            "No other matrix holds raw counts. If these are estimated counts, pass counts='trust'."
        )


def rows_of(matrix: Any, start: int, stop: int) -> Iterator[Chunk]:
    """Iterate over consecutive rows of a matrix whose rows can be read independently."""
    dense = not hasattr(matrix, "format")
    step = max(1, min(_ROWS, _DENSE_VALUES // max(1, matrix.shape[1]))) if dense else _ROWS
    for first in range(start, stop, step):
        for chunk in row_chunks(matrix[first : min(first + step, stop)], n_rows=step):
            yield chunk._replace(start=first + chunk.start)


def regrouped_rows(matrix: Any, spans: list[tuple[int, int]]) -> Iterator[list[Chunk]]:
    """For each span of rows, in ascending order, yield its rows of a CSC matrix, which is regrouped by rows once."""
    chunks = row_chunks(matrix, n_rows=min(_ROWS, max(stop - start for start, stop in spans)))
    held = next(chunks, None)
    for start, stop in spans:
        found = []
        while held is not None and held.start < stop:
            first, end = max(start, held.start), min(stop, held.start + held.rows.shape[0])
            if first < end:
                found.append(Chunk(first, held.rows[first - held.start : end - held.start]))
            if held.start + held.rows.shape[0] > stop:
                break
            held = next(chunks, None)
        yield found


class CsrOnDisk:
    """A CSR matrix of an HDF5 file or zarr store. A slice of rows reads only its own, contiguous part of the three arrays."""

    format = "csr"

    def __init__(self, group: Any, shape: tuple[int, int]) -> None:
        self.group, self.shape = group, shape
        self.dtype = group["data"].dtype

    def __getitem__(self, rows: slice) -> sparse.csr_array:
        start, stop, _ = rows.indices(self.shape[0])
        indptr = np.asarray(self.group["indptr"][start : stop + 1]).astype(np.int64)
        first, last = int(indptr[0]), int(indptr[-1])
        data, indices = self.group["data"][first:last], self.group["indices"][first:last]
        check_indices(indices, self.shape[1])
        if data.dtype == np.float16:  # not supported by SciPy
            data = data.astype(np.float32)
        parts = data, indices, indptr - first
        return sparse.csr_array(parts, shape=(stop - start, self.shape[1]))


class FrameTable:
    """A DataFrame with the interface of :class:`DiskTable`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.n_rows, self.columns = len(frame), list(frame.columns)

    def index(self, start: int, stop: int | None) -> NDArray[np.object_]:
        """Return the names of some rows."""
        return as_text(self._frame.index[start:stop], missing="")

    def column(self, key: str, start: int, stop: int | None) -> Any:
        """Return some rows of a column."""
        return np.asarray(self._frame[key])[start:stop]


class DiskTable:
    """``obs`` or ``var`` of an AnnData on disk."""

    def __init__(self, store: Any, name: str, path: Path) -> None:
        table = store.get(name)
        if table is None or not _is_group(table) or "_index" not in table.attrs:
            what = f"no {name}" if table is None else f"{name} in the format of anndata < 0.7"
            msg = f"{path} has {what}. Read it with anndata and write it again."
            raise FileFormatError(msg)
        self._table = table
        self._index = table.attrs["_index"]
        self.columns = [key for key in table if key not in {self._index, "__categories"}]
        index = table[self._index]
        # with pandas 3, anndata writes strings as a group of values and a mask
        self.n_rows = int((index["values"] if _is_group(index) else index).shape[0])

    def index(self, start: int, stop: int | None) -> NDArray[np.object_]:
        """Return the names of some rows."""
        return as_text(self.column(self._index, start, stop), missing="")

    def column(self, key: str, start: int, stop: int | None) -> Any:
        """Read some rows of a column, and all categories of a categorical one.

        Raises
        ------
        FileFormatError
            If it is stored in an encoding that cannot be read by rows.
        """
        from anndata.io import read_elem

        column = self._table[key]
        legacy = self._table.get("__categories")  # anndata 0.7
        if legacy is not None and key in legacy:
            names = pd.Index(as_text(legacy[key][:], missing=None))
            return pd.Categorical.from_codes(column[start:stop], categories=names)
        if not _is_group(column):
            return _numbers_or_text(column[start:stop])
        if column.attrs.get("encoding-type") == "categorical":
            categories: Any = read_elem(column["categories"])
            return pd.Categorical.from_codes(
                column["codes"][start:stop], categories=pd.Index(categories)
            )
        if "mask" not in column:
            msg = f"The column {key!r} is stored as {column.attrs.get('encoding-type')!r}, which cannot be read by rows. Store it as strings or numbers."
            raise FileFormatError(msg)
        values, mask = _numbers_or_text(column["values"][start:stop]), column["mask"][start:stop]
        if not mask.any():
            return values
        if values.dtype.kind in "iu":
            return np.where(mask, np.nan, values)
        return np.where(mask, None, values.astype(object))


def _numbers_or_text(values: Any) -> Any:
    return values if values.dtype.kind in "biuf" else as_text(values, missing=None)


def _is_group(element: Any) -> bool:
    return hasattr(element, "keys")


def _lazy(element: Any) -> Any:
    """Wrap a matrix on disk so that rows can be sliced."""
    if not _is_group(element):
        return element
    attrs = element.attrs
    kind = attrs.get("encoding-type", attrs.get("h5sparse_format"))  # the latter before anndata 0.7
    if kind in {"csr_matrix", "csr"}:
        shape = attrs.get("shape", attrs.get("h5sparse_shape"))
        return CsrOnDisk(element, (int(shape[0]), int(shape[1])))
    from anndata.io import sparse_dataset

    return sparse_dataset(element)


def _place(layer: str | None) -> str:
    return {None: "X", RAW: "raw.X"}.get(layer, f"layers[{layer!r}]")


def _listed(names: Any) -> str:
    return quoted(sorted(map(str, names)), at_most=10) or "none"
