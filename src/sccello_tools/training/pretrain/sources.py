"""Where training cells come from: tokens in memory, or a corpus that is read block by block."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sccello_tools.corpus.manifest import CELL_TYPE
from sccello_tools.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sccello_tools.corpus import Corpus
    from sccello_tools.tokens import RaggedTokens

_CELLS_PER_BLOCK = 256  # of tokens in memory, where a block costs nothing


class BlockOfCells(NamedTuple):
    """Cells that are read together."""

    tokens: RaggedTokens
    """Tokens of the cells."""
    cell_types: NDArray[np.str_]
    """Cell Ontology id of each, "" where it has none, shape (n_cells,)."""
    rows: NDArray[np.int64]
    """Row of each in its source, shape (n_cells,)."""


class BlockSource(Protocol):
    """Cells in blocks that can be read in any order."""

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Cells of each block, those without label or gene included, shape (n_blocks,)."""
        ...

    @property
    def block_sources(self) -> list[str]:
        """Name of the source of each block."""
        ...

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Cells of each source by Cell Ontology id."""
        ...

    @property
    def identity(self) -> str:
        """What tells these cells from others when a run is resumed."""
        ...

    def read_block(self, block: int) -> BlockOfCells:
        """Read one block."""
        ...


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Cells of one source: their tokens and Cell Ontology ids."""

    tokens: RaggedTokens
    """Tokens of the cells."""

    cell_types: NDArray[np.str_]
    """Cell Ontology id of each cell, shape (n_cells,)."""

    source: str = "cells"
    """Name of the source, for the model card and for sampling."""

    rows: NDArray[np.int64] | None = None
    """Row of each cell in the file that it came from, for messages; its number here if not given."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.cell_types):
            msg = f"{self.source}: {len(self.tokens)} cells, but {len(self.cell_types)} cell types"
            raise LabelError(msg)

    @property
    def row_numbers(self) -> NDArray[np.int64]:
        """Row of each cell, shape (n_cells,)."""
        return np.arange(len(self.tokens)) if self.rows is None else self.rows

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Cells of each block, shape (n_blocks,)."""
        n, size = len(self.tokens), _CELLS_PER_BLOCK
        return np.array([min(size, n - start) for start in range(0, n, size)], dtype=np.int64)

    @property
    def block_sources(self) -> list[str]:
        """Name of the source of each block."""
        return [self.source] * len(self.block_sizes)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Cells of the source by Cell Ontology id; those without tokens never train and do not count."""
        return {self.source: dict(Counter(self.cell_types[self.tokens.lengths > 0].tolist()))}

    @property
    def identity(self) -> str:
        """Name and number of cells."""
        return f"{self.source}: {len(self.tokens)} cells"

    def read_block(self, block: int) -> BlockOfCells:
        """Return one block."""
        start = block * _CELLS_PER_BLOCK
        cells = np.arange(start, min(start + _CELLS_PER_BLOCK, len(self.tokens)))
        return BlockOfCells(
            self.tokens.take(cells), self.cell_types[cells], self.row_numbers[cells]
        )


@dataclass(frozen=True, eq=False)
class CorpusSource:
    """A corpus on disk, of which a few blocks are in memory at a time."""

    corpus: Corpus
    """The corpus, opened with the ``max_length`` of the run."""

    terms: Mapping[str, str]
    """Current Cell Ontology id of each label in it; cells of other labels are left out."""

    name: str = "corpus"
    """Name of the source, where the corpus does not name its own."""

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Cells of each block, shape (n_blocks,)."""
        return self.corpus.block_sizes

    @cached_property
    def block_sources(self) -> list[str]:
        """Name of the source of each block."""
        names = self._shard_sources
        return [
            name
            for name, shard in zip(names, self.corpus.shards, strict=True)
            for _ in shard.blocks
        ]

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Cells of each source by Cell Ontology id."""
        labels: dict[str, Counter[str]] = {name: Counter() for name in self._shard_sources}
        manifest, column = self.corpus.manifest, self.corpus.label_column
        if manifest is not None:
            known = {record.name: record for record in manifest.shards}
            for name, shard in zip(self._shard_sources, self.corpus.shards, strict=True):
                record = known.get(shard.path.stem)
                if record is not None and column == CELL_TYPE:
                    labels[name].update(record.cell_types)
                else:  # another column than the manifest counts, or an unfinished corpus
                    found_here = shard.read(None, [column]).column(column)
                    labels[name].update(str(label) for label in found_here.to_pylist() if label)
        else:
            labels[self.name].update(self.corpus.cell_types)
        found: dict[str, dict[str, int]] = {}
        for name, by_label in labels.items():
            by_term: Counter[str] = Counter()
            for label, n in by_label.items():
                if term := self.terms.get(label):
                    by_term[term] += n
            found[name] = dict(by_term)
        return found

    @property
    def identity(self) -> str:
        """Hash of the corpus."""
        return f"{self.name}: {self.corpus.fingerprint}"

    def read_block(self, block: int) -> BlockOfCells:
        """Read one block from disk."""
        cells = self.corpus.read_block(block)
        start = int(self._starts[block])
        terms = np.array([self.terms.get(label, "") for label in cells.cell_types], dtype=str)
        return BlockOfCells(cells.tokens, terms, np.arange(start, start + len(cells)))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.block_sizes)])
        return starts

    @cached_property
    def _shard_sources(self) -> list[str]:
        manifest = self.corpus.manifest
        if manifest is None:
            return [self.name] * len(self.corpus.shards)
        source_of = {record.name: record.source for record in manifest.shards}
        return [source_of.get(shard.path.stem, self.name) for shard in self.corpus.shards]
