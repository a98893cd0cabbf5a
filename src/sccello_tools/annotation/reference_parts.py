"""The cells of a reference, in parts that are searched one after the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._io import atomic_path, read_arrays, write_arrays
from sccello_tools.errors import ArgumentError, WeightsError

from .neighbors import nearest_cells, unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, Final

    from numpy.typing import NDArray

_HEADER: Final = "sccello_reference_part"
_EXACT_UP_TO = 50_000  # cells; for fewer, a matrix product is faster than building an index
# the index is approximate: this many times the neighbours are requested and ranked exactly
_SPARE = 3

NAME: Final = "cell"
"""Column with the names of the reference cells."""


class Neighbors(NamedTuple):
    """Nearest reference cells of some cells, nearest first; fewer than requested columns if the reference is smaller."""

    indices: NDArray[np.int64]
    """Reference row of each neighbour, -1 for cells with NaN, array of shape (n_cells, n_neighbors)."""
    distances: NDArray[np.float32]
    """Cosine distance, NaN for cells with NaN, array of shape (n_cells, n_neighbors)."""
    codes: NDArray[np.int32]
    """Label of each neighbour, -1 for cells with NaN, array of shape (n_cells, n_neighbors)."""


@dataclass(frozen=True, eq=False)
class ReferencePart:
    """Unit vectors of cells with their labels and annotation: in memory, or in files that are read for each search."""

    codes: NDArray[np.int32]
    """Label of each cell, array of shape (n_cells,)."""
    rows: NDArray[np.int64]
    """Row of each cell in the AnnData that it comes from, array of shape (n_cells,)."""
    n_rows: int
    """Number of cells of that AnnData."""
    points: NDArray[np.float16] | None
    """Unit vectors, array of shape (n_cells, d); None if they are in a file."""
    table: pd.DataFrame | None
    """Name and selected columns of ``obs`` of each cell; None if they are in a file."""
    path: Path | None = None
    """The file with the vectors; the table is next to it."""

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.codes)

    @classmethod
    def of(
        cls,
        points: NDArray[np.float32],
        codes: NDArray[np.integer] | None = None,
        *,
        table: pd.DataFrame | None = None,
    ) -> ReferencePart:
        """Index the cells of an AnnData in memory, without those that have NaN or code -1.

        Parameters
        ----------
        points
            Embedding of all cells of the AnnData, array of shape (n_rows, d).
        codes
            Label of each cell; all 0 by default.
        table
            Name and columns of each cell; see :func:`cell_table`.
        """
        all_codes = np.zeros(len(points), np.int32) if codes is None else codes.astype(np.int32)
        rows = np.flatnonzero(np.isfinite(points).all(axis=1) & (all_codes >= 0))
        table = pd.DataFrame(index=range(len(points))) if table is None else table
        return cls(
            all_codes[rows],
            rows,
            len(points),
            unit_rows(points[rows]).astype(np.float16),
            table.iloc[rows].reset_index(drop=True),
        )

    @classmethod
    def open(cls, folder: Path, name: str) -> ReferencePart:
        """Open the files that :meth:`save` wrote; vectors and table are read when they are needed."""
        path = folder / name
        if path.parent.resolve() != folder.resolve():
            msg = f"A part of the reference lies outside its folder ({name!r})."
            raise WeightsError(msg)
        try:
            arrays, metadata = read_arrays(path, header=_HEADER, names=("codes", "rows"))
            codes, rows, n_rows = arrays["codes"], arrays["rows"], int(metadata["n_rows"])
        except (KeyError, ValueError) as error:
            msg = f"{path} cannot be read ({error}). Build the reference again with tl.build_reference."
            raise WeightsError(msg) from error
        if not _table_path(path).exists():
            msg = f"{_table_path(path)} is missing. Build the reference again with tl.build_reference."
            raise WeightsError(msg)
        return cls(codes, rows, n_rows, None, None, path)

    def save(self, folder: Path) -> str:
        """Write into a folder, under a name made of the contents; return the name."""
        points, table = self.vectors(), self.annotation()
        hashed = hashlib.sha256(points.tobytes() + self.codes.tobytes() + self.rows.tobytes())
        hashed.update(table.to_csv().encode())
        path = folder / f"cells-{hashed.hexdigest()[:16]}.safetensors"
        if not path.exists():
            with atomic_path(_table_path(path)) as part:
                table.to_parquet(part)
            arrays: dict[str, NDArray[Any]] = {
                "points": points,
                "codes": self.codes,
                "rows": self.rows,
            }
            write_arrays(path, arrays, {"n_rows": self.n_rows}, header=_HEADER)
        return path.name

    def recoded(self, places: Sequence[int]) -> ReferencePart:
        """Return the part with label ``i`` renumbered to ``places[i]``."""
        return replace(self, codes=np.asarray(places, dtype=np.int32)[self.codes])

    def vectors(self) -> NDArray[np.float16]:
        """Return the unit vectors, from memory or from the file."""
        if self.points is not None:
            return self.points
        if self.path is None:
            msg = "A part needs points or a path"
            raise ArgumentError(msg)
        found: NDArray[np.float16] = read_arrays(self.path, header=_HEADER, names=("points",))[0][
            "points"
        ]
        return found

    def annotation(self) -> pd.DataFrame:
        """Return name and columns of each cell, from memory or from the file."""
        if self.table is not None:
            return self.table
        if self.path is None:
            msg = "A part needs a table or a path"
            raise ArgumentError(msg)
        return pd.read_parquet(_table_path(self.path))

    def nearest(
        self, unit: NDArray[np.float32], n_neighbors: int
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Return cosine distances and positions in this part of the nearest cells, nearest first."""
        vectors = unit_rows(self.vectors().astype(np.float32))  # rounding changed the lengths
        if len(vectors) <= _EXACT_UP_TO:
            return nearest_cells(unit, vectors, n_neighbors)
        return _by_index(unit, vectors, n_neighbors)


def cell_table(names: Sequence[str] | pd.Index, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return the table of a part: names of the cells and columns of ``obs``, texts as categories.

    Parameters
    ----------
    names
        Name of each cell.
    columns
        Columns to keep.
    """
    found: dict[str, Any] = {NAME: np.asarray(names, dtype=object)}
    for column, values in columns.items():
        found[column] = _texts_as_categories(values).reset_index(drop=True)
    return pd.DataFrame(found)


def search_parts(
    parts: Sequence[ReferencePart], points: NDArray[np.float32], n_neighbors: int
) -> Neighbors:
    """Find the nearest cells of all parts, with one part in memory at a time.

    Indices count the rows of the AnnData objects of the parts in order.

    Parameters
    ----------
    parts
        At least one part.
    points
        Array of shape (n_cells, d); rows with NaN have no neighbours.
    n_neighbors
        Number of neighbours.
    """
    usable = np.isfinite(points).all(axis=1)
    unit = unit_rows(points[usable])
    offsets = _offsets(parts)
    distances, indices, codes = [], [], []
    for part, offset in zip(parts, offsets):
        away, at = part.nearest(unit, n_neighbors)
        distances.append(away)
        indices.append(part.rows[at] + offset)
        codes.append(part.codes[at])
    near = np.concatenate(distances, axis=1)
    order = np.argsort(near, axis=1, kind="stable")[:, :n_neighbors]

    def filled(pieces: list[NDArray[Any]], missing: float, dtype: type) -> NDArray[Any]:
        column: NDArray[Any] = np.full((len(points), order.shape[1]), missing, dtype=dtype)
        column[usable] = np.take_along_axis(np.concatenate(pieces, axis=1), order, axis=1)
        return column

    return Neighbors(
        filled(indices, -1, np.int64),
        filled(distances, np.nan, np.float32),
        filled(codes, -1, np.int32),
    )


def annotation_of(parts: Sequence[ReferencePart], indices: NDArray[np.int64]) -> pd.DataFrame:
    """Return name and columns of reference cells, one row per distinct index, which is the row's label.

    Parameters
    ----------
    parts
        The parts that were searched.
    indices
        Indices of :func:`search_parts`; -1 is ignored.
    """
    wanted = np.unique(indices[indices >= 0])
    found = []
    for part, offset in zip(parts, _offsets(parts)):
        own = wanted[(wanted >= offset) & (wanted < offset + part.n_rows)]
        if not len(own):
            continue
        table = part.annotation().iloc[np.searchsorted(part.rows, own - offset)]
        found.append(table.set_index(pd.Index(own, name="index")))
    if not found:
        return parts[0].annotation().iloc[:0].rename_axis("index")
    return _concatenated(found)


def _concatenated(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables; the categories of a column are those of all of them."""
    joined = pd.concat(tables)
    for column in tables[0].columns:
        if column != NAME:
            joined[column] = _texts_as_categories(joined[column])
    return joined


def _texts_as_categories(values: pd.Series[Any]) -> pd.Series[Any]:
    """Convert a column of texts: objects, or strings as in pandas 3."""
    is_text = values.dtype == object or isinstance(values.dtype, pd.StringDtype)
    return values.astype("category") if is_text else values


def _offsets(parts: Sequence[ReferencePart]) -> list[int]:
    offsets: list[int] = np.cumsum([0, *(part.n_rows for part in parts)])[:-1].tolist()
    return offsets


def _table_path(path: Path) -> Path:
    return path.with_suffix(".parquet")


def _by_index(
    unit: NDArray[np.float32], vectors: NDArray[np.float32], n_neighbors: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    from pynndescent import NNDescent

    index = NNDescent(vectors, metric="cosine", n_neighbors=30, random_state=0)
    rows, _ = index.query(unit, k=min(_SPARE * n_neighbors, len(vectors)))
    away = 1 - np.einsum("ij,ikj->ik", unit, vectors[rows])
    order = np.argsort(away, axis=1, kind="stable")[:, :n_neighbors]
    distances = np.maximum(np.take_along_axis(away, order, axis=1), 0).astype(np.float32)
    return distances, np.take_along_axis(rows, order, axis=1)
