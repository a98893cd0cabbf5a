"""The batches of a run: drawn from labelled tokens in memory, or streamed from blocks of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from sccello_tools.errors import ConfigError
from sccello_tools.tokens import RaggedTokens

from .batch import Batch, Position, pack_batch
from .sources import LabelledTokens
from .stream import BlockStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from .config import PretrainConfig
    from .sources import BlockSource

__all__ = [
    "Batch",
    "LabelledTokens",
    "StreamDataModule",
    "TokenDataModule",
    "draw_cells",
    "streams",
]


class _Draw(NamedTuple):
    """What one step trains on."""

    cells: list[tuple[int, int]]
    """Source and row of each cell."""
    cropped: bool
    """Whether all are cut to the shortest."""


class _TokenBatches(Dataset[Batch]):
    """Maps a draw of (source, cell) pairs to a packed batch."""

    def __init__(
        self, sources: Sequence[LabelledTokens], types: Sequence[str], max_length: int
    ) -> None:
        index_of = {cell_type: index for index, cell_type in enumerate(types)}
        self.tokens = [source.tokens.truncate(max_length) for source in sources]
        self.types = [
            # a type of which no cell has tokens is not among those of the run, and never drawn
            np.array([index_of.get(t, -1) for t in source.cell_types], dtype=np.int64)
            for source in sources
        ]
        self.rows = [source.row_numbers for source in sources]

    def __getitem__(self, draw: _Draw) -> Batch:
        cells = draw.cells
        return pack_batch(
            [self.tokens[source][cell] for source, cell in cells],
            cell_types=np.array([self.types[source][cell] for source, cell in cells]),
            sources=np.array([source for source, _ in cells]),
            rows=np.array([self.rows[source][cell] for source, cell in cells]),
            cropped=draw.cropped,
        )


class _WeightedBatches(Sampler[_Draw]):
    """Draws batches with replacement: sources by their share, types by their balance.

    Batch ``i`` depends on the seed and ``i`` only, so a resumed run, which asks ``done`` where it stands, draws what it would have.
    In a parallel run each rank draws its own.
    """

    def __init__(
        self,
        sources: Sequence[LabelledTokens],
        config: PretrainConfig,
        done: Callable[[], int],
        rank: int = 0,
    ) -> None:
        self.config, self.done, self.rank = config, done, rank
        owners, weights = [], []
        named = sum(config.source_weights.get(source.source, 0.0) for source in sources)
        unnamed = sum(
            len(source.tokens) for source in sources if source.source not in config.source_weights
        )
        for number, source in enumerate(sources):
            within = _type_weights(source, config.balance)
            share = config.source_weights.get(source.source)
            if share is None:
                share = (1 - named) * len(source.tokens) / unnamed
            weights.append(share * within / within.sum())
            owners += [(number, cell) for cell in range(len(source.tokens))]
        self.owners = owners
        chances = np.concatenate(weights)
        if not chances.sum() > 0:
            msg = f"source_weights are {config.source_weights}: no cell of {[s.source for s in sources]} would ever be drawn"
            raise ConfigError(msg)
        self.probabilities = chances / chances.sum()

    def __iter__(self) -> Iterator[_Draw]:
        for number in range(self.done(), len(self)):
            rng = np.random.default_rng(
                (self.config.seed, number, *([self.rank] if self.rank else []))
            )
            drawn = rng.choice(len(self.owners), size=self.config.batch_cells, p=self.probabilities)
            cropped = bool(rng.random() < self.config.crop)
            yield _Draw([self.owners[i] for i in drawn], cropped)

    def __len__(self) -> int:
        # of the whole run: Lightning counts on from where a resumed run stood
        return self.config.max_steps * self.config.accumulate


def _type_weights(source: LabelledTokens, balance: float) -> NDArray[np.float64]:
    """Chance of each cell of a source; cells without tokens are never drawn."""
    _, index, counts = np.unique(source.cell_types, return_inverse=True, return_counts=True)
    chance = np.power(counts[index].astype(np.float64), -balance)
    return np.where(source.tokens.lengths > 0, chance, 0.0)


def streams(sources: Sequence[BlockSource], config: PretrainConfig) -> bool:
    """Say whether a run streams its batches: from a corpus on disk, on request, or for batches of equal tokens."""
    in_memory = all(isinstance(source, LabelledTokens) for source in sources)
    return not in_memory or bool(config.stream) or config.batch_tokens is not None


def draw_cells(
    sources: Sequence[BlockSource], types: Sequence[str], config: PretrainConfig, *, n_cells: int
) -> tuple[RaggedTokens, NDArray[np.str_]]:
    """Return tokens and types of cells drawn with the chances that training draws them with."""
    names = np.array(types)
    if streams(sources, config):
        tokens, index = BlockStream(sources, types, config).sample(n_cells)
        return tokens, names[index]
    held = [source for source in sources if isinstance(source, LabelledTokens)]
    chances = _WeightedBatches(held, config, done=lambda: 0)
    rng = np.random.default_rng(config.seed)
    drawn = rng.choice(
        len(chances.owners), size=min(n_cells, len(chances.owners)), p=chances.probabilities
    )
    rows = [
        np.array([chances.owners[i][1] for i in drawn if chances.owners[i][0] == k], dtype=np.int64)
        for k in range(len(held))
    ]
    tokens = RaggedTokens.concatenate(
        source.tokens.truncate(config.max_length).take(cells)
        for source, cells in zip(held, rows, strict=True)
    )
    kinds = [source.cell_types[cells] for source, cells in zip(held, rows, strict=True)]
    return tokens, np.concatenate(kinds)


class TokenDataModule(L.LightningDataModule):
    """Batches for pretraining, drawn from labelled tokens in memory.

    Parameters
    ----------
    sources
        Labelled tokens; at least one cell in each must have tokens.
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
        """Return the loader of the batches up to ``max_steps`` that are still to do."""
        dataset = _TokenBatches(self.sources, self.types, self.config.max_length)
        rank = self.trainer.global_rank if self.trainer is not None else 0
        sampler = _WeightedBatches(self.sources, self.config, done=self._batches_done, rank=rank)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: what the run is trained on."""
        return {
            "types": list(self.types),
            "sources": {source.source: len(source.tokens) for source in self.sources},
            "processes": self.trainer.world_size if self.trainer is not None else 1,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run on other data, or on another number of processes."""
        _refuse_other_data({"processes": 1, **state_dict}, self.state_dict())

    def _batches_done(self) -> int:
        steps = self.trainer.global_step if self.trainer is not None else 0
        return steps * self.config.accumulate


class _StreamBatches(IterableDataset[Batch]):
    """Batches of a stream; each loader process walks the whole stream and packs its share."""

    def __init__(self, stream: BlockStream, start: Position) -> None:
        self.stream, self.start = stream, start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        i, n = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self.stream.batches(self.start, wanted=lambda number: number % n == i)


class StreamDataModule(L.LightningDataModule):
    """Batches for pretraining, streamed from blocks of cells in memory or on disk.

    A checkpoint keeps where each rank stands. The number of loader processes changes nothing in the batches; each of them reads the
    blocks of its rank and holds a buffer of its own.

    Parameters
    ----------
    sources
        Cells in memory or on disk.
    types
        Cell Ontology ids of the run, in the order of the model's prototypes.
    config
        Size of batches and buffer, balance, seed.
    n_workers
        Processes on each device that read and pack; 0 does it between the steps.
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
        """The batch after the last that was trained on; kept by a callback."""
        self._n_workers = n_workers

    @property
    def _part(self) -> tuple[int, int]:
        if self.trainer is None:
            return (0, 1)
        return (self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the batches from the position on, without end."""
        stream = BlockStream(self.sources, self.types, self.config, self._part)
        dataset = _StreamBatches(stream, self.position)
        return DataLoader(dataset, batch_size=None, num_workers=self._n_workers)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: what the run is trained on, and where each rank stands."""
        positions: list[Any] = [tuple(self.position)]
        n = self._part[1]
        if n > 1:
            positions = [None] * n
            torch.distributed.all_gather_object(positions, tuple(self.position))
        return {**self._identity(), "positions": positions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up this rank's position; refuse the checkpoint of a run on other data, or on another number of processes."""
        _refuse_other_data(state_dict, self._identity())
        self.position = Position(*state_dict["positions"][self._part[0]])

    def _identity(self) -> dict[str, Any]:
        return {
            "types": list(self.types),
            "sources": [source.identity for source in self.sources],
            "processes": self._part[1],
        }


def _refuse_other_data(there: dict[str, Any], here: dict[str, Any]) -> None:
    if differing := {
        key: (there.get(key), here[key]) for key in here if there.get(key) != here[key]
    }:
        msg = (
            f"The checkpoint belongs to a run on other data (there, here): {differing}. "
            "Give another checkpoint_dir, or the data of that run."
        )
        raise ConfigError(msg)
