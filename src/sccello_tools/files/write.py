"""Write the rows of a block as one Parquet file, atomically, with a description of what they were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools._io import atomic_path
from sccello_tools.corpus import RECORD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sccello_tools.corpus.manifest import Record


def write_rows(
    path: Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    record: Record,
    *,
    row_group: int | None = None,
) -> None:
    """Write tables one after the other into one file; all of it, or nothing if the process is killed.

    Parameters
    ----------
    path
        File to write.
    schema
        Columns.
    tables
        Consecutive rows; only one table is in memory at a time.
    record
        Stored in the metadata of the file, see :func:`sccello_tools.corpus.read_record`.
    row_group
        Maximum number of rows that are compressed together; a whole table by default.

    Raises
    ------
    OutputError
        If the disk is full or not writable.
    """
    described = schema.with_metadata({RECORD_KEY: record.model_dump_json().encode()})
    encoded = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    # token ids and embeddings are hardly compressible: level 1 and no dictionaries
    with (
        atomic_path(path) as part,
        part.open("wb") as file,
        pq.ParquetWriter(file, described, compression="zstd", compression_level=1, use_dictionary=encoded, write_page_checksum=True) as writer,
    ):  # fmt: skip
        for table in tables:
            writer.write_table(table.replace_schema_metadata(described.metadata), row_group)
