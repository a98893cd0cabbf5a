"""A corpus of tokenized cells on disk, far larger than memory if need be."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sccello_tools.errors import ArgumentError, CorpusError
from sccello_tools.tokens.vocabulary import GeneVocabulary

from ._cells import CorpusCells, count_labels, read_cells
from ._published import (
    LABEL_COLUMNS,
    TOKEN_COLUMNS,
    chosen_column,
    decode_integers,
    names_of_integers,
    published_files,
)
from ._shards import Shard, block_starts, open_shard
from ._shuffle import ShuffledReader
from .manifest import BUILD_AGAIN, CELL_TYPE, LENGTH, MANIFEST, TOKENS, CorpusManifest
from .writer import finished_shard, sha256_of, shard_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokenized, labelled cells in Parquet or Arrow files. Make one with ``pp.build_corpus``, or open one with :meth:`open`.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> from sccello_tools.tokens import Corpus
    >>> folder = tempfile.mkdtemp()
    >>> cells = {"gene_token_ids": [[25426, 9, 4], [25426, 7]], "cell_type": ["T cell", "B cell"]}
    >>> pq.write_table(pa.table(cells), f"{folder}/cells.parquet")
    >>> corpus = Corpus.open(folder)
    >>> len(corpus), corpus.cell_types
    (2, {'B cell': 1, 'T cell': 1})
    """

    path: Path
    """Folder or file."""

    shards: tuple[Shard, ...]
    """Its files, in order."""

    token_column: str
    """Column with the token ids."""

    label_column: str
    """Column with the cell types."""

    max_length: int | None = None
    """Cells are cut to this many tokens when read; not at all if None."""

    manifest: CorpusManifest | None = None
    """Table of contents of a corpus that this package built; None of a published one."""

    label_names: tuple[str, ...] | None = None
    """Names of integer labels; None if the labels are strings."""

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        max_length: int | None = None,
        label_key: str | None = None,
        split: str | None = None,
        partial: bool = False,
    ) -> Corpus:
        """Open a corpus that ``pp.build_corpus`` made, or a published one: Parquet, Arrow, or a folder that ``datasets`` saved.

        Parameters
        ----------
        path
            Folder, or a single file.
        max_length
            Cut cells to this many tokens, ``<cls>`` included.
        label_key
            Column with the cell types. If not given, the first that is there of ``cell_type_ontology_term_id``,
            ``cell_ct_ontology`` and ``cell_type``.
        split
            Which split of a published corpus to take, where there are several.
        partial
            Open what is finished of a corpus whose building was interrupted.

        Raises
        ------
        CorpusError
            If there is no corpus, it is incomplete, a file is damaged, empty or missing, or it was made with another vocabulary.
        """
        path = Path(path)
        if max_length is not None and max_length < 2:
            msg = f"max_length is {max_length}; a cell needs at least 2 tokens, <cls> and one gene"
            raise ArgumentError(msg)
        if (path / MANIFEST).is_file():
            manifest = CorpusManifest.read(path)
            _check_vocabulary(path, manifest)
            shards = _finished(path, manifest) if partial else _complete(path, manifest)
            return cls(path, shards, TOKENS, label_key or CELL_TYPE, max_length, manifest)
        shards = tuple(open_shard(file) for file in published_files(path, split=split))
        schema = shards[0].schema()
        label_column = chosen_column(schema.names, LABEL_COLUMNS, label_key, shards[0].path)
        return cls(
            path,
            shards,
            chosen_column(schema.names, TOKEN_COLUMNS, None, shards[0].path),
            label_column,
            max_length,
            label_names=names_of_integers(schema, label_column),
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"Corpus({str(self.path)!r}, {len(self):,} cells in {len(self.shards):,} files)"

    @property
    def n_blocks(self) -> int:
        """Blocks of rows that can be read one by one."""
        return len(self._starts) - 1

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Cells of each block, shape (n_blocks,)."""
        return np.diff(self._starts)

    @cached_property
    def cell_types(self) -> dict[str, int]:
        """Cells by label, most frequent first; "" counts those without a label. Reads one column of a published corpus."""
        if self.manifest is not None and self.manifest.complete and self.label_column == CELL_TYPE:
            return dict(self.manifest.cell_types)
        found: Counter[str] = Counter()
        for shard in self.shards:
            table = shard.read(None, [self.label_column])
            found.update(count_labels(self._labels(table, shard)))
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each cell as read, shape (n_cells,). Takes 4 bytes a cell."""
        column = LENGTH if self.manifest is not None else self.token_column
        parts = []
        for shard in self.shards:
            # of a published corpus the lists count, not the column "length", which may be that before a cut
            values = shard.read(None, [column]).column(column)
            if column != LENGTH:
                values = pc.fill_null(pc.list_value_length(values), 0)
            parts.append(np.asarray(values).astype(np.int32))
        lengths = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        return lengths if self.max_length is None else np.minimum(lengths, self.max_length)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names and sizes of the files, and of their contents if these are in the manifest."""
        parts = [(shard.path.name, shard.blocks) for shard in self.shards]
        hashes = [record.sha256 for record in self.manifest.shards] if self.manifest else []
        return hashlib.sha256(repr((parts, hashes, self.max_length)).encode()).hexdigest()

    def read_block(self, block: int) -> CorpusCells:
        """Read one block of cells: a row group of Parquet or a record batch of Arrow."""
        if not 0 <= block < self.n_blocks:
            msg = f"block {block} is out of range: there are {self.n_blocks:,} blocks"
            raise IndexError(msg)
        shard = int(np.searchsorted(self._first_blocks, block, side="right")) - 1
        return self._cells(self.shards[shard], block - int(self._first_blocks[shard]))

    def read_shard(self, shard: int) -> CorpusCells:
        """Read all cells of one file."""
        return self._cells(self.shards[shard], None)

    def record_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Walk over the corpus in order, block by block, with all columns or those named, as Arrow has them (cells not cut)."""
        for shard in self.shards:
            for block in range(len(shard.blocks)):
                yield from shard.read(block, columns).combine_chunks().to_batches()

    def to_memory(self, *, max_bytes: int = 4 << 30) -> CorpusCells:
        """Read all cells.

        Parameters
        ----------
        max_bytes
            Refuse if the tokens would take more than this; they take 8 bytes each.

        Raises
        ------
        CorpusError
            If they would. Use :meth:`shuffled`, which holds a part at a time.
        """
        wanted = 8 * int(self.lengths.sum(dtype=np.int64))
        if wanted > max_bytes:
            msg = (
                f"{self.path} would take {wanted / 1e9:.1f} GB of memory, and at most {max_bytes / 1e9:.1f} are allowed. "
                "Walk over it with Corpus.shuffled or Corpus.record_batches, open it with a smaller max_length, or raise max_bytes."
            )
            raise CorpusError(msg)
        return CorpusCells.concatenate([self.read_block(i) for i in range(self.n_blocks)])

    def shuffled(
        self,
        *,
        seed: int,
        batch_cells: int,
        buffer_cells: int = 16_384,
        part: tuple[int, int] = (0, 1),
    ) -> ShuffledReader:
        """Return a reader of batches in random order, which can be stopped and resumed; see :class:`ShuffledReader`."""
        return ShuffledReader(
            self, seed=seed, batch_cells=batch_cells, buffer_cells=buffer_cells, part=part
        )

    def verify(self) -> None:
        """Read every file whole and compare it with its hash, or for a published corpus, see that it can be read.

        Raises
        ------
        CorpusError
            At the first file that is damaged.
        """
        known = {} if self.manifest is None else {r.name: r.sha256 for r in self.manifest.shards}
        for shard in self.shards:
            expected = known.get(shard.path.stem)
            if expected is None:
                shard.read(None)
            elif (found := sha256_of(shard.path)) != expected:
                msg = f"{shard.path} has sha256 {found[:12]}..., expected is {expected[:12]}...: it was damaged. Delete it. {BUILD_AGAIN}"
                raise CorpusError(msg)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return block_starts(self.shards)

    @cached_property
    def _first_blocks(self) -> NDArray[np.int64]:
        """Number of the first block of each file."""
        counts: NDArray[np.int64] = np.cumsum([0, *(len(shard.blocks) for shard in self.shards)])
        return counts

    def _cells(self, shard: Shard, block: int | None) -> CorpusCells:
        table = shard.read(block, [self.token_column, self.label_column])
        return read_cells(
            table.column(self.token_column),
            self._labels(table, shard),
            max_length=self.max_length,
            where=str(shard.path),
        )

    def _labels(self, table: pa.Table, shard: Shard) -> pa.ChunkedArray:
        column = table.column(self.label_column)
        if self.label_names is None:
            return column
        return pa.chunked_array([decode_integers(column, self.label_names, where=str(shard.path))])


def _check_vocabulary(path: Path, manifest: CorpusManifest) -> None:
    ours, theirs = GeneVocabulary.load().sha256, manifest.config.vocabulary_sha256
    if ours != theirs:
        msg = (
            f"{path} was made with another gene vocabulary (sha256 {theirs[:12]}..., this package has {ours[:12]}...): "
            "its token ids mean other genes. Build the corpus again with this version of sccello-tools."
        )
        raise CorpusError(msg)


def _complete(path: Path, manifest: CorpusManifest) -> tuple[Shard, ...]:
    if not manifest.complete:
        msg = f"{path} is incomplete: its building was interrupted. {BUILD_AGAIN} Or open what is finished with partial=True."
        raise CorpusError(msg)
    shards = []
    for record in manifest.shards:
        if not record.n_cells:
            continue
        file = shard_path(path, record.name)
        size = file.stat().st_size if file.is_file() else -1
        if size != record.n_bytes:
            found = "is missing" if size < 0 else f"has {size:,} bytes"
            msg = f"{file} {found}; expected are {record.n_bytes:,} bytes. Delete it if it is there. {BUILD_AGAIN}"
            raise CorpusError(msg)
        shards.append(Shard(file, record.blocks, BUILD_AGAIN))
    return tuple(shards)


def _finished(path: Path, manifest: CorpusManifest) -> tuple[Shard, ...]:
    names = sorted(file.stem for file in shard_path(path, "").parent.glob("[0-9]*.json"))
    records = [record for name in names if (record := finished_shard(path, name))]
    digest = manifest.config.digest
    return tuple(
        Shard(shard_path(path, record.name), record.blocks, BUILD_AGAIN)
        for record in records
        if record.n_cells and record.config == digest
    )
