"""One file of a corpus, Parquet or Arrow, as blocks of rows that can be read in any order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any, Final

    from numpy.typing import NDArray

_ARROW_FILE: Final = b"ARROW1"
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True)
class Shard:
    """A file of a corpus. Nothing stays open between two reads."""

    path: Path
    """Where it is."""
    blocks: tuple[int, ...]
    """Rows of each row group of Parquet, or record batch of Arrow."""
    advice: str = "Fetch the file again, or take it out of the folder."
    """What to do if it is damaged."""

    @property
    def n_cells(self) -> int:
        """Rows of the file."""
        return sum(self.blocks)

    def read(self, block: int | None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one block, or all of them.

        Parameters
        ----------
        block
            Number of the block; all if None.
        columns
            Names of the columns to read; all if None.

        Raises
        ------
        CorpusError
            If the file is missing or damaged.
        """
        try:
            table = _read(self.path, block, None if columns is None else list(columns))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise CorpusError(_damaged(self.path, str(error), self.advice)) from error
        if missing := set(columns or ()) - set(table.column_names):
            what = f"it has no column {', '.join(sorted(missing))} (columns: {', '.join(table.column_names)})"
            raise CorpusError(_damaged(self.path, what, self.advice))
        expected = self.n_cells if block is None else self.blocks[block]
        if len(table) != expected:
            what = f"{len(table):,} cells were read where {expected:,} are expected"
            raise CorpusError(_damaged(self.path, what, self.advice))
        return table

    def schema(self) -> pa.Schema:
        """Return names and types of the columns."""
        try:
            if _magic(self.path) == _PARQUET:
                return pq.read_schema(self.path)
            with pa.memory_map(str(self.path)) as source:
                return _open_arrow(self.path, source).schema
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(_damaged(self.path, str(error), self.advice)) from error


def open_shard(path: Path) -> Shard:
    """Look up the blocks of a file.

    Raises
    ------
    CorpusError
        If it is damaged, neither Parquet nor Arrow, or holds no cell.
    """
    shard = Shard(path, ())
    try:
        if path.stat().st_size == 0:
            raise CorpusError(_damaged(path, "it is empty, 0 bytes", shard.advice))
        if _magic(path) == _PARQUET:
            meta = pq.read_metadata(path)
            blocks = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        else:
            with pa.memory_map(str(path)) as source:
                blocks = [batch.num_rows for batch in _batches(_open_arrow(path, source))]
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(_damaged(path, str(error), shard.advice)) from error
    if not sum(blocks):
        raise CorpusError(_damaged(path, "it holds no cell", shard.advice))
    return Shard(path, tuple(blocks))


def block_starts(shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Row of the corpus at which each block of all shards begins, and the number of rows at the end."""
    starts: NDArray[np.int64] = np.cumsum([0, *(n for shard in shards for n in shard.blocks)])
    return starts


def _read(path: Path, block: int | None, columns: list[str] | None) -> pa.Table:
    if _magic(path) == _PARQUET:
        with pq.ParquetFile(path) as file:
            if block is None:
                return file.read(columns)
            return file.read_row_group(block, columns)
    with pa.memory_map(str(path)) as source:
        reader = _open_arrow(path, source)
        # a stream has no table of contents, but walking over a mapped one reads headers only
        picked = slice(None) if block is None else slice(block, block + 1)
        batches = islice(_batches(reader), picked.start, picked.stop)
        table = pa.Table.from_batches(list(batches), schema=reader.schema)
        return table if columns is None else table.select(columns)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def _open_arrow(path: Path, source: Any) -> Any:
    is_file = _magic(path, len(_ARROW_FILE)) == _ARROW_FILE
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


def _magic(path: Path, n: int = 4) -> bytes:
    with path.open("rb") as file:
        return file.read(n)


def _damaged(path: Path, what: str, advice: str) -> str:
    return f"{path} cannot be read as a shard of a corpus: {what.strip().rstrip('.')}. {advice}"
