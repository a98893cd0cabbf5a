"""``cells.parquet``: which cell each row of the embeddings is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools import _keys
from sccello_tools.errors import EmbeddingFilesError

from .inputs import as_text, frame_of, open_store, read_column
from .manifest import AGAIN, CELLS
from .part import read_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .manifest import Block, BlockRecord, EmbedManifest

_SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("source_row", pa.int64()),
        (_keys.N_TOKENS, pa.int32()),
        (_keys.TRUNCATED, pa.bool_()),
    ]
)


def write_cells(out: Path, manifest: EmbedManifest, records: Sequence[BlockRecord]) -> None:
    """Write the table whole or not at all, in the order of the inputs.

    Raises
    ------
    EmbeddingFilesError
        If a block is damaged, or the disk is full.
    """
    path = out / CELLS
    part = path.with_name(f".{CELLS}.{os.getpid()}.part")
    try:
        with pq.ParquetWriter(part, _SCHEMA) as writer:
            names, number = np.zeros(0, dtype=object), -1
            for block, record in zip(manifest.blocks(), records):
                file = manifest.inputs[block.number]
                if number != block.number:
                    names, number = _names(Path(file.path)), block.number
                writer.write_table(_table(out, block, record, file.source, names))
        part.replace(path)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror or error}). Free space, or mend the folder. {AGAIN}"
        raise EmbeddingFilesError(msg) from error
    finally:
        part.unlink(missing_ok=True)


def _names(path: Path) -> NDArray[np.object_]:
    """Names of the cells of an input."""
    with open_store(path) as store:
        obs = frame_of(store, path, "obs")
        return as_text(read_column(obs, obs.attrs["_index"], 0, None), missing="")


def _table(
    out: Path, block: Block, record: BlockRecord, source: str, names: NDArray[np.object_]
) -> pa.Table:
    rows = read_block(out, record)
    if rows is None:
        msg = f"Block {block.span.name} of {out} is damaged. {AGAIN}"
        raise EmbeddingFilesError(msg)
    start, stop = block.span.start, block.span.stop
    columns = [
        pa.array(names[start:stop], pa.string()),
        pa.DictionaryArray.from_arrays(np.zeros(stop - start, dtype=np.int32), [source]),
        pa.array(np.arange(start, stop)),
        pa.array(rows.n_tokens),
        pa.array(rows.truncated),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
