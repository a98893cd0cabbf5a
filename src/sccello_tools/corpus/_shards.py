"""Files of a corpus, Parquet or Arrow, as blocks of rows that can be read in any order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools._logging import logger
from sccello_tools.errors import CorpusError

from .manifest import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any, Final

    from numpy.typing import NDArray

RECORD_KEY: Final = b"sccello"  # of the Parquet metadata
R = TypeVar("R", bound=Record)
_ARROW_FILE: Final = b"ARROW1"
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True)
class Shard:
    """One file of a corpus. It is not kept open between reads."""

    path: Path
    blocks: tuple[int, ...]
    """Rows of each row group of Parquet, or record batch of Arrow."""
    advice: str = "Download the file again, or remove it from the folder."
    """Remedy if it is damaged."""

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return sum(self.blocks)

    def read(self, block: int | None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one block, or the whole file.

        Parameters
        ----------
        block
            Index of the block; None for all.
        columns
            Columns to read; None for all.

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
            what = f"{len(table):,} cells were read instead of {expected:,}"
            raise CorpusError(_damaged(self.path, what, self.advice))
        return table

    def schema(self) -> pa.Schema:
        """Return the names and types of the columns."""
        try:
            if _magic(self.path) == _PARQUET:
                return pq.read_schema(self.path)
            with pa.memory_map(str(self.path)) as source:
                return _open_arrow(self.path, source).schema
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(_damaged(self.path, str(error), self.advice)) from error


def open_shard(path: Path) -> Shard:
    """Read the block sizes of a file.

    Raises
    ------
    CorpusError
        If it is damaged, neither Parquet nor Arrow, or has no cells.
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
        raise CorpusError(_damaged(path, "it has no cells", shard.advice))
    return Shard(path, tuple(blocks))


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read the description that a block file carries; None if the file does not exist or is not a complete block file."""
    try:
        footer = pq.read_metadata(path)
        return kind.model_validate_json(footer.metadata[RECORD_KEY])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        logger.warning("%s is damaged and will be written again", path)
        return None


def block_starts(shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Return the first row of each block in the corpus, followed by the total number of rows."""
    starts: NDArray[np.int64] = np.cumsum([0, *(n for shard in shards for n in shard.blocks)])
    return starts


def _read(path: Path, block: int | None, columns: list[str] | None) -> pa.Table:
    if _magic(path) == _PARQUET:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if block is None:
                return file.read(columns)
            return file.read_row_group(block, columns)
    with pa.memory_map(str(path)) as source:
        reader = _open_arrow(path, source)
        # a stream has no index, but iterating over a memory-mapped one reads headers only
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
