"""The zarr group that one process appends to."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import EmbeddingFilesError, MissingExtraError

from .manifest import AGAIN, PARTS, BlockRecord

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Self

    from numpy.typing import NDArray

    from sccello_tools.corpus.manifest import Fingerprint

    from .manifest import EmbedConfig

VECTORS, N_TOKENS, TRUNCATED = "embedding", "n_tokens", "truncated"


class BlockRows(NamedTuple):
    """What is kept of the cells of a block."""

    vectors: NDArray[np.float32]
    """(n, d), NaN for cells without tokens."""
    n_tokens: NDArray[np.int32]
    """(n,)"""
    truncated: NDArray[np.bool_]
    """(n,)"""

    @property
    def sha256(self) -> str:
        """Hash of it all."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class PartWriter:
    """Appends blocks to the zarr group of one process, and a line for each to its journal.

    A block begins where a chunk of the arrays does, so that no chunk with finished rows is ever written to again.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.path = folder / PARTS / f"rank-{rank:04d}.zarr"
        self.journal = self.path.with_suffix(".jsonl")

    def open(self, config: EmbedConfig, *, n_used: int) -> Self:
        """Open the group to append after its first ``n_used`` rows, what else is there being of no record."""
        zarr = import_zarr()
        rows = config.cells_per_block
        group = zarr.open_group(self.path, mode="a")
        shapes = {VECTORS: (config.n_dimensions,), N_TOKENS: (), TRUNCATED: ()}
        kinds = {VECTORS: "float32", N_TOKENS: "int32", TRUNCATED: "bool"}
        for name, rest in shapes.items():
            if name not in group:
                group.create_array(name, shape=(0, *rest), chunks=(rows, *rest), dtype=kinds[name])
        self._arrays = [group[name] for name in shapes]
        self._next = -(-n_used // rows) * rows
        self._step = rows
        if self.journal.exists():
            _end_line(self.journal)
        return self

    def append(self, block: str, rows: BlockRows, fingerprint: Fingerprint) -> None:
        """Write the rows, then say so.

        Raises
        ------
        EmbeddingFilesError
            If the disk is full or cannot be written to.
        """
        at, n = self._next, len(rows.vectors)
        record = BlockRecord(block, self.path.name, at, n, rows.sha256, fingerprint)
        try:
            for array, values in zip(self._arrays, rows):
                array.resize((at + n, *array.shape[1:]))
                array[at : at + n] = values
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            msg = f"{self.path} cannot be written ({error.strerror or error}). Free space, or mend the folder. {AGAIN}"
            raise EmbeddingFilesError(msg) from error
        self._next = at + self._step


def read_block(folder: Path, record: BlockRecord) -> BlockRows | None:
    """Read a recorded block; None if it is not what was written."""
    zarr = import_zarr()
    rows = slice(record.at, record.at + record.n_cells)
    try:
        group = zarr.open_group(folder / PARTS / record.part, mode="r")
        found = BlockRows(*(group[name][rows] for name in (VECTORS, N_TOKENS, TRUNCATED)))
    except (OSError, KeyError, ValueError, RuntimeError):
        return None
    return found if found.sha256 == record.sha256 else None


def import_zarr() -> Any:
    """Import zarr, which an extra brings."""
    try:
        import zarr
    except ImportError as error:
        what = "embed_files"
        raise MissingExtraError(what, extra="scale") from error
    return zarr


def _end_line(journal: Path) -> None:
    """End a line that was cut off, so that the next one stands by itself."""
    with journal.open("rb+") as file:
        if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END) or file.read(1) != b"\n"):
            file.write(b"\n")
