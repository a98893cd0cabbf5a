"""Batches of a run: sampled from tokens in memory, or streamed from blocks of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from sccello_tools.errors import ConfigError
from sccello_tools.tokens import RaggedTokens

from .augment import Augmentation
from .batch import Batch, Position, pack_batch
from .sources import LabelledTokens
from .stream import BlockStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from .config import PretrainConfig
    from .sources import BlockSource


_AUGMENTATION = 1  # distinguishes the random numbers of augmentation from those of sampling


class _Draw(NamedTuple):
    """Cells of one batch."""

    sources: NDArray[np.int64]
    """(B,) source of each cell."""
    cells: NDArray[np.int64]
    """(B,) index of each cell in its source."""
    cropped: bool
    """Whether all cells are truncated to the shortest one."""
    seed: tuple[int, ...] = ()
    """Seed of the augmentation."""


class _TokenBatches(Dataset[Batch]):
    """Maps drawn cells to a packed batch."""

    def __init__(
        self, sources: Sequence[LabelledTokens], types: Sequence[str], config: PretrainConfig
    ) -> None:
        drawn = any(source.counts is not None for source in sources)
        self.augment = Augmentation(sources, config) if drawn else None
        index_of = {cell_type: index for index, cell_type in enumerate(types)}
        self.tokens = [source.tokens.truncate(config.max_length) for source in sources]
        self.types = [
            # types without any tokens are not among the types of the run, and never drawn
            np.array([index_of.get(t, -1) for t in source.cell_types], dtype=np.int64)
            for source in sources
        ]
        self.rows = [source.row_numbers for source in sources]

    def __getitem__(self, draw: _Draw) -> Batch:
        drawn = list(zip(draw.sources, draw.cells, strict=True))
        return pack_batch(
            self._tokens_of(draw),
            cell_types=np.array([self.types[source][cell] for source, cell in drawn]),
            sources=draw.sources,
            rows=np.array([self.rows[source][cell] for source, cell in drawn]),
            cropped=draw.cropped,
        )

    def _tokens_of(self, draw: _Draw) -> list[NDArray[np.int32]]:
        if self.augment is None:
            pairs = zip(draw.sources, draw.cells, strict=True)
            return [self.tokens[source][int(cell)] for source, cell in pairs]
        rng = np.random.default_rng(draw.seed)
        found: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)] * len(draw.cells)
        for source in np.unique(draw.sources):
            places = np.flatnonzero(draw.sources == source)
            augmented = self.augment(int(source), draw.cells[places], rng)
            for place, ids in zip(places, augmented, strict=True):
                found[place] = ids
        return found


class _WeightedBatches(Sampler[_Draw]):
    """Draws batches with replacement, sources by their weight and types by their balance.

    Batch ``i`` depends only on the seed, the rank and ``i``, so a resumed run draws the same batches. ``done`` returns the number of
    batches that were already trained on.
    """

    def __init__(
        self,
        sources: Sequence[LabelledTokens],
        config: PretrainConfig,
        done: Callable[[], int],
        rank: int = 0,
    ) -> None:
        self.config, self.done, self.rank = config, done, rank
        named = sum(config.source_weights.get(source.source, 0.0) for source in sources)
        unnamed = sum(
            len(source.tokens) for source in sources if source.source not in config.source_weights
        )
        weights = []
        for source in sources:
            within = _type_weights(source, config.balance)
            weight = config.source_weights.get(source.source)
            if weight is None:
                weight = (1 - named) * len(source.tokens) / unnamed
            weights.append(weight * within / within.sum())
        joined = np.concatenate(weights)
        if not joined.sum() > 0:
            msg = f"source_weights {config.source_weights} give every cell of {', '.join(s.source for s in sources)} zero probability"
            raise ConfigError(msg)
        self.probabilities = joined / joined.sum()
        sizes = [len(source.tokens) for source in sources]
        self.sources = np.repeat(np.arange(len(sources)), sizes)
        self.cells = np.concatenate([np.arange(n) for n in sizes])

    def __iter__(self) -> Iterator[_Draw]:
        for number in range(self.done(), len(self)):
            rng = np.random.default_rng(
                (self.config.seed, number, *([self.rank] if self.rank else []))
            )
            drawn = self.draw(rng, self.config.batch_cells)
            cropped = bool(rng.random() < self.config.crop)
            seed = (self.config.seed, number, self.rank, _AUGMENTATION)
            yield _Draw(self.sources[drawn], self.cells[drawn], cropped, seed)

    def __len__(self) -> int:
        # of the whole run: Lightning continues its count when a run is resumed
        return self.config.max_steps * self.config.accumulate

    def draw(self, rng: np.random.Generator, n_cells: int) -> NDArray[np.int64]:
        """Draw cells of all sources, numbered consecutively."""
        return rng.choice(len(self.cells), size=n_cells, p=self.probabilities)


def _type_weights(source: LabelledTokens, balance: float) -> NDArray[np.float64]:
    """Return the relative probability of each cell of a source; cells without tokens are never drawn."""
    _, index, counts = np.unique(source.cell_types, return_inverse=True, return_counts=True)
    weight = np.power(counts[index].astype(np.float64), -balance)
    return np.where(source.tokens.lengths > 0, weight, 0.0)


def is_streamed(sources: Sequence[BlockSource], config: PretrainConfig) -> bool:
    """Return whether a run streams its batches: from a corpus on disk, on request, or with ``batch_tokens``."""
    in_memory = all(isinstance(source, LabelledTokens) for source in sources)
    return not in_memory or bool(config.stream) or config.batch_tokens is not None


def sample_cells(
    sources: Sequence[BlockSource], types: Sequence[str], config: PretrainConfig, *, n_cells: int
) -> tuple[RaggedTokens, NDArray[np.str_]]:
    """Return tokens and types of cells sampled with the probabilities of training."""
    names = np.array(types)
    if is_streamed(sources, config):
        tokens, index = BlockStream(sources, types, config).sample(n_cells)
        return tokens, names[index]
    in_memory = [source for source in sources if isinstance(source, LabelledTokens)]
    sampler = _WeightedBatches(in_memory, config, done=lambda: 0)
    drawn = sampler.draw(np.random.default_rng(config.seed), min(n_cells, len(sampler.cells)))
    rows = [sampler.cells[drawn[sampler.sources[drawn] == k]] for k in range(len(in_memory))]
    tokens = RaggedTokens.concatenate(
        source.tokens.truncate(config.max_length).take(cells)
        for source, cells in zip(in_memory, rows, strict=True)
    )
    found = [source.cell_types[cells] for source, cells in zip(in_memory, rows, strict=True)]
    return tokens, np.concatenate(found)


class TokenDataModule(L.LightningDataModule):
    """Training batches sampled from labelled tokens in memory.

    Parameters
    ----------
    sources
        Labelled tokens; each has at least one cell with tokens.
    types
        Cell Ontology ids of the run, in the order of the model's prototypes.
    config
        Batch size, balance, seed.
    """

    def __init__(
        self, sources: Sequence[LabelledTokens], types: Sequence[str], config: PretrainConfig
    ) -> None:
        super().__init__()
        self.sources, self.types, self.config = sources, types, config
        self.names = tuple(source.source for source in sources)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the remaining batches up to ``max_steps``."""
        dataset = _TokenBatches(self.sources, self.types, self.config)
        rank = self.trainer.global_rank if self.trainer is not None else 0
        sampler = _WeightedBatches(self.sources, self.config, done=self._batches_done, rank=rank)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state stored in a checkpoint: the identity of the data."""
        n_processes = self.trainer.world_size if self.trainer is not None else 1
        return _identity(self.types, self.sources, n_processes)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run with other data or another number of processes."""
        _check_identity(state_dict, self.state_dict())

    def _batches_done(self) -> int:
        steps = self.trainer.global_step if self.trainer is not None else 0
        return steps * self.config.accumulate


class _StreamBatches(IterableDataset[Batch]):
    """Batches of a stream; each loader process iterates over the whole stream and packs its part."""

    def __init__(self, stream: BlockStream, start: Position) -> None:
        self.stream, self.start = stream, start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        i, n = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self.stream.batches(self.start, wanted=lambda number: number % n == i)


class StreamDataModule(L.LightningDataModule):
    """Training batches streamed from blocks of cells in memory or on disk.

    A checkpoint stores the position of each rank. The number of loader processes does not change the batches; each of them reads all
    blocks of its rank and holds its own buffer.

    Parameters
    ----------
    sources
        Cells in memory or on disk.
    types
        Cell Ontology ids of the run, in the order of the model's prototypes.
    config
        Size of batches and buffer, balance, seed.
    n_workers
        Number of processes per device that read and pack; 0 reads in the training process.
    """

    def __init__(
        self,
        sources: Sequence[BlockSource],
        types: Sequence[str],
        config: PretrainConfig,
        *,
        n_workers: int = 0,
    ) -> None:
        super().__init__()
        self.sources, self.types, self.config = sources, types, config
        self.names = BlockStream(sources, types, config).names
        self.position = Position()
        """The next batch; updated by a callback."""
        self._n_workers = n_workers

    @property
    def _part(self) -> tuple[int, int]:
        if self.trainer is None:
            return (0, 1)
        return (self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of all batches from the current position."""
        stream = BlockStream(self.sources, self.types, self.config, self._part)
        dataset = _StreamBatches(stream, self.position)
        return DataLoader(dataset, batch_size=None, num_workers=self._n_workers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state stored in a checkpoint: the identity of the data and the position of each rank."""
        positions: list[Any] = [tuple(self.position)]
        n = self._part[1]
        if n > 1:
            positions = [None] * n
            torch.distributed.all_gather_object(positions, tuple(self.position))
        return {**_identity(self.types, self.sources, n), "positions": positions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position of this rank; refuse the checkpoint of a run with other data or another number of processes."""
        rank, n = self._part
        _check_identity(state_dict, _identity(self.types, self.sources, n))
        self.position = Position(*state_dict["positions"][rank])


def _identity(
    types: Sequence[str], sources: Sequence[BlockSource], n_processes: int
) -> dict[str, Any]:
    return {
        "types": list(types),
        "sources": [source.identity for source in sources],
        "processes": n_processes,
    }


def _check_identity(stored: dict[str, Any], current: dict[str, Any]) -> None:
    differing = [
        f"{key}: {stored.get(key)} instead of {current[key]}"
        for key in current
        if stored.get(key) != current[key]
    ]
    if differing:
        msg = (
            f"The checkpoint belongs to a run with other data ({'; '.join(differing)}). "
            "Pass another checkpoint_dir, or the data of that run."
        )
        raise ConfigError(msg)
