"""Lists of models, and what is known of one, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .hub import is_available, model_folder
from .labels import read_labels
from .load import find_model
from .registry import CARD_FILE, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from .registry import ModelEntry


@dataclass(frozen=True, repr=False)
class ModelInfo:
    """Description of a model; printing it shows all fields."""

    entry: ModelEntry
    """What the manifest, or ``metadata.json`` in the folder, states."""
    folder: Path
    """Location of the files, which may not be downloaded yet."""
    is_available: bool
    """Whether all files are on this machine."""

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.entry.name

    @property
    def card(self) -> Path | None:
        """The model card, if it is on this machine."""
        path = self.folder / CARD_FILE
        return path if path.is_file() else None

    @property
    def n_cell_types(self) -> int | None:
        """Number of cell types of the prototypes, if known."""
        if self.entry.label_space is not None:
            return self.entry.label_space.n_labels
        return len(read_labels(self.entry, self.folder).ids) or None if self.is_available else None

    @property
    def homepage(self) -> str | None:
        """Page of the model on the Hugging Face Hub."""
        return None if self.entry.repo is None else f"https://huggingface.co/{self.entry.repo}"

    def __repr__(self) -> str:
        entry = self.entry
        size = "" if entry.n_bytes is None else f", {entry.n_bytes / 1e6:.1f} MB"
        available = "available" if self.is_available else "not downloaded"
        parameters = None if entry.n_parameters is None else f"{entry.n_parameters:,}"
        hashes = [f"{file.path}: {file.sha256}" for file in entry.files]
        rows = {
            "description": entry.description or None,
            "kind": entry.kind,
            "source": f"{entry.source}, {available}{size}",
            "folder": self.folder,
            "card": self.card or self.homepage,
            "files": "\n".join(hashes) or None,
            "parameters": parameters,
            "hidden size": entry.hidden_size,
            "representation": entry.representation,
            "vocabulary": entry.vocabulary and entry.vocabulary.name,
            "cell types": self.n_cell_types,
            "tissue": entry.tissue,
            "ontology": entry.ontology_release,
            "training data": entry.training_data and entry.training_data.description,
            "limitations": entry.limitations,
            "licence": " - ".join(t for t in (entry.licence, entry.licence_note) if t) or None,
            "citation": entry.citation,
            "paper": entry.paper,
        }
        lines = [self.name]
        for label, value in rows.items():
            text = "unknown" if value is None else str(value).replace("\n", "\n" + " " * 18)
            lines.append(f"  {label:<16}{text}")
        return "\n".join(lines)


def list_models(manifest: str | Path | None = None) -> pd.DataFrame:
    """List the models that can be loaded by name.

    Parameters
    ----------
    manifest
        A manifest to read in addition to the packaged one.

    Returns
    -------
    One row per model: name, kind, source, available (all files on this machine), tissue, n_cell_types, n_parameters, hidden_size,
    size_mb (10^6 bytes), licence, ontology_release, n_training_cells, description. Unknown values are missing.

    Raises
    ------
    ManifestError
        If a manifest cannot be read.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> sccello.models.list()["name"].tolist()
    ['sccello-small', 'sccello-zeroshot', 'gdsc-small']
    """
    import pandas as pd

    table = pd.DataFrame.from_records([_row(entry) for entry in read_manifest(manifest).values()])
    counts = ["n_cell_types", "n_parameters", "hidden_size", "n_training_cells"]
    return table.astype(dict.fromkeys(counts, "Int64") | {"size_mb": "float64"})


def info(name_or_folder: str | Path, *, manifest: str | Path | None = None) -> ModelInfo:
    """Describe a model without loading or downloading its weights.

    Parameters
    ----------
    name_or_folder
        Name of a model, path of a model folder, or a repository on the Hugging Face Hub, ``"hf://owner/name@revision"``.
    manifest
        A manifest to read in addition to the packaged one.

    Returns
    -------
    Manifest entry, folder and availability.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a folder nor a repository of that name.
    ManifestError
        If the manifest or the ``metadata.json`` of the folder is invalid.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> sccello.models.info("sccello-zeroshot").homepage
    'https://huggingface.co/katarinayuan/scCello-zeroshot'
    """
    entry = find_model(name_or_folder, manifest)
    return ModelInfo(entry, model_folder(entry), is_available(entry))


def _row(entry: ModelEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "source": entry.source,
        "available": is_available(entry),
        "tissue": entry.tissue,
        "n_cell_types": ModelInfo(entry, model_folder(entry), is_available(entry)).n_cell_types,
        "n_parameters": entry.n_parameters,
        "hidden_size": entry.hidden_size,
        "size_mb": None if entry.n_bytes is None else round(entry.n_bytes / 1e6, 1),
        "licence": entry.licence,
        "ontology_release": entry.ontology_release,
        "n_training_cells": entry.training_data and entry.training_data.n_cells,
        "description": entry.description,
    }
