"""Batches of a corpus in random order with bounded memory, from any position on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import ArgumentError, CorpusError

from ._cells import CorpusCells

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from .corpus import Corpus


class ShuffledReader:
    """Batches of cells in random order, epoch after epoch.

    Blocks of rows are shuffled across the whole corpus, as many as fill the buffer are read, and the cells in it are shuffled. The
    order depends on the seed, the epoch and the sizes only, so a reader that is given the state of another goes on where that stood.

    Parameters
    ----------
    corpus
        What to read.
    seed
        Of the order.
    batch_cells
        Cells of a batch; the last of an epoch may hold fewer.
    buffer_cells
        Cells to hold in memory, rounded to whole blocks, at least one. More shuffle better.
    part
        ``(i, n)`` reads every n-th of the shuffled blocks, beginning with the i-th: one part for each of n processes.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> from sccello_tools.tokens import Corpus
    >>> folder = tempfile.mkdtemp()
    >>> cells = {"gene_token_ids": [[25426, i] for i in range(2, 12)], "cell_type": ["T cell"] * 10}
    >>> pq.write_table(pa.table(cells), f"{folder}/cells.parquet", row_group_size=2)
    >>> reader = Corpus.open(folder).shuffled(seed=0, batch_cells=4)
    >>> [len(batch) for batch in reader.epoch()]
    [4, 4, 2]
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        seed: int,
        batch_cells: int,
        buffer_cells: int = 16_384,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if min(batch_cells, buffer_cells) < 1:
            msg = f"batch_cells is {batch_cells} and buffer_cells {buffer_cells}; expected are at least 1"
            raise ArgumentError(msg)
        if not 0 <= part[0] < part[1] <= corpus.n_blocks:
            msg = (
                f"part is {part}; expected is (i, n) with 0 <= i < n <= {corpus.n_blocks:,}, the number of blocks. "
                "A corpus of so few blocks cannot be read by more processes: build it with smaller shards."
            )
            raise ArgumentError(msg)
        self._corpus, self._part = corpus, part
        self._seed, self._batch_cells, self._buffer_cells = seed, batch_cells, buffer_cells
        self._epoch, self._position = 0, 0

    def __iter__(self) -> Iterator[CorpusCells]:
        """Yield batches without end."""
        while True:
            yield from self.epoch()

    def epoch(self) -> Iterator[CorpusCells]:
        """Yield the batches of the current epoch that are left; the next epoch follows on the next call."""
        waiting: list[CorpusCells] = []
        n_waiting = 0
        for cells in self._buffers(self._position):
            waiting.append(cells)
            n_waiting += len(cells)
            if n_waiting < self._batch_cells:
                continue
            joined = waiting[0] if len(waiting) == 1 else CorpusCells.concatenate(waiting)
            n_full = n_waiting - n_waiting % self._batch_cells
            for start in range(0, n_full, self._batch_cells):
                self._position += self._batch_cells
                yield joined.take(np.arange(start, start + self._batch_cells))
            waiting = [joined.take(np.arange(n_full, n_waiting))]
            n_waiting -= n_full
        if n_waiting:
            self._position += n_waiting
            yield CorpusCells.concatenate(waiting)
        self._epoch, self._position = self._epoch + 1, 0

    def state_dict(self) -> dict[str, int | str]:
        """Return where the reader stands: after the last batch that it gave."""
        return {**self._identity(), "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Go on where another reader of the same corpus stood.

        Raises
        ------
        CorpusError
            If that reader had another corpus, seed or size, so that its position means nothing here.
        """
        differing = [
            f"{key} was {state.get(key)!r} and is now {value!r}"
            for key, value in self._identity().items()
            if state.get(key) != value
        ]
        if differing:
            msg = f"The saved position is of another reader: {'; '.join(differing)}. Open the same corpus with the same arguments."
            raise CorpusError(msg)
        self._epoch, self._position = int(state["epoch"]), int(state["position"])

    def _identity(self) -> dict[str, int | str]:
        return {
            "corpus": self._corpus.fingerprint,
            "seed": self._seed,
            "batch_cells": self._batch_cells,
            "buffer_cells": self._buffer_cells,
            "part": "{} of {}".format(*self._part),
        }

    def _buffers(self, position: int) -> Iterator[CorpusCells]:
        """Yield shuffled buffers of the current epoch, without the cells before a position."""
        for number, blocks in enumerate(self._groups()):
            n_cells = int(self._corpus.block_sizes[blocks].sum())
            if position >= n_cells:
                position -= n_cells
                continue
            rng = np.random.default_rng((self._seed, self._epoch, 1, number, self._part[0]))
            order = rng.permutation(n_cells)[position:]
            position = 0
            cells = [self._corpus.read_block(int(block)) for block in blocks]
            yield CorpusCells.concatenate(cells).take(order)

    def _groups(self) -> Iterator[NDArray[np.int64]]:
        """Blocks of the current epoch in random order, in groups that fill the buffer."""
        order = np.random.default_rng((self._seed, self._epoch, 0)).permutation(
            self._corpus.n_blocks
        )
        mine = order[self._part[0] :: self._part[1]]
        sizes = self._corpus.block_sizes[mine]
        first, held = 0, 0
        for i, size in enumerate(sizes):
            if i > first and held + size > self._buffer_cells:
                yield mine[first:i]
                first, held = i, 0
            held += int(size)
        if first < len(mine):
            yield mine[first:]
