"""Sources of training cells: tokens in memory, or a corpus that is read block by block."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sccello_tools._logging import logger
from sccello_tools._messages import quoted
from sccello_tools.corpus.manifest import CELL_TYPE
from sccello_tools.errors import LabelError
from sccello_tools.ontology import is_uninformative, match_label
from sccello_tools.tokens import RaggedTokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from sccello_tools.corpus import Corpus
    from sccello_tools.ontology import CellOntology

    from .augment import CountSampler

MAX_BYTES_IN_MEMORY = 1 << 30
"""Size of a corpus in tokens, 8 bytes each, above which it is streamed by default."""
_CELLS_PER_BLOCK = 256  # of cells in memory


class CellBlock(NamedTuple):
    """Cells that are read together."""

    tokens: RaggedTokens
    """Tokens of the cells."""
    cell_types: NDArray[np.str_]
    """Cell Ontology id of each cell, "" if it has none, shape (n_cells,)."""
    rows: NDArray[np.int64]
    """Row of each cell in its source, shape (n_cells,)."""


class BlockSource(Protocol):
    """Cells in blocks that can be read in any order."""

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Number of cells in each block, including cells without label or tokens, shape (n_blocks,)."""
        ...

    @property
    def block_sources(self) -> list[str]:
        """Name of the source of each block."""
        ...

    @property
    def n_cells_of(self) -> dict[str, dict[str, int]]:
        """Number of cells per source and Cell Ontology id."""
        ...

    @property
    def identity(self) -> str:
        """Name and fingerprint, which a checkpoint stores to recognise the same data."""
        ...

    def read_block(self, block: int) -> CellBlock:
        """Read one block."""
        ...


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Cells of one source in memory: their tokens and Cell Ontology ids.

    Raises
    ------
    LabelError
        If the number of labels differs from the number of cells.
    """

    tokens: RaggedTokens
    """Tokens of the cells."""
    cell_types: NDArray[np.str_]
    """Cell Ontology id of each cell, shape (n_cells,)."""
    source: str = "cells"
    """Name of the source, used for sampling and in the model's metadata."""
    rows: NDArray[np.int64] | None = None
    """Row of each cell in the original data, for messages; by default its index."""
    counts: CountSampler | None = None
    """Raw counts, from which tokens are drawn in each step if they are augmented or synthetic."""

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
        """Number of cells in each block, shape (n_blocks,)."""
        n, size = len(self.tokens), _CELLS_PER_BLOCK
        return np.array([min(size, n - start) for start in range(0, n, size)], dtype=np.int64)

    @property
    def block_sources(self) -> list[str]:
        """Name of the source of each block."""
        return [self.source] * len(self.block_sizes)

    @property
    def n_cells_of(self) -> dict[str, dict[str, int]]:
        """Number of cells with tokens per Cell Ontology id."""
        return {self.source: dict(Counter(self.cell_types[self.tokens.lengths > 0].tolist()))}

    @cached_property
    def identity(self) -> str:
        """Name, number of cells and a hash of their tokens and labels."""
        digest = hashlib.sha256()
        for array in (self.tokens.indptr, self.tokens.ids):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        if self.counts is not None:
            digest.update(self.counts.identity.encode())
        digest.update("\n".join(self.cell_types.tolist()).encode())
        return f"{self.source}: {len(self.tokens)} cells, sha256 {digest.hexdigest()[:16]}"

    def read_block(self, block: int) -> CellBlock:
        """Return one block."""
        start = block * _CELLS_PER_BLOCK
        cells = np.arange(start, min(start + _CELLS_PER_BLOCK, len(self.tokens)))
        return CellBlock(self.tokens.take(cells), self.cell_types[cells], self.row_numbers[cells])


@dataclass(frozen=True, eq=False)
class CorpusSource:
    """A corpus on disk, of which a few blocks are in memory at a time."""

    corpus: Corpus
    """The corpus, opened with the ``max_length`` of the run."""
    terms: Mapping[str, str]
    """Current Cell Ontology id of each label; cells with other labels are excluded."""
    name: str = "corpus"
    """Name of the source if the corpus does not name its own."""

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Number of cells in each block, shape (n_blocks,)."""
        return self.corpus.block_sizes

    @cached_property
    def block_sources(self) -> list[str]:
        """Name of the source of each block."""
        pairs = zip(_shard_sources(self.corpus, self.name), self.corpus.shards, strict=True)
        return [name for name, shard in pairs for _ in shard.blocks]

    @cached_property
    def n_cells_of(self) -> dict[str, dict[str, int]]:
        """Number of cells per source and Cell Ontology id."""
        names = _shard_sources(self.corpus, self.name)
        labels: dict[str, Counter[str]] = {name: Counter() for name in names}
        manifest, column = self.corpus.manifest, self.corpus.label_column
        if manifest is not None:
            known = {record.name: record for record in manifest.shards}
            for name, shard in zip(names, self.corpus.shards, strict=True):
                record = known.get(shard.path.stem)
                if record is not None and column == CELL_TYPE:
                    labels[name].update(record.cell_types)
                else:  # the manifest counts another column, or the corpus is unfinished
                    values = shard.read(None, [column]).column(column)
                    labels[name].update(str(label) for label in values.to_pylist() if label)
        else:
            labels[self.name].update(self.corpus.cell_types)
        counts: dict[str, dict[str, int]] = {}
        for name, by_label in labels.items():
            by_term: Counter[str] = Counter()
            for label, n in by_label.items():
                if term := self.terms.get(label):
                    by_term[term] += n
            counts[name] = dict(by_term)
        return counts

    @property
    def identity(self) -> str:
        """Name and hash of the corpus."""
        return f"{self.name}: {self.corpus.fingerprint}"

    def read_block(self, block: int) -> CellBlock:
        """Read one block from disk."""
        cells = self.corpus.read_block(block)
        start = int(self._starts[block])
        terms = np.array([self.terms.get(label, "") for label in cells.cell_types], dtype=str)
        return CellBlock(cells.tokens, terms, np.arange(start, start + len(cells)))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.block_sizes)])
        return starts


def corpus_sources(
    corpus: Corpus, name: str, ontology: CellOntology, *, stream: bool | None
) -> list[BlockSource]:
    """Return a corpus as sources of cells, streamed or in memory.

    Parameters
    ----------
    corpus
        The corpus.
    name
        Name of a source if the corpus does not name its own.
    ontology
        The Cell Ontology in which labels are looked up.
    stream
        Whether to read it block by block; ``None`` streams large corpora.

    Raises
    ------
    CorpusError
        If the corpus is damaged, or does not fit in memory with ``stream=False``.
    LabelError
        If a label is neither a current id nor a name of the ontology.
    """
    if stream is None:
        stream = 8 * _n_tokens(corpus) > MAX_BYTES_IN_MEMORY
    if not stream:
        return list(corpus_in_memory(corpus, name, ontology))
    terms = _terms(corpus.cell_types, ontology, name)
    n_labelled = sum(n for label, n in corpus.cell_types.items() if label in terms)
    log_excluded(name, len(corpus) - n_labelled, len(corpus), "no cell type")
    return [CorpusSource(corpus, terms, name)]


def corpus_in_memory(corpus: Corpus, name: str, ontology: CellOntology) -> list[LabelledTokens]:
    """Read a corpus into memory as one source per input; a published corpus is one source.

    Raises
    ------
    CorpusError
        If it does not fit in memory or is damaged.
    LabelError
        If a label is neither a current id nor a name of the ontology.
    """
    cells = corpus.to_memory()
    current = _terms(corpus.cell_types, ontology, name)
    terms = np.array([current.get(label, "") for label in cells.cell_types], dtype=str)
    usable = (terms != "") & (cells.tokens.lengths > 0)
    log_excluded(name, int((~usable).sum()), len(usable), "no cell type or no tokens")
    names = _shard_sources(corpus, name)
    sources = np.repeat(names, [shard.n_cells for shard in corpus.shards])
    parts = {
        source: np.flatnonzero(usable & (sources == source)) for source in dict.fromkeys(names)
    }
    return [
        LabelledTokens(cells.tokens.take(rows), terms[rows], source, rows)
        for source, rows in parts.items()
        if len(rows)
    ]


def concatenate(parts: list[LabelledTokens], source: str) -> LabelledTokens:
    """Join several sources into one."""
    return LabelledTokens(
        RaggedTokens.concatenate(part.tokens for part in parts),
        np.concatenate([np.empty(0, dtype=str), *(part.cell_types for part in parts)]),
        source,
    )


def log_excluded(source: str, n_excluded: int, n_cells: int, reason: str) -> None:
    """Warn about cells that cannot be used for training."""
    if n_excluded:
        logger.warning("%s: excluded %d of %d cells with %s", source, n_excluded, n_cells, reason)


def _shard_sources(corpus: Corpus, name: str) -> list[str]:
    if corpus.manifest is None:
        return [name] * len(corpus.shards)
    source_of = {record.name: record.source for record in corpus.manifest.shards}
    return [source_of.get(shard.path.stem, name) for shard in corpus.shards]


def _n_tokens(corpus: Corpus) -> int:
    """Return the number of tokens from the manifest, or an estimate from the first block."""
    if corpus.manifest is not None and corpus.manifest.complete:
        return sum(record.n_tokens for record in corpus.manifest.shards)
    first = corpus.read_block(0).tokens.lengths
    return round(float(first.mean()) * len(corpus)) if len(first) else 0


def _terms(labels: Iterable[str], ontology: CellOntology, name: str) -> dict[str, str]:
    """Return the current id of each label that names a cell type; missing and uninformative ones are left out."""
    named = [label for label in labels if label and not is_uninformative(label)]
    found = {label: match_label(label, ontology) for label in named}
    unknown = [label for label, match in found.items() if not match.id]
    if unknown:
        msg = (
            f"{name}: {len(unknown):,} labels are neither current ids nor names of the Cell Ontology ({quoted(unknown)}). "
            "Choose another column with Corpus.open(..., label_key=), or rebuild the corpus with mapped labels; see pp.map_cell_types."
        )
        raise LabelError(msg)
    return {label: match.id for label, match in found.items()}
