"""Packed batches of training cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Position(NamedTuple):
    """Position in a stream of batches: the next batch."""

    epoch: int = 0
    group: int = 0
    """Index of the buffer within the epoch."""
    batch: int = 0
    """Index of the batch within the buffer."""


START = Position()


class Batch(NamedTuple):
    """Packed cells, sorted by decreasing length."""

    ids: torch.Tensor
    """(T,) int64 token ids."""
    cu_seqlens: torch.Tensor
    """(B + 1,) int32 boundaries of the cells."""
    max_seqlen: int
    """Number of tokens of the longest cell."""
    cell_types: torch.Tensor
    """(B,) int64 index of each cell's type among the types of the run."""
    sources: torch.Tensor
    """(B,) int64 index of each cell's source."""
    rows: torch.Tensor
    """(B,) int64 row of each cell in its source."""
    position: Position = START
    """In a stream: the batch after this one."""


def pack_batch(
    cells: Sequence[NDArray[np.int32]],
    *,
    cell_types: NDArray[np.int64],
    sources: NDArray[np.int64],
    rows: NDArray[np.int64],
    cropped: bool,
    position: Position = START,
) -> Batch:
    """Pack cells into a batch.

    Parameters
    ----------
    cells
        Token ids of each cell.
    cell_types, sources, rows
        Fields of :class:`Batch`, each of shape (n_cells,).
    cropped
        Truncate all cells to the length of the shortest one.
    position
        The next batch of the stream.
    """
    if cropped:
        shortest = min(len(ids) for ids in cells)
        cells = [ids[:shortest] for ids in cells]
    lengths = np.array([len(ids) for ids in cells])
    # adjacent cells of equal length can be processed by attention at once
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


def describe_cells(batch: Batch, names: Sequence[str]) -> str:
    """List the first cells of a batch by source and row, for messages."""
    rows: dict[str, list[int]] = {}
    for source, row in zip(batch.sources.tolist(), batch.rows.tolist(), strict=True):
        name = names[source] if source < len(names) else f"source {source}"
        rows.setdefault(name, []).append(row)
    parts = []
    for name, found in rows.items():
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        parts.append(f"{name} rows {', '.join(map(str, found[:5]))}{more}")
    return "; ".join(parts)
