"""Exception types. Each message states what was found, what is required and how to proceed."""

from __future__ import annotations

import functools

__all__ = [
    "ArgumentError",
    "BackedDataError",
    "BackendError",
    "ConfigError",
    "CorpusError",
    "DownloadError",
    "DrugError",
    "FileFormatError",
    "FilesError",
    "GeneMatchError",
    "GroupError",
    "HashMismatchError",
    "LabelError",
    "ManifestError",
    "MissingExtraError",
    "ModelNotFoundError",
    "NotCountsError",
    "NotFoundError",
    "OntologyError",
    "OutputError",
    "OutputExistsError",
    "ResponseError",
    "ScCelloError",
    "SchemaError",
    "SparseStructureError",
    "TrainingError",
    "WeightsError",
]


class ScCelloError(Exception):
    """Base class of all exceptions of this package."""


class ArgumentError(ScCelloError, ValueError):
    """An argument is invalid, out of range, or inconsistent with others."""


class NotFoundError(ScCelloError, KeyError):
    """A required column, result or name does not exist."""

    __str__ = Exception.__str__  # KeyError would quote the message


class OutputExistsError(ScCelloError, FileExistsError):
    """The output location already exists."""


class OutputError(ScCelloError, OSError):
    """An output cannot be written: no space, no permission, or no such folder."""


class NotCountsError(ScCelloError, ValueError):
    """The selected matrix does not hold raw counts."""


class SparseStructureError(ScCelloError, ValueError):
    """The index arrays of a sparse matrix are inconsistent or out of range: the matrix is damaged."""


class GeneMatchError(ScCelloError, ValueError):
    """Too few genes match the vocabulary of the model."""


class GroupError(ScCelloError, ValueError):
    """Groups of cells are missing, numeric, incomplete or too small."""


class BackedDataError(ScCelloError, ValueError):
    """A backed AnnData cannot be copied, or a view of one cannot be written to."""


class LabelError(ScCelloError, ValueError):
    """Labels are missing or too few, or a cell type is unknown to the Cell Ontology, obsolete or ambiguous."""


class DrugError(ScCelloError, ValueError):
    """A drug is unknown to the model, or its SMILES is invalid."""


class ResponseError(ScCelloError, ValueError):
    """Drug responses or expression of cell lines are incomplete, too few, or on an unexpected scale."""


class OntologyError(ScCelloError, ValueError):
    """An ontology file cannot be read or lacks required content."""


class ConfigError(ScCelloError, ValueError):
    """A configuration is inconsistent or incomplete."""


class WeightsError(ScCelloError, RuntimeError):
    """Model weights are missing, damaged, or inconsistent with their configuration."""


class ModelNotFoundError(WeightsError, LookupError):
    """No model or model folder of this name exists."""


class ManifestError(WeightsError, ValueError):
    """A weights manifest or the metadata of a model is unreadable or invalid."""


class DownloadError(WeightsError, OSError):
    """A download failed: no network, offline mode, or a server error."""


class HashMismatchError(WeightsError):
    """The sha256 of a file differs from the expected one."""


class BackendError(ScCelloError, RuntimeError):
    """A requested device, precision or attention backend is not available."""


class TrainingError(ScCelloError, RuntimeError):
    """Training failed: the loss is not finite or diverges."""


class FileFormatError(ScCelloError, ValueError):
    """A file is missing, damaged, or in an unexpected format."""


class CorpusError(ScCelloError, ValueError):
    """A corpus on disk is damaged, incomplete, or incompatible with the request."""


class FilesError(ScCelloError, ValueError):
    """Results of embed_files or annotate_files are damaged, incomplete or incompatible with the request, or workers were lost."""


class SchemaError(ScCelloError, ValueError):
    """Fields that the schema of an archive requires are missing or invalid."""


class MissingExtraError(ScCelloError, ImportError):
    """An optional dependency is missing.

    Parameters
    ----------
    what
        Function or feature that needs it.
    extra
        Extra of this package that installs it.
    """

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(
            f'{what} needs an optional dependency. Install it with: pip install "sccello-tools[{extra}]"'
        )
        self._made_of = what, extra

    def __reduce__(self) -> tuple[object, ...]:
        # errors of other processes are pickled, which does not support keyword arguments
        return functools.partial(MissingExtraError, self._made_of[0], extra=self._made_of[1]), ()
