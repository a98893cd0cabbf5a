"""Cells of one step, laid out flat."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Position(NamedTuple):
    """Where a stream of batches stands: the batch that comes next."""

    epoch: int = 0
    group: int = 0
    """Which filling of the buffer."""
    batch: int = 0
    """Which batch of that filling."""


_START = Position()


class Batch(NamedTuple):
    """Cells laid out flat."""

    ids: torch.Tensor
    """(T,) int64 token ids."""
    cu_seqlens: torch.Tensor
    """(B + 1,) int32 bounds of the cells."""
    max_seqlen: int
    """Tokens of the longest cell."""
    cell_types: torch.Tensor
    """(B,) int64 index of each cell's type among the types of the run."""
    sources: torch.Tensor
    """(B,) int64 number of each cell's source."""
    rows: torch.Tensor
    """(B,) int64 row of each cell in its source."""
    position: Position = _START
    """Of a stream: the batch after this one."""


def pack_batch(
    cells: Sequence[NDArray[np.int32]],
    *,
    cell_types: NDArray[np.int64],
    sources: NDArray[np.int64],
    rows: NDArray[np.int64],
    cropped: bool,
    position: Position = _START,
) -> Batch:
    """Lay cells out flat, longest first.

    Parameters
    ----------
    cells
        Token ids of each cell.
    cell_types, sources, rows
        What :class:`Batch` says of them, shape (n_cells,) each.
    cropped
        Cut all cells to the length of the shortest.
    position
        The batch after this one.
    """
    if cropped:
        shortest = min(len(ids) for ids in cells)
        cells = [ids[:shortest] for ids in cells]
    lengths = np.array([len(ids) for ids in cells])
    # cells of equal length stand together, so that attention can take them at once
    order = np.argsort(-lengths, kind="stable")
    return Batch(
        ids=torch.from_numpy(np.concatenate([cells[i] for i in order]).astype(np.int64)),
        cu_seqlens=torch.from_numpy(
            np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int32)
        ),
        max_seqlen=int(lengths.max()),
        cell_types=torch.from_numpy(cell_types[order]),
        sources=torch.from_numpy(sources[order]),
        rows=torch.from_numpy(rows[order]),
        position=position,
    )
