"""The cells of a reference, in parts that are searched one after the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import ArgumentError, WeightsError

from .novelty import nearest_cells, unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_EXACT_UP_TO = 50_000  # cells; a matrix product is faster than an index that has yet to be built
_SPARE = (
    3  # times as many neighbours are asked of the index, which is approximate, and ranked exactly
)


@dataclass(frozen=True, eq=False)
class ReferencePart:
    """Unit vectors of some cells with their labels: in memory, or in a file that is read for each search."""

    codes: NDArray[np.int32]
    """(n_cells,) label of each cell."""
    points: NDArray[np.float16] | None
    """(n_cells, d) unit vectors; ``None`` if they are in a file."""
    path: Path | None = None

    def __len__(self) -> int:
        """Cells of this part."""
        return len(self.codes)

    @classmethod
    def of(cls, points: NDArray[np.float32], codes: NDArray[np.intp]) -> ReferencePart:
        """Keep cells in memory."""
        return cls(codes.astype(np.int32), unit_rows(points).astype(np.float16))

    @classmethod
    def open(cls, folder: Path, name: str) -> ReferencePart:
        """Open a file that :meth:`save` wrote; only the labels are read."""
        from safetensors import SafetensorError, safe_open

        path = folder / name
        if path.parent.resolve() != folder.resolve():
            msg = f"A part of the reference lies outside its folder ({name!r})."
            raise WeightsError(msg)
        try:
            with safe_open(path, framework="numpy") as file:
                return cls(file.get_tensor("codes"), None, path)
        except (OSError, SafetensorError) as error:
            msg = f"{path} cannot be read ({error}). Build the reference anew with tl.build_reference."
            raise WeightsError(msg) from error

    def save(self, folder: Path) -> str:
        """Write into a folder, under a name made of the contents; return the name."""
        from safetensors.numpy import save_file

        points = self.vectors()
        digest = hashlib.sha256(points.tobytes() + self.codes.tobytes()).hexdigest()[:16]
        name = f"cells-{digest}.safetensors"
        if not (folder / name).exists():
            part = folder / f".{name}.part"
            save_file({"points": np.ascontiguousarray(points), "codes": self.codes}, part)
            part.replace(folder / name)
        return name

    def recoded(self, places: Sequence[int]) -> ReferencePart:
        """Return the part with label ``i`` renumbered to ``places[i]``."""
        codes = np.asarray(places, dtype=np.int32)[self.codes]
        return ReferencePart(codes, self.points, self.path)

    def vectors(self) -> NDArray[np.float16]:
        """Return the unit vectors, from memory or from the file."""
        if self.points is not None:
            return self.points
        from safetensors import safe_open

        if self.path is None:
            msg = "A part needs points or a path"
            raise ArgumentError(msg)
        with safe_open(self.path, framework="numpy") as file:
            found: NDArray[np.float16] = file.get_tensor("points")
        return found

    def nearest(
        self, unit: NDArray[np.float32], n_neighbors: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Cosine distances and labels of the nearest cells, nearest first."""
        vectors = self.vectors().astype(np.float32)
        if len(vectors) <= _EXACT_UP_TO:
            distances, rows = nearest_cells(unit, vectors, n_neighbors)
        else:
            distances, rows = _by_index(unit, vectors, n_neighbors)
        return distances, self.codes[rows]


def merge_nearest(
    parts: Sequence[ReferencePart], points: NDArray[np.float32], n_neighbors: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Search all parts, one in memory at a time, and keep the nearest cells of all."""
    unit = unit_rows(points)
    found = [part.nearest(unit, n_neighbors) for part in parts]
    distances = np.concatenate([distances for distances, _ in found], axis=1)
    codes = np.concatenate([codes for _, codes in found], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :n_neighbors]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(codes, order, axis=1)


def _by_index(
    unit: NDArray[np.float32], vectors: NDArray[np.float32], n_neighbors: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    from pynndescent import NNDescent

    index = NNDescent(vectors, metric="cosine", n_neighbors=30, random_state=0)
    rows, _ = index.query(unit, k=min(_SPARE * n_neighbors, len(vectors)))
    near = 1 - np.einsum("ij,ikj->ik", unit, vectors[rows])
    order = np.argsort(near, axis=1, kind="stable")[:, :n_neighbors]
    distances = np.maximum(np.take_along_axis(near, order, axis=1), 0).astype(np.float32)
    return distances, np.take_along_axis(rows, order, axis=1)
