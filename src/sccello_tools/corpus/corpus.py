"""A corpus of tokenized cells on disk, which may be much larger than memory."""

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
from ._shards import Shard, block_starts, open_shard, read_record
from .manifest import (
    BUILD_AGAIN,
    CELL_TYPE,
    LENGTH,
    MANIFEST,
    SHARD_FOLDER,
    TOKENS,
    CorpusManifest,
    ShardRecord,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokenized, labelled cells in Parquet or Arrow files, built with ``pp.build_corpus`` and opened with :meth:`open`.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> from sccello_tools.corpus import Corpus
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
    """Files in order."""

    token_column: str
    """Column of token ids."""

    label_column: str
    """Column of cell types."""

    max_length: int | None = None
    """Cells are truncated to this many tokens when read; None for no limit."""

    manifest: CorpusManifest | None = None
    """Manifest of a corpus built by this package; None for a published one."""

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
        """Open a corpus built with ``pp.build_corpus`` or a published one: Parquet, Arrow, or a folder saved by ``datasets``.

        Parameters
        ----------
        path
            Folder, or a single file.
        max_length
            Truncate cells to this many tokens, ``<cls>`` included.
        label_key
            Column of cell types. By default the first that exists of ``cell_type_ontology_term_id``, ``cell_ct_ontology`` and
            ``cell_type``.
        split
            Split of a published corpus, if there are several.
        partial
            Open the finished shards of a corpus whose construction was interrupted.

        Raises
        ------
        CorpusError
            If there is no corpus, it is incomplete, a file is damaged, empty or missing, or it was built with another vocabulary.
        """
        path = Path(path)
        if max_length is not None and max_length < 2:
            msg = f"max_length must be >= 2 (<cls> and one gene), got {max_length}"
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
        """Number of blocks of rows that can be read individually."""
        return len(self._starts) - 1

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """Cells of each block, shape (n_blocks,)."""
        return np.diff(self._starts)

    @cached_property
    def cell_types(self) -> dict[str, int]:
        """Number of cells of each label, most frequent first; "" stands for missing. Reads one column of a published corpus."""
        if self.manifest is not None and self.manifest.complete and self.label_column == CELL_TYPE:
            return dict(self.manifest.cell_types)
        found: Counter[str] = Counter()
        for shard in self.shards:
            table = shard.read(None, [self.label_column])
            found.update(count_labels(self._labels(table, str(shard.path))))
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Number of tokens of each cell as read, shape (n_cells,); 4 bytes per cell."""
        column = LENGTH if self.manifest is not None else self.token_column
        parts = []
        for shard in self.shards:
            # "length" of a published corpus may be the length before truncation
            values = shard.read(None, [column]).column(column)
            if column != LENGTH:
                values = pc.fill_null(pc.list_value_length(values), 0)
            parts.append(np.asarray(values).astype(np.int32))
        lengths = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        return lengths if self.max_length is None else np.minimum(lengths, self.max_length)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files, and of their contents if the manifest knows them."""
        parts = [(shard.path.name, shard.blocks) for shard in self.shards]
        hashes = [record.sha256 for record in self.manifest.shards] if self.manifest else []
        return hashlib.sha256(repr((parts, hashes, self.max_length)).encode()).hexdigest()

    def read_block(self, block: int) -> CorpusCells:
        """Read one block of cells: a row group of Parquet or a record batch of Arrow."""
        if not 0 <= block < self.n_blocks:
            msg = f"block must be in [0, {self.n_blocks:,}), got {block}"
            raise IndexError(msg)
        table = self._read(block, [self.token_column, self.label_column])
        return self._as_cells(table, str(self.shards[self._shard_of(block)].path))

    def record_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Iterate over the corpus block by block, with all or selected columns, without truncation."""
        for shard in self.shards:
            for block in range(len(shard.blocks)):
                yield from shard.read(block, columns).combine_chunks().to_batches()

    def to_memory(self, *, max_bytes: int = 4 << 30) -> CorpusCells:
        """Read all cells.

        Parameters
        ----------
        max_bytes
            Maximum memory of the tokens, which take 8 bytes each.

        Raises
        ------
        CorpusError
            If the tokens need more memory. Use :meth:`read_block` or :meth:`record_batches` then.
        """
        wanted = 8 * int(self.lengths.sum(dtype=np.int64))
        if wanted > max_bytes:
            msg = (
                f"{self.path} needs {wanted / 1e9:.1f} GB of memory, but max_bytes allows {max_bytes / 1e9:.1f} GB. "
                "Iterate with Corpus.record_batches, open the corpus with a smaller max_length, or increase max_bytes."
            )
            raise CorpusError(msg)
        return CorpusCells.concatenate([self.read_block(i) for i in range(self.n_blocks)])

    def read_rows(self, start: int, stop: int) -> CorpusCells:
        """Read consecutive rows, which may span several blocks and files."""
        return self._as_cells(
            self.read_columns(start, stop, [self.token_column, self.label_column]), str(self.path)
        )

    def read_columns(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Read some columns of consecutive rows."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts = [self._read(block, columns) for block in range(first, last)]
        return pa.concat_tables(parts).slice(start - int(self._starts[first]), stop - start)

    def verify(self) -> None:
        """Read every file completely; shards of this package carry checksums of their content.

        Raises
        ------
        CorpusError
            At the first file that is damaged.
        """
        for shard in self.shards:
            shard.read(None)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return block_starts(self.shards)

    @cached_property
    def _first_blocks(self) -> NDArray[np.int64]:
        """Index of the first block of each file."""
        counts: NDArray[np.int64] = np.cumsum([0, *(len(shard.blocks) for shard in self.shards)])
        return counts

    def _read(self, block: int, columns: Sequence[str]) -> pa.Table:
        shard = self._shard_of(block)
        return self.shards[shard].read(block - int(self._first_blocks[shard]), columns)

    def _shard_of(self, block: int) -> int:
        return int(np.searchsorted(self._first_blocks, block, side="right")) - 1

    def _as_cells(self, table: pa.Table, where: str) -> CorpusCells:
        return read_cells(
            table.column(self.token_column),
            self._labels(table, where),
            max_length=self.max_length,
            where=where,
        )

    def _labels(self, table: pa.Table, where: str) -> pa.ChunkedArray:
        column = table.column(self.label_column)
        if self.label_names is None:
            return column
        return pa.chunked_array([decode_integers(column, self.label_names, where=where)])


def shard_path(folder: Path, name: str) -> Path:
    """Return the path of a shard."""
    return folder / SHARD_FOLDER / f"{name}.parquet"


def _check_vocabulary(path: Path, manifest: CorpusManifest) -> None:
    ours, theirs = GeneVocabulary.load().sha256, manifest.config.vocabulary_sha256
    if ours != theirs:
        msg = (
            f"{path} was built with another gene vocabulary (sha256 {theirs[:12]}..., this package has {ours[:12]}...). "
            "Build the corpus again with this version of sccello-tools."
        )
        raise CorpusError(msg)


def _complete(path: Path, manifest: CorpusManifest) -> tuple[Shard, ...]:
    if not manifest.complete:
        msg = f"{path} is incomplete: its construction was interrupted. {BUILD_AGAIN} Or open the finished shards with partial=True."
        raise CorpusError(msg)
    names = [record.name for record in manifest.shards if record.n_cells]
    if missing := [name for name in names if not shard_path(path, name).is_file()]:
        msg = f"{len(missing):,} shards are missing ({shard_path(path, missing[0])}). {BUILD_AGAIN}"
        raise CorpusError(msg)
    return _shards(path, manifest.shards)


def _finished(path: Path, manifest: CorpusManifest) -> tuple[Shard, ...]:
    files = sorted((path / SHARD_FOLDER).glob("[0-9]*.parquet"))
    records = [record for file in files if (record := read_record(file, ShardRecord))]
    return _shards(path, [r for r in records if r.config == manifest.config.digest])


def _shards(path: Path, records: Sequence[ShardRecord]) -> tuple[Shard, ...]:
    """Return the shards that have cells."""
    return tuple(Shard(shard_path(path, r.name), r.blocks, BUILD_AGAIN) for r in records if r.n_cells)  # fmt: skip
