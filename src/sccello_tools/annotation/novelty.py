"""How unlike a cell is to every cell of the known types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_NEIGHBORS = 10
"""Nearest reference cells whose mean distance counts."""
_CHUNK = 2048  # cells at a time: 2,048 x 10,000 distances are 82 MB


@dataclass(frozen=True, eq=False)
class ReferenceCells:
    """A sample of the cells of each known type."""

    points: NDArray[np.float32]
    """(n_reference, d) unit vectors."""
    lengths: NDArray[np.float32]
    """(n_reference,) what they were divided by: with it, the cells can be learnt from again."""
    types: NDArray[np.intp]
    """(n_reference,) index of their type."""
    spread: NDArray[np.float32]
    """(n_types,) usual distance of a cell of that type to its neighbours here; the median over types where there were too few."""

    @classmethod
    def of(
        cls, points: NDArray[np.float32], types: NDArray[np.intp], n_types: int
    ) -> ReferenceCells:
        """Measure how close together the cells of each type lie.

        Parameters
        ----------
        points
            (n_reference, d), of any length; rows are brought to length 1.
        types
            (n_reference,) index of their type.
        n_types
            Number of types.
        """
        unit = unit_rows(points)
        distances, _ = nearest_cells(unit, unit, N_NEIGHBORS + 1)
        own = distances[:, 1:].mean(axis=1)  # a cell is its own nearest neighbour
        spread = np.full(n_types, np.nan)
        for index in np.unique(types):
            members = own[types == index]
            if len(members) > N_NEIGHBORS:
                spread[index] = np.median(members)
        usual = np.nanmedian(spread) if np.isfinite(spread).any() else np.median(own)
        filled = np.where(np.isfinite(spread), spread, usual)
        lengths = np.linalg.norm(points, axis=1).astype(np.float32)
        return cls(unit, lengths, types, np.maximum(filled, 1e-6).astype(np.float32))

    def novelty(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log2 of the distance to the nearest reference cells over what is usual for their type.

        0 for a cell that lies as close as the cells of its type do to each other; 1 for twice that distance. A type whose cells
        vary much so asks for more than one whose cells are alike.

        Parameters
        ----------
        points
            (n_cells, d); rows with NaN give NaN.
        """
        usable = np.isfinite(points).all(axis=1)
        scores = np.full(len(points), np.nan, dtype=np.float32)
        distances, nearest = nearest_cells(unit_rows(points[usable]), self.points, N_NEIGHBORS)
        usual = self.spread[self.types[nearest]].mean(axis=1)
        scores[usable] = np.log2(np.maximum(distances.mean(axis=1), 1e-6) / usual)
        return scores


def unit_rows(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring rows to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (points / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def nearest_cells(
    cells: NDArray[np.float32], reference: NDArray[np.float32], n_neighbors: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Cosine distances and rows of the nearest reference cells, nearest first; exact, as a matrix product."""
    n_neighbors = min(n_neighbors, len(reference))
    distances = np.empty((len(cells), n_neighbors), dtype=np.float32)
    rows = np.empty((len(cells), n_neighbors), dtype=np.intp)
    for start in range(0, len(cells), _CHUNK):
        part = slice(start, start + _CHUNK)
        away = 1 - cells[part] @ reference.T
        near = np.argpartition(away, n_neighbors - 1, axis=1)[:, :n_neighbors]
        found = np.take_along_axis(away, near, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        rows[part] = np.take_along_axis(near, order, axis=1)
        distances[part] = np.maximum(np.take_along_axis(found, order, axis=1), 0)
    return distances, rows
