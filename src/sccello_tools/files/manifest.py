"""What a folder of embeddings is made of: its table of contents, and the journals of those who write to it.

``manifest.json`` says what decides the rows, and is written twice: before the work, and when all is done. Each process appends its
vectors to a zarr group of its own, ``parts/rank-0000.zarr``, and one line a finished block to ``parts/rank-0000.jsonl``. A block
without a line does not exist; a line that was cut off is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools._io import write_text
from sccello_tools.corpus.manifest import Fingerprint
from sccello_tools.errors import EmbeddingFilesError

from .spans import spans_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Final, Self

    from .spans import Span

MANIFEST: Final = "manifest.json"
PARTS: Final = "parts"
CELLS: Final = "cells.parquet"
AGAIN: Final = (
    "Call embed_files again with the same arguments: it goes on, and keeps what is finished."
)
_SCHEMA: Final = 1


@dataclass(frozen=True)
class EmbedConfig:
    """What decides the vectors."""

    weights_sha256: str
    vocabulary_sha256: str
    representation: str
    precision: str
    max_length: int
    layer: str | None
    gene_ids: str | None
    counts: str
    cells_per_block: int
    n_dimensions: int

    def differences(self, other: EmbedConfig) -> list[str]:
        """Say in words where another configuration differs."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{key} was {mine[key]!r} and is now {theirs[key]!r}"
            for key in mine
            if mine[key] != theirs[key]
        ]


@dataclass(frozen=True)
class InputFile:
    """One input, in order."""

    source: str
    path: str
    fingerprint: Fingerprint
    n_cells: int
    n_genes_matched: int


@dataclass(frozen=True)
class BlockRecord:
    """One line of a journal: a block that is finished."""

    block: str
    """Its name."""
    part: str
    """Zarr group that holds it."""
    at: int
    """Its first row there."""
    n_cells: int
    sha256: str
    """Of its vectors."""
    fingerprint: Fingerprint
    """Of its input when it was read."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what ``asdict`` and JSON made of it."""
        return cls(**{**values, "fingerprint": Fingerprint(**values["fingerprint"])})


class Block(NamedTuple):
    """Rows that are embedded together, by one process."""

    number: int
    """Its input."""
    span: Span
    """Its rows there."""
    first: int
    """Its first row among those of all inputs."""


@dataclass(frozen=True)
class EmbedManifest:
    """Table of contents, kept as ``manifest.json``."""

    config: EmbedConfig
    model: str
    ontology_release: str
    sccello_tools_version: str
    inputs: tuple[InputFile, ...]
    complete: bool = False
    """Whether every block is finished."""
    records: tuple[BlockRecord, ...] = ()
    """Where each block is, once all are finished."""

    @property
    def n_cells(self) -> int:
        """Cells of all inputs."""
        return sum(file.n_cells for file in self.inputs)

    def blocks(self) -> list[Block]:
        """Blocks of all inputs, in order."""
        found: list[Block] = []
        first, n_rows = 0, self.config.cells_per_block
        for number, file in enumerate(self.inputs):
            spans = spans_of(number, file.n_cells, n_rows)
            found += [Block(number, span, first + span.start) for span in spans]
            first += file.n_cells
        return found

    def write(self, folder: Path) -> None:
        """Write it whole or not at all."""
        values = {"schema_version": _SCHEMA, **asdict(self)}
        write_text(folder / MANIFEST, json.dumps(values, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read that of a folder.

        Raises
        ------
        EmbeddingFilesError
            If there is none, or it is damaged or of another version.
        """
        path = folder / MANIFEST
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("schema_version")
            if version != _SCHEMA:
                msg = f"{path} has schema version {version}; expected is {_SCHEMA}. Use the version of sccello-tools that wrote it, or embed into a new folder."
                raise EmbeddingFilesError(msg)
            inputs = tuple(
                InputFile(**{**file, "fingerprint": Fingerprint(**file["fingerprint"])})
                for file in values["inputs"]
            )
            records = tuple(BlockRecord.from_dict(record) for record in values["records"])
            config = EmbedConfig(**values["config"])
            return cls(**{**values, "config": config, "inputs": inputs, "records": records})
        except FileNotFoundError as error:
            msg = f"{folder} holds no embeddings: it has no {MANIFEST}. Make them with embed_files(paths, {str(folder)!r})."
            raise EmbeddingFilesError(msg) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, EmbeddingFilesError):
                raise
            msg = f"{path} cannot be read ({error}). Embed into a new folder."
            raise EmbeddingFilesError(msg) from error


def read_journals(folder: Path) -> dict[str, list[BlockRecord]]:
    """Read the records of each block, whoever wrote it; later ones of one process come last."""
    found: dict[str, list[BlockRecord]] = {}
    for path in sorted((folder / PARTS).glob("rank-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = BlockRecord.from_dict(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue  # the line that a killed process was writing
            if record.part == path.with_suffix(".zarr").name:
                found.setdefault(record.block, []).append(record)
    return found
