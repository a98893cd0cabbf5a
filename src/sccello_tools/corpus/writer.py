"""Write one shard of a corpus: a Parquet file and, once that is whole, its record beside it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools._logging import logger
from sccello_tools.errors import CorpusError

from .manifest import (
    CELL_TYPE,
    LENGTH,
    SHARD_FOLDER,
    SOURCE,
    SOURCE_ROW,
    TOKENS,
    ShardRecord,
    cannot_write,
    remove_quietly,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools.tokens.tokenizer import RaggedTokens

CELLS_PER_BLOCK: Final = 1024  # of a row group, the least that is read at once: about 3 MB
_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
_KINDS: Final = {
    "string": _NAMES, "bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(),
}  # fmt: skip


class ShardCells(NamedTuple):
    """Some consecutive cells that go into a shard, and what was left out between them."""

    tokens: RaggedTokens
    """Their tokens."""
    cell_types: NDArray[np.object_]
    """Their Cell Ontology ids."""
    rows: NDArray[np.int64]
    """Their rows in the input."""
    obs: Mapping[str, NDArray[np.generic]]
    """Chosen columns of ``obs``; None for a missing value of a column of strings."""
    left_out: Mapping[str, int]
    """Cells left out, by reason."""


def shard_schema(obs_kinds: Mapping[str, str]) -> pa.Schema:
    """Columns of a shard."""
    columns = {
        # every id of the vocabulary fits 16 bits
        TOKENS: pa.list_(pa.uint16()),
        LENGTH: pa.int32(),
        CELL_TYPE: _NAMES,
        SOURCE: _NAMES,
        SOURCE_ROW: pa.int64(),
        **{key: _KINDS[kind] for key, kind in obs_kinds.items()},
    }
    return pa.schema(list(columns.items()))


def write_shard(
    folder: Path, record: ShardRecord, cells: Iterable[ShardCells], obs_kinds: Mapping[str, str]
) -> ShardRecord:
    """Write a shard whole or not at all, then its record.

    Parameters
    ----------
    folder
        Folder of the corpus.
    record
        The record, without what is only known once the shard is written.
    cells
        Its cells, in order; each piece becomes row groups of its own.
    obs_kinds
        Kind of each column of ``obs``.

    Returns
    -------
    The full record.

    Raises
    ------
    CorpusError
        If the disk is full or cannot be written to. No trace of the shard is left then.
    """
    path = shard_path(folder, record.name)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    schema = shard_schema(obs_kinds)
    left_out: Counter[str] = Counter()
    cell_types: Counter[str] = Counter()
    blocks: list[int] = []
    n_tokens = 0
    try:
        with part.open("wb") as file:
            # level 1: token ids are nearly incompressible, more effort gains nothing
            writer = pq.ParquetWriter(file, schema, compression="zstd", compression_level=1)
            with writer:
                for piece in cells:
                    left_out.update(piece.left_out)
                    for block in _blocks(piece, record.source, schema):
                        writer.write_table(block)
                        blocks.append(len(block))
                    cell_types.update(piece.cell_types.tolist())
                    n_tokens += len(piece.tokens.ids)
            file.flush()
            os.fsync(
                file.fileno()
            )  # else a machine that loses power may keep the name, but not the bytes
        record = replace(
            record,
            blocks=tuple(blocks),
            n_tokens=n_tokens,
            cell_types=dict(sorted(cell_types.items())),
            left_out={why: n for why, n in sorted(left_out.items()) if n},
        )
        if blocks:
            record = replace(record, n_bytes=part.stat().st_size, sha256=sha256_of(part))
            part.replace(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CorpusError(cannot_write(path, error)) from error
    finally:
        remove_quietly(part)
    write_json(path.with_suffix(".json"), asdict(record))
    return record


def finished_shard(folder: Path, name: str) -> ShardRecord | None:
    """Read the record of a shard; None if the shard is not finished, or its file is not the one that was written."""
    path = shard_path(folder, name)
    try:
        values = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        record = ShardRecord.from_dict(values)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        logger.warning("%s has a damaged record and is made again", path)
        return None
    if record.n_cells == 0:
        return record
    try:
        if (
            path.stat().st_size == record.n_bytes
            and pq.read_metadata(path).num_rows == record.n_cells
        ):
            return record
    except (OSError, pa.ArrowException):
        logger.debug("%s cannot be read", path)
    logger.warning("%s is damaged or missing and is made again", path)
    return None


def shard_path(folder: Path, name: str) -> Path:
    """Return the path of a shard's Parquet file."""
    return folder / SHARD_FOLDER / f"{name}.parquet"


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _blocks(cells: ShardCells, source: str, schema: pa.Schema) -> Iterable[pa.Table]:
    """Turn cells into tables of the size of a row group."""
    tokens = cells.tokens
    if not len(tokens):
        return
    # offsets of 32 bits are enough for the cells of one piece
    offsets = pa.array(tokens.indptr.astype(np.int32))
    ids = pa.array(tokens.ids.astype(np.uint16))
    columns = [
        pa.ListArray.from_arrays(offsets, ids),
        pa.array(tokens.lengths.astype(np.int32)),
        _as_names(cells.cell_types),
        pa.DictionaryArray.from_arrays(np.zeros(len(tokens), dtype=np.int32), [source]),
        pa.array(cells.rows),
    ]
    for key in schema.names[len(columns) :]:
        values = cells.obs[key]
        kind = schema.field(key).type
        columns.append(_as_names(values) if kind == _NAMES else pa.array(values).cast(kind))
    table = pa.Table.from_arrays(columns, schema=schema)
    for start in range(0, len(table), CELLS_PER_BLOCK):
        yield table.slice(start, CELLS_PER_BLOCK)


def _as_names(values: NDArray[np.generic]) -> pa.DictionaryArray:
    return pa.array(values, type=pa.string()).dictionary_encode()
