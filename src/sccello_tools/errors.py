"""Every error that this package raises on purpose, to be caught by name."""

from __future__ import annotations

from ._errors import (
    BackendError,
    ConfigError,
    DownloadError,
    FileFormatError,
    GeneMatchError,
    HashMismatchError,
    LabelError,
    ManifestError,
    MissingExtraError,
    ModelNotFoundError,
    NotCountsError,
    OntologyError,
    ScCelloError,
    TrainingError,
    WeightsError,
)

__all__ = [
    "BackendError",
    "ConfigError",
    "DownloadError",
    "FileFormatError",
    "GeneMatchError",
    "HashMismatchError",
    "LabelError",
    "ManifestError",
    "MissingExtraError",
    "ModelNotFoundError",
    "NotCountsError",
    "OntologyError",
    "ScCelloError",
    "TrainingError",
    "WeightsError",
]
