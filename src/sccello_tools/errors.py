"""What can go wrong, by name. Each message says what was found, what was expected and what to call next."""

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
    "EmbeddingFilesError",
    "FileFormatError",
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
    "OutputExistsError",
    "ResponseError",
    "ScCelloError",
    "TrainingError",
    "WeightsError",
]


class ScCelloError(Exception):
    """Base of every error that this package raises on purpose."""


class ArgumentError(ScCelloError, ValueError):
    """An argument is none of those expected, out of range, or does not fit the others."""


class NotFoundError(ScCelloError, KeyError):
    """A column, a result or a name that a function starts from is not there."""

    __str__ = Exception.__str__  # KeyError would quote the message


class OutputExistsError(ScCelloError, FileExistsError):
    """There is something already where a result is to be written."""


class OutputError(ScCelloError, OSError):
    """An output cannot be written: no space, no permission, or no such folder."""


class NotCountsError(ScCelloError, ValueError):
    """The chosen matrix does not hold raw counts."""


class SparseStructureError(ScCelloError, ValueError):
    """The index arrays of a sparse matrix are inconsistent or out of range: the matrix is damaged."""


class GeneMatchError(ScCelloError, ValueError):
    """Too few genes of the data are known to the model's vocabulary."""


class GroupError(ScCelloError, ValueError):
    """Groups of cells are numeric, incomplete, too small, or unknown."""


class BackedDataError(ScCelloError, ValueError):
    """An AnnData on disk cannot be written to, or copied, in the way asked for."""


class LabelError(ScCelloError, ValueError):
    """A cell type is unknown to the Cell Ontology, obsolete without successor, or ambiguous."""


class DrugError(ScCelloError, ValueError):
    """A drug is unknown to the model, or its SMILES is no molecule."""


class ResponseError(ScCelloError, ValueError):
    """Drug responses or the expression of cell lines are incomplete, too few, or on another scale than expected."""


class OntologyError(ScCelloError, ValueError):
    """An ontology file cannot be read, or does not hold what is asked of it."""


class ConfigError(ScCelloError, ValueError):
    """A configuration is inconsistent or incomplete."""


class WeightsError(ScCelloError, RuntimeError):
    """Model weights are missing, damaged, or do not fit their configuration."""


class ModelNotFoundError(WeightsError, LookupError):
    """No model of that name is in the manifest and no folder of that name exists."""


class ManifestError(WeightsError, ValueError):
    """A weights manifest, or the description beside a model, cannot be read or says what cannot be."""


class DownloadError(WeightsError, OSError):
    """A file could not be fetched: no network, offline mode, or a server that fails."""


class HashMismatchError(WeightsError):
    """A file's sha256 is not the one that was expected."""


class BackendError(ScCelloError, RuntimeError):
    """A device, precision or attention backend that was asked for by name is not available here."""


class TrainingError(ScCelloError, RuntimeError):
    """Training cannot go on: the loss is no longer a number, or diverges."""


class FileFormatError(ScCelloError, ValueError):
    """A file is missing, damaged, or of another format than expected."""


class CorpusError(ScCelloError, ValueError):
    """A corpus on disk is damaged, incomplete, or does not fit what is asked of it."""


class EmbeddingFilesError(ScCelloError, ValueError):
    """Embeddings on disk are damaged, incomplete, or do not fit what is asked of them."""


class MissingExtraError(ScCelloError, ImportError):
    """An optional dependency is missing.

    Parameters
    ----------
    what
        What needs it, as the user named it.
    extra
        The extra of this package that brings it.
    """

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(
            f'{what} needs an optional dependency. Install it with: pip install "sccello-tools[{extra}]"'
        )
        self._made_of = what, extra

    def __reduce__(self) -> tuple[object, ...]:
        # an error of another process comes here pickled, which knows nothing of keywords
        return functools.partial(MissingExtraError, self._made_of[0], extra=self._made_of[1]), ()
