"""What is known of a model and of each of its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Final

Source = Literal["bundled", "huggingface", "url", "local"]
Kind = Literal["encoder", "drug-response"]
Scalar = str | int | float | bool | None

UNVERIFIED: Final = "unverified"
"""Stands where a sha256 is not known; the first download then pins it."""

CONFIG_FILE: Final = "config.json"
LABELS_FILE: Final = "labels.tsv"
METADATA_FILE: Final = "metadata.json"
CARD_FILE: Final = "README.md"
ANNOTATION_FILE: Final = "annotation.safetensors"
CLASSIFIER_FILE: Final = "classifier.safetensors"
WEIGHTS_FILES: Final = ("model.safetensors", "pytorch_model.bin")  # the first that exists is read
KNOWN_FILES: Final = (
    CONFIG_FILE,
    *WEIGHTS_FILES,
    LABELS_FILE,
    METADATA_FILE,
    CARD_FILE,
    ANNOTATION_FILE,
    CLASSIFIER_FILE,
)
FREE_FIELDS: Final = (
    "pretrain_config",
    "finetune_config",
)  # of metadata.json: kept for the reader, of any form


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Examples
    --------
    >>> from sccello_tools.models.manifest import ModelFile
    >>> ModelFile("config.json").is_verified
    False
    """

    path: str
    """Place inside the model's folder, with forward slashes."""

    sha256: str = UNVERIFIED
    """64 hexadecimal digits, or "unverified"."""

    n_bytes: int | None = None
    """Exact size, if known."""

    n_bytes_about: int | None = None
    """Rough size where the exact one is not known; bounds what a server may send."""

    url: str | None = None
    """Full address, for models of source "url"."""

    @property
    def is_verified(self) -> bool:
        """Whether the manifest states the hash."""
        return self.sha256 != UNVERIFIED


@dataclass(frozen=True)
class Vocabulary:
    """The gene vocabulary a model was trained with."""

    name: str
    sha256: str
    """Hash of the vocabulary table, uncompressed."""


@dataclass(frozen=True)
class LabelSpace:
    """The cell types that a model's prototypes stand for."""

    name: str
    n_labels: int
    resource: str | None = None
    """Table among the package's resources, for models whose folder holds no ``labels.tsv``."""


@dataclass(frozen=True)
class TrainingData:
    """What a model was trained on."""

    description: str
    n_cells: int | None = None


@dataclass(frozen=True)
class ModelEntry:
    """What the manifest says of one model.

    Examples
    --------
    >>> from sccello_tools.models.manifest import find_entry
    >>> find_entry("sccello-zeroshot").n_parameters
    10681094
    """

    name: str
    source: Source
    kind: Kind = "encoder"
    """What the files hold, and so what :func:`sccello_tools.models.load` makes of them: a scCello encoder, or a drug response model."""
    description: str = ""
    files: tuple[ModelFile, ...] = ()
    config: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """Size and constants, as in the model's ``config.json``."""
    vocabulary: Vocabulary | None = None
    label_space: LabelSpace | None = None
    ontology_release: str | None = None
    """Cell Ontology release of the labels and the losses, e.g. "2026-03-26"."""
    licence: str | None = None
    licence_note: str | None = None
    citation: str | None = None
    paper: str | None = None
    training_data: TrainingData | None = None
    representation: Literal["cls", "cell"] = "cls"
    """Which vector of a cell to use unless another is asked for."""
    n_parameters: int | None = None
    repo: str | None = None
    """Repository on Hugging Face, "owner/name"."""
    revision: str | None = None
    """Commit of that repository; may be shortened."""
    folder: Path | None = None
    """Where the files lie, for models of source "bundled" and "local"."""

    @property
    def n_bytes(self) -> int | None:
        """Size of all files, rough where only a rough size is known; None if nothing is."""
        sizes = [file.n_bytes or file.n_bytes_about for file in self.files]
        known = [size for size in sizes if size is not None]
        return sum(known) if known else None

    @property
    def hidden_size(self) -> int | None:
        """Width of the embedding, if the configuration says it."""
        value = self.config.get("hidden_size")
        return value if isinstance(value, int) else None
