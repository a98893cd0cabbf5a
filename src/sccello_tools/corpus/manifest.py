"""What a corpus on disk is made of: names of files and columns, the manifest, and the record of each shard."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from sccello_tools.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any, Final, Self

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
SHARD_FOLDER: Final = "shards"
BUILD_AGAIN: Final = "Call pp.build_corpus again with the same arguments: it keeps the finished shards and makes the missing ones."

# columns of a shard; the first two are called as in the published corpora
TOKENS: Final = "gene_token_ids"
LENGTH: Final = "length"
CELL_TYPE: Final = "cell_type_ontology_term_id"
SOURCE: Final = "source"
SOURCE_ROW: Final = "source_row"
RESERVED: Final = frozenset({TOKENS, LENGTH, CELL_TYPE, SOURCE, SOURCE_ROW})


@dataclass(frozen=True)
class CorpusConfig:
    """All that decides which rows a corpus holds; two runs into one folder must agree in it."""

    vocabulary_sha256: str
    """Hash of the gene vocabulary."""
    ontology_release: str
    """Release of the Cell Ontology that the labels were brought up to."""
    label_key: str
    """Column of ``obs`` with the Cell Ontology ids."""
    obs_keys: tuple[str, ...]
    """Other columns of ``obs`` that were kept."""
    layer: str | None
    """Layer with the counts; ``X`` if none."""
    gene_ids: str | None
    """Column of ``var`` with the names of the genes; its index if none."""
    max_length: int
    """Most tokens of a cell, ``<cls>`` included."""
    cells_per_shard: int
    """Rows of an input that one shard stands for; it holds fewer where cells were left out."""
    schema_version: int = SCHEMA_VERSION
    """Version of this layout."""

    @property
    def digest(self) -> str:
        """Hash of the configuration, kept with each shard."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def differences(self, other: CorpusConfig) -> list[str]:
        """Say in words where another configuration differs."""
        return [
            f"{item.name} was {getattr(self, item.name)!r} and is now {getattr(other, item.name)!r}"
            for item in fields(self)
            if getattr(self, item.name) != getattr(other, item.name)
        ]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``asdict`` and JSON made of it."""
        return cls(**{**values, "obs_keys": tuple(values["obs_keys"])})


@dataclass(frozen=True)
class Fingerprint:
    """How to tell that a file was changed without reading it."""

    n_bytes: int
    """Size; of a folder, that of all files in it."""
    mtime_ns: int
    """Time of the last change; of a folder, of its latest file."""


@dataclass(frozen=True)
class InputReport:
    """What became of the cells of one input."""

    source: str
    """Name of the input."""
    path: str
    """Where it was."""
    fingerprint: Fingerprint
    """Its size and time."""
    n_cells: int
    """Cells in the file."""
    n_genes_matched: int
    """Columns that are genes of the vocabulary."""
    n_kept: int = 0
    """Cells in the corpus."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Cells that were left out, by reason: "no_label", "unknown_label", "obsolete_label", "no_gene"."""
    labels_left_out: dict[str, int] = field(default_factory=dict)
    """Cells by label, for the labels that are unknown or obsolete without successor."""

    def __str__(self) -> str:
        reasons = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in self.left_out.items())
        return (
            f"{self.source}: {self.n_kept:,} of {self.n_cells:,} cells kept"
            f"{f'; left out: {reasons}' if reasons else ''}"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``asdict`` and JSON made of it."""
        return cls(**{**values, "fingerprint": Fingerprint(**values["fingerprint"])})


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard."""

    name: str
    """Name of the file, without its ending."""
    source: str
    """Input that its cells are from."""
    first_row: int
    """First row of the input that it stands for."""
    last_row: int
    """Row of the input after its last."""
    config: str
    """Hash of the configuration that made it."""
    fingerprint: Fingerprint
    """Of the input, when it was read."""
    n_bytes: int = 0
    """Size of the file; 0 if every cell was left out, then there is no file."""
    sha256: str = ""
    """Hash of the file."""
    blocks: tuple[int, ...] = ()
    """Cells of each row group."""
    n_tokens: int = 0
    """Tokens of all cells."""
    cell_types: dict[str, int] = field(default_factory=dict)
    """Cells by Cell Ontology id."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Cells that were left out, by reason."""

    @property
    def n_cells(self) -> int:
        """Cells in the shard."""
        return sum(self.blocks)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``asdict`` and JSON made of it."""
        fingerprint = Fingerprint(**values["fingerprint"])
        return cls(**{**values, "blocks": tuple(values["blocks"]), "fingerprint": fingerprint})


@dataclass(frozen=True)
class CorpusManifest:
    """Table of contents of a corpus, kept as ``manifest.json``."""

    config: CorpusConfig
    """What decided its rows."""
    obs_kinds: dict[str, str]
    """Kind of each kept column of ``obs``: "string", "bool", "int64" or "float64"."""
    inputs: tuple[InputReport, ...]
    """The inputs, in order."""
    complete: bool = False
    """Whether all shards are finished."""
    cell_types: dict[str, int] = field(default_factory=dict)
    """Cells by Cell Ontology id, most frequent first."""
    shards: tuple[ShardRecord, ...] = ()
    """The shards, in order."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder.

        Raises
        ------
        CorpusError
            If it is damaged, or of a version that this package does not know.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["config"]["schema_version"]
            if version != SCHEMA_VERSION:
                msg = (
                    f"{path} has schema version {version}; expected is {SCHEMA_VERSION}. "
                    "Build the corpus again with this version of sccello-tools."
                )
                raise CorpusError(msg)
            return cls(
                **{
                    **values,
                    "config": CorpusConfig.from_dict(values["config"]),
                    "inputs": tuple(map(InputReport.from_dict, values["inputs"])),
                    "shards": tuple(map(ShardRecord.from_dict, values["shards"])),
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, CorpusError):
                raise
            msg = f"{path} cannot be read as the manifest of a corpus ({error}). Delete it and build the corpus again into an empty folder."
            raise CorpusError(msg) from error

    def write(self, folder: Path) -> None:
        """Write the manifest whole or not at all."""
        write_json(folder / MANIFEST, asdict(self))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises
    ------
    CorpusError
        If the disk is full or cannot be written to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(values, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise CorpusError(cannot_write(path, error)) from error
    finally:
        remove_quietly(part)


def remove_quietly(part: Path) -> None:
    """Remove a file that may not exist, on a disk that may not let us."""
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return  # what stays is cleared away by the next run


def cannot_write(path: Path, error: OSError) -> str:
    """Say that a file of a corpus could not be written, and what to do."""
    return f"{path} cannot be written ({error.strerror or error}). Free space, or mend the folder. {BUILD_AGAIN}"
