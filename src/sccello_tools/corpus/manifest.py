"""Manifests of results on disk: what decided their rows, the inputs they were made from, and the shards of a corpus."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sccello_tools._io import write_text
from sccello_tools.errors import CorpusError, ScCelloError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Final, Self

MANIFEST: Final = "manifest.json"
SHARD_FOLDER: Final = "shards"
BUILD_AGAIN: Final = "Call pp.build_corpus again with the same arguments: finished shards are kept."

# columns of a shard; the first two have the names of the published corpora
TOKENS: Final = "gene_token_ids"
LENGTH: Final = "length"
CELL_TYPE: Final = "cell_type_ontology_term_id"
SOURCE: Final = "source"
SOURCE_ROW: Final = "source_row"
RESERVED: Final = frozenset({TOKENS, LENGTH, CELL_TYPE, SOURCE, SOURCE_ROW})

ColumnKind = Literal["string", "bool", "int64", "float64"]


class Stored(BaseModel):
    """Base of everything that is stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Config(Stored):
    """What decides the rows of a result. A later call into the same folder must agree with it."""

    vocabulary_sha256: str
    """Hash of the gene vocabulary."""
    layer: str | None
    """Layer with the counts; None for ``X``."""
    gene_ids: str | None
    """Column of ``var`` with gene names; None for its index or the stored match."""
    max_length: int = Field(ge=2)
    """Maximum number of tokens of a cell, ``<cls>`` included."""
    cells_per_block: int = Field(ge=1)
    """Rows of an input that are processed and written together."""

    @property
    def digest(self) -> str:
        """Hash of the configuration, stored with each block."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def differences(self, other: Config) -> list[str]:
        """Describe the fields in which another configuration differs."""
        before, now = self.model_dump(), other.model_dump()
        return [f"{key} was {before[key]!r} and is now {now.get(key)!r}" for key in before if before[key] != now.get(key)]  # fmt: skip


class Fingerprint(Stored):
    """Size and modification time, which reveal that a file was changed without reading it."""

    n_bytes: int
    """Size; of a folder, of all files in it."""
    mtime_ns: int
    """Time of the last change, ns since 1970; of a folder, of its latest file."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a file, at all files of a folder, or at the file that holds a modality such as ``file.h5mu/rna``."""
        while not path.exists() and path.parent != path:
            path = path.parent
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        stats = [file.stat() for file in files]
        latest = max((stat.st_mtime_ns for stat in stats), default=0)
        return cls(n_bytes=sum(stat.st_size for stat in stats), mtime_ns=latest)


class Input(Stored):
    """One input and what became of its cells."""

    source: str
    """Name of the input."""
    path: str
    fingerprint: Fingerprint | None = None
    """None if it could not be read."""
    n_cells: int = 0
    """Cells of the input."""
    n_genes_matched: int = 0
    """Columns that are genes of the vocabulary."""
    by_row: bool = True
    """Whether rows can be read independently; False for CSC matrices and matrix.mtx folders."""
    error: str = ""
    """Why it was left out, with ``errors="report"``."""
    n_kept: int = 0
    """Cells in the corpus."""
    left_out: dict[str, int] = {}
    """Cells left out of the corpus, by reason: "no_label", "uninformative_label", "unknown_label", "obsolete_label", "no_gene"."""
    labels_left_out: dict[str, int] = {}
    """Cells by label, for labels that are unknown or obsolete without successor."""
    labels_uninformative: dict[str, int] = {}
    """Cells by label, for labels that do not name a cell type, such as "unknown" or CL:0000003."""

    def __str__(self) -> str:
        if self.error:
            return f"{self.source}: failed: {self.error}"
        reasons = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in self.left_out.items())
        labels = ", ".join(map(repr, list(self.labels_uninformative)[:5]))
        shown = f"{f'; left out: {reasons}' if reasons else ''}{f' (labels that name no cell type: {labels})' if labels else ''}"
        return f"{self.source}: {self.n_kept:,} of {self.n_cells:,} cells kept{shown}"


class Manifest(Stored):
    """Description of a folder of results, stored as ``manifest.json``."""

    NOUN: ClassVar[str] = "results"
    ERROR: ClassVar[type[ScCelloError]] = ScCelloError
    REMEDY: ClassVar[str] = ""
    SCHEMA: ClassVar[int] = 2

    schema_version: int
    config: Config
    inputs: tuple[Input, ...]
    """In the order of the call."""
    complete: bool = False

    @property
    def plan(self) -> str:
        """Hash of the configuration and the inputs, which identifies a job."""
        inputs = [(file.source, file.path, file.fingerprint) for file in self.inputs]
        return hashlib.sha256(f"{self.config.digest} {inputs}".encode()).hexdigest()

    @property
    def failures(self) -> dict[str, str]:
        """Why inputs were left out, by name."""
        return {file.source: file.error for file in self.inputs if file.error}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder.

        Raises
        ------
        ScCelloError
            Of the type of the result, if there is none, it is damaged, or it is of another version of this package.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.get("schema_version") if isinstance(values, dict) else None
            if isinstance(version, int) and version != cls.SCHEMA:
                msg = f"{path} has schema version {version}, this version of sccello-tools reads {cls.SCHEMA}. {cls.REMEDY}"
                raise cls.ERROR(msg)
            return cls.model_validate(values)
        except FileNotFoundError as error:
            msg = f"{folder} holds no {cls.NOUN}: {MANIFEST} not found. {cls.REMEDY}"
            raise cls.ERROR(msg) from error
        except (ValueError, OSError) as error:
            reason = "another kind of folder" if isinstance(error, ValidationError) else str(error)
            msg = f"{path} cannot be read as the manifest of {cls.NOUN} ({reason}). {cls.REMEDY}"
            raise cls.ERROR(msg) from error

    def write(self, folder: Path) -> None:
        """Write the manifest atomically."""
        write_text(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")


class CorpusConfig(Config):
    """What decides the rows of a corpus."""

    ontology_release: str
    """Cell Ontology release of the labels."""
    label_key: str
    """Column of ``obs`` with Cell Ontology ids."""
    obs_keys: tuple[str, ...]
    """Further columns of ``obs`` that are kept."""


class Record(Stored):
    """Description of a finished block, stored in its file."""

    name: str
    """Name of the file without extension."""
    config: str
    """Digest of the configuration."""
    fingerprint: Fingerprint
    """Of the input when it was read."""
    first_row: int
    """First row of the input."""
    last_row: int
    """Row of the input after the last one."""

    @property
    def n_rows(self) -> int:
        """Number of rows of the input."""
        return self.last_row - self.first_row


class ShardRecord(Record):
    """Description of a finished shard of a corpus."""

    source: str
    """Input of its cells."""
    blocks: tuple[int, ...] = ()
    """Cells of each row group."""
    n_tokens: int = 0
    """Tokens of all cells."""
    sha256: str = ""
    """Hash of tokens, labels and rows."""
    cell_types: dict[str, int] = {}
    """Cells by Cell Ontology id."""
    left_out: dict[str, int] = {}
    """Cells left out, by reason."""

    @property
    def n_cells(self) -> int:
        """Cells in the shard."""
        return sum(self.blocks)


class CorpusManifest(Manifest):
    """Description of a corpus."""

    NOUN = "a corpus"
    ERROR = CorpusError
    REMEDY = "Build the corpus again into an empty folder with pp.build_corpus."

    config: CorpusConfig
    obs_kinds: dict[str, ColumnKind]
    """Kind of each kept column of ``obs``."""
    terms: dict[str, str]
    """Current Cell Ontology id of each label of the inputs; labels without one are absent."""
    obsolete: tuple[str, ...] = ()
    """Labels that are obsolete without successor."""
    cell_types: dict[str, int] = {}
    """Cells by Cell Ontology id, most frequent first."""
    shards: tuple[ShardRecord, ...] = ()
    """The shards, in order."""
