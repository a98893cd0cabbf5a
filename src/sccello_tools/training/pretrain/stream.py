"""Streamed batches: blocks of cells are shuffled in a buffer, balanced and split into batches, from any position."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._logging import logger
from sccello_tools.errors import ConfigError, CorpusError
from sccello_tools.tokens import RaggedTokens

from .batch import START, Position, pack_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .batch import Batch
    from .config import PretrainConfig
    from .sources import BlockSource

MAX_REPEATS = 16
"""Maximum number of times a cell is repeated per epoch; more would fill a buffer with copies of one cell."""


class _Buffer(NamedTuple):
    """Cells that are shuffled together."""

    tokens: RaggedTokens
    cell_types: NDArray[np.int64]
    sources: NDArray[np.int64]
    rows: NDArray[np.int64]


class BlockStream:
    """An endless stream of batches.

    In each epoch the blocks of all sources are shuffled and distributed over the ranks. A rank reads blocks until its buffer is full,
    repeats or omits cells according to the weights of types and sources, shuffles them and splits them into batches. A batch depends
    only on the seed, its position and the rank, so a run can continue from any position with any number of loader processes.

    Parameters
    ----------
    sources
        Cells in memory or on disk.
    types
        Cell Ontology ids of the run, in the order of the model's prototypes.
    config
        Size of batches and buffer, balance, source weights, seed.
    part
        (rank, number of ranks).

    Raises
    ------
    CorpusError
        If there are fewer blocks than ranks.
    ConfigError
        If all cells have zero probability.
    """

    def __init__(
        self,
        sources: Sequence[BlockSource],
        types: Sequence[str],
        config: PretrainConfig,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._sources, self._config, self._part = sources, config, part
        self._index_of = {cell_type: index for index, cell_type in enumerate(types)}
        sizes = [source.block_sizes for source in sources]
        self._sizes = np.concatenate(sizes)
        self._block_of = [(k, block) for k, n in enumerate(sizes) for block in range(len(n))]
        named = [name for source in sources for name in source.block_sources]
        self.names = tuple(dict.fromkeys(named))
        number = {name: i for i, name in enumerate(self.names)}
        self._source_of = np.array([number[name] for name in named], dtype=np.int64)
        if len(self._sizes) < part[1]:
            msg = (
                f"{len(self._sizes)} blocks of cells are too few for {part[1]} processes. "
                "Build the corpus with smaller shards (cells_per_shard=), or train on fewer devices."
            )
            raise CorpusError(msg)
        self._repeats = _repeats(sources, self.names, types, config)

    def batches(
        self,
        position: Position = START,
        wanted: Callable[[int], bool] = lambda _: True,
    ) -> Iterator[Batch]:
        """Yield the batches from a position.

        Parameters
        ----------
        position
            The first batch.
        wanted
            Called with 0, 1, 2, ...; batches for which it returns False are skipped without being packed.
        """
        epoch, group, first = position
        number = 0
        while True:
            groups = self._groups(epoch)
            for g in range(group, len(groups)):
                buffer, drawn, cropped = self._fill(groups[g], epoch, g)
                for b in range(first, len(drawn)):
                    if wanted(number):
                        last = b + 1 == len(drawn)
                        after = Position(epoch, g, b + 1)
                        if last:
                            end = g + 1 == len(groups)
                            after = Position(epoch + 1) if end else Position(epoch, g + 1)
                        yield _packed(buffer, drawn[b], cropped=bool(cropped[b]), position=after)
                    number += 1
                first = 0
            epoch, group, first = epoch + 1, 0, 0

    def sample(self, n_cells: int) -> tuple[RaggedTokens, NDArray[np.int64]]:
        """Return tokens and types of the first cells of the stream."""
        parts: list[RaggedTokens] = []
        types: list[NDArray[np.int64]] = []
        groups = self._groups(0)
        for g, blocks in enumerate(groups):
            buffer, drawn, _ = self._fill(blocks, 0, g)
            cells = np.concatenate([np.empty(0, dtype=np.int64), *drawn])
            cells = cells[: n_cells - sum(map(len, parts))]
            parts.append(buffer.tokens.take(cells))
            types.append(buffer.cell_types[cells])
            if sum(map(len, parts)) >= n_cells:
                break
        return RaggedTokens.concatenate(parts), np.concatenate(types)

    def _groups(self, epoch: int) -> list[NDArray[np.int64]]:
        """Divide the shuffled blocks of an epoch into buffers of about equal size."""
        rng = np.random.default_rng((self._config.seed, epoch, 0))
        mine = rng.permutation(len(self._sizes))[self._part[0] :: self._part[1]]
        ends = np.cumsum(self._sizes[mine])
        n_groups = max(1, round(int(ends[-1]) / self._config.buffer_cells))
        borders = np.searchsorted(ends, ends[-1] * np.arange(1, n_groups) / n_groups)
        return [blocks for blocks in np.split(mine, borders) if len(blocks)]

    def _fill(
        self, blocks: NDArray[np.int64], epoch: int, group: int
    ) -> tuple[_Buffer, list[NDArray[np.int64]], NDArray[np.bool_]]:
        """Read blocks and return the cells of each batch and whether it is cropped."""
        rng = np.random.default_rng((self._config.seed, epoch, 1, group, self._part[0]))
        buffer = self._read(blocks)
        expected = self._repeats[buffer.sources, buffer.cell_types]
        times = np.floor(expected + rng.random(len(expected))).astype(np.int64)
        drawn = rng.permutation(np.repeat(np.arange(len(times)), times))
        lengths = buffer.tokens.lengths
        config = self._config
        if config.batch_tokens is None:
            n = -(-len(drawn) // config.batch_cells)
            batches = np.array_split(drawn, n) if n else []
        else:
            batches = []
            by_length = np.argsort(lengths[drawn], kind="stable")
            for bucket in np.array_split(by_length, config.length_buckets):
                cells = drawn[np.sort(bucket)]  # restore the random order
                batches += cut_by_tokens(cells, lengths[cells], config.batch_tokens)
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return buffer, batches, rng.random(len(batches)) < config.crop

    def _read(self, blocks: NDArray[np.int64]) -> _Buffer:
        tokens, types, sources, rows = [], [], [], []
        for block in blocks:
            k, within = self._block_of[block]
            cells = self._sources[k].read_block(within)
            index = np.array([self._index_of.get(t, -1) for t in cells.cell_types], dtype=np.int64)
            usable = np.flatnonzero((index >= 0) & (cells.tokens.lengths > 0))
            tokens.append(cells.tokens.truncate(self._config.max_length).take(usable))
            types.append(index[usable])
            sources.append(np.full(len(usable), self._source_of[block]))
            rows.append(cells.rows[usable])
        return _Buffer(
            RaggedTokens.concatenate(tokens),
            np.concatenate(types),
            np.concatenate(sources),
            np.concatenate(rows),
        )


def cut_by_tokens(
    cells: NDArray[np.int64], lengths: NDArray[np.int64], budget: int
) -> list[NDArray[np.int64]]:
    """Split cells, in order, into the fewest batches of about equal size that do not exceed a number of tokens.

    Parameters
    ----------
    cells
        Indices of the cells.
    lengths
        Number of tokens of each; at most ``budget``.
    budget
        Maximum number of tokens in a batch.
    """
    if not len(cells):
        return []
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    n = -(-total // budget)
    while True:
        # a cell belongs to the batch that contains its midpoint
        owner = ((ends - lengths / 2) * n / total).astype(np.int64)
        if np.bincount(owner, weights=lengths).max() <= budget or n >= len(cells):
            break
        n += max(1, n // 100)
    if np.bincount(owner, weights=lengths).max() > budget:
        owner = np.arange(len(cells))
    return np.split(cells, np.flatnonzero(np.diff(owner)) + 1)


def _packed(
    buffer: _Buffer, cells: NDArray[np.int64], *, cropped: bool, position: Position
) -> Batch:
    return pack_batch(
        [buffer.tokens[int(cell)] for cell in cells],
        cell_types=buffer.cell_types[cells],
        sources=buffer.sources[cells],
        rows=buffer.rows[cells],
        cropped=cropped,
        position=position,
    )


def _repeats(
    sources: Sequence[BlockSource],
    names: Sequence[str],
    types: Sequence[str],
    config: PretrainConfig,
) -> NDArray[np.float64]:
    """Return the average number of times a cell is drawn per epoch, by source and type, shape (n_sources, n_types).

    Types of a source are weighted by count to the power of (1 - balance), sources by ``source_weights``. The mean over all cells
    is 1, and the maximum is MAX_REPEATS.
    """
    counts = np.zeros((len(names), len(types)))
    index_of = {cell_type: i for i, cell_type in enumerate(types)}
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    for source in sources:
        for name, by_type in source.n_cells_of.items():
            found[name].update(by_type)
    for s, name in enumerate(names):
        for cell_type, n in found[name].items():
            counts[s, index_of[cell_type]] = n
    sizes = counts.sum(axis=1)
    weights = config.source_weights
    named = sum(weights.get(name, 0.0) for name in names)
    unnamed = sum(size for name, size in zip(names, sizes, strict=True) if name not in weights)
    source_weights = np.array([
        weights.get(name, (1 - named) * size / max(unnamed, 1))
        for name, size in zip(names, sizes, strict=True)
    ])  # fmt: skip
    within = np.where(counts > 0, np.maximum(counts, 1) ** (1 - config.balance), 0.0)
    within *= (source_weights / np.maximum(within.sum(axis=1), 1e-300))[:, None]
    if not within.sum() > 0:
        msg = f"source_weights {weights} give every cell of {', '.join(names)} zero probability"
        raise ConfigError(msg)
    wanted = within / within.sum() * counts.sum()  # cells per epoch
    per_cell = np.divide(wanted, counts, out=np.zeros_like(wanted), where=counts > 0)
    if per_cell.max() > MAX_REPEATS:
        logger.warning(
            "%d combinations of source and type are too rare for their weight; their cells are repeated %d times per epoch, the maximum",
            int((per_cell > MAX_REPEATS).sum()),
            MAX_REPEATS,
        )
    repeats: NDArray[np.float64] = np.minimum(per_cell, MAX_REPEATS)
    return repeats
