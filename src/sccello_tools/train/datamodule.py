"""Labelled tokens in memory, and the batches that a training run draws from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sccello_tools._errors import ConfigError, LabelError
from sccello_tools.data import RaggedTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from .config import PretrainConfig


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Cells of one source: their tokens and Cell Ontology ids."""

    tokens: RaggedTokens
    """Tokens of the cells."""

    cell_types: NDArray[np.str_]
    """Cell Ontology id of each cell, shape (n_cells,)."""

    source: str = "cells"
    """Name of the source, for the model card and for sampling."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.cell_types):
            msg = f"{self.source}: {len(self.tokens)} cells, but {len(self.cell_types)} cell types"
            raise LabelError(msg)


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
            np.array([index_of[t] for t in source.cell_types], dtype=np.int64) for source in sources
        ]

    def __getitem__(self, draw: _Draw) -> Batch:
        cells = draw.cells
        ids = [self.tokens[source][cell] for source, cell in cells]
        if draw.cropped:
            shortest = min(len(row) for row in ids)
            ids = [row[:shortest] for row in ids]
        lengths = np.array([len(row) for row in ids])
        # cells of equal length stand together, so that attention can take them at once
        order = np.argsort(-lengths, kind="stable")
        return Batch(
            ids=torch.from_numpy(np.concatenate([ids[i] for i in order]).astype(np.int64)),
            cu_seqlens=torch.from_numpy(
                np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int32)
            ),
            max_seqlen=int(lengths.max()),
            cell_types=torch.from_numpy(
                np.array([self.types[cells[i][0]][cells[i][1]] for i in order])
            ),
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
        for step in range(self.done(), self.config.max_steps):
            rng = np.random.default_rng(
                (self.config.seed, step, *([self.rank] if self.rank else []))
            )
            drawn = rng.choice(len(self.owners), size=self.config.batch_cells, p=self.probabilities)
            cropped = bool(rng.random() < self.config.crop)
            yield _Draw([self.owners[i] for i in drawn], cropped)

    def __len__(self) -> int:
        return (
            self.config.max_steps
        )  # of the whole run: Lightning counts on from where a resumed run stood


def _type_weights(source: LabelledTokens, balance: float) -> NDArray[np.float64]:
    """Chance of each cell of a source; cells without tokens are never drawn."""
    _, index, counts = np.unique(source.cell_types, return_inverse=True, return_counts=True)
    chance = np.power(counts[index].astype(np.float64), -balance)
    return np.where(source.tokens.lengths > 0, chance, 0.0)


def draw_cells(
    sources: Sequence[LabelledTokens], config: PretrainConfig, *, n_cells: int
) -> RaggedTokens:
    """Return the tokens of cells drawn with the chances that training draws them with."""
    chances = _WeightedBatches(sources, config, done=lambda: 0)
    rng = np.random.default_rng(config.seed)
    drawn = rng.choice(
        len(chances.owners), size=min(n_cells, len(chances.owners)), p=chances.probabilities
    )
    rows = [
        [chances.owners[i][1] for i in drawn if chances.owners[i][0] == k]
        for k in range(len(sources))
    ]
    return RaggedTokens.concatenate(
        source.tokens.truncate(config.max_length).take(np.array(cells, dtype=np.int64))
        for source, cells in zip(sources, rows)
    )


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

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the batches up to ``max_steps`` that are still to do."""
        dataset = _TokenBatches(self.sources, self.types, self.config.max_length)
        rank = self.trainer.global_rank if self.trainer is not None else 0
        sampler = _WeightedBatches(self.sources, self.config, done=self._steps_done, rank=rank)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: what the run is trained on."""
        return {
            "types": list(self.types),
            "sources": {source.source: len(source.tokens) for source in self.sources},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run on other data."""
        here = self.state_dict()
        if differing := {
            key: (state_dict[key], here[key]) for key in here if state_dict[key] != here[key]
        }:
            msg = (
                f"The checkpoint belongs to a run on other data (there, here): {differing}. "
                "Give another checkpoint_dir, or the data of that run."
            )
            raise ConfigError(msg)

    def _steps_done(self) -> int:
        return self.trainer.global_step if self.trainer is not None else 0
