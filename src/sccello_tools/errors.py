"""Every error that this package raises on purpose, to be caught by name."""

from __future__ import annotations

from ._errors import (
    BackedDataError,
    BackendError,
    ConfigError,
    CorpusError,
    DownloadError,
    DrugError,
    FileFormatError,
    GeneMatchError,
    GroupError,
    HashMismatchError,
    LabelError,
    ManifestError,
    MissingExtraError,
    ModelNotFoundError,
    NotCountsError,
    OntologyError,
    ResponseError,
    ScCelloError,
    TrainingError,
    WeightsError,
)

__all__ = [
    "BackedDataError",
    "BackendError",
    "ConfigError",
    "CorpusError",
    "DownloadError",
    "DrugError",
    "FileFormatError",
    "GeneMatchError",
    "GroupError",
    "HashMismatchError",
    "LabelError",
    "ManifestError",
    "MissingExtraError",
    "ModelNotFoundError",
    "NotCountsError",
    "OntologyError",
    "ResponseError",
    "ScCelloError",
    "TrainingError",
    "WeightsError",
]
