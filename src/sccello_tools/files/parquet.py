"""Parquet files of results: written atomically with a description of what they were made from, read with checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools._io import atomic_path
from sccello_tools.corpus import RECORD_KEY
from sccello_tools.errors import FilesError

from .run import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.corpus.manifest import Record

NAMES = pa.dictionary(pa.int32(), pa.string())


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


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a file of results, by default all, and verify its checksums.

    Raises
    ------
    FilesError
        If the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        msg = f"{path} is missing or damaged ({error}). Delete it if it exists. {AGAIN}"
        raise FilesError(msg) from error


def as_table(columns: Mapping[str, Any], schema: pa.Schema | None = None) -> pa.Table:
    """Convert columns to an Arrow table; text becomes dictionary-encoded, missing values become nulls."""
    arrays = {}
    for name, values in columns.items():
        kind = None if schema is None else schema.field(name).type
        if isinstance(values, pa.Array | pa.ChunkedArray):
            arrays[name] = values
        elif isinstance(values, pd.Categorical) or kind == NAMES:
            text = pa.array(np.asarray(values, dtype=object), type=pa.string(), from_pandas=True)
            arrays[name] = text.dictionary_encode()
        else:
            array = pa.array(values)
            arrays[name] = array if kind is None else array.cast(kind)
    return pa.table(arrays, schema=schema)


def vector_column(vectors: NDArray[np.float32]) -> pa.Array:
    """Return vectors, (n, d), as one Arrow column."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(vectors).ravel()), vectors.shape[1]
    )


def vectors_of(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return the vectors of :func:`vector_column`."""
    flat: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)
