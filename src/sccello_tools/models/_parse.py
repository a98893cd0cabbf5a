"""From JSON to records; nothing of a manifest is believed before it is checked."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, get_args

from sccello_tools.errors import ManifestError

from ._records import (
    UNVERIFIED,
    Kind,
    LabelSpace,
    ModelEntry,
    ModelFile,
    Source,
    TrainingData,
    Vocabulary,
)
from ._urls import check_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any, Final

MAX_FILE_BYTES: Final = (
    16 * 1024**3
)  # a thousand times the bundled model; more is a slip of the pen
_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATH_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_RESERVED_SUFFIXES = (
    ".part",
    ".etag",
    ".lock",
    ".sha256",
)  # hub.py keeps its own notes under these

_TEXTS = ("licence", "licence_note", "citation", "paper", "ontology_release", "repo", "revision")
_REQUIRED = (
    "name", "description", "source", "files", "config", "vocabulary", "label_space",
    "ontology_release", "licence", "citation", "training_data", "representation",
)  # fmt: skip
_KNOWN = {field.name for field in dataclasses.fields(ModelEntry)}
DESCRIPTION_FIELDS: Final = _KNOWN - {
    "name",
    "source",
    "files",
    "config",
    "folder",
    "repo",
    "revision",
}
"""What ``metadata.json`` beside a model may say, ``name`` apart."""


def parse_entry(value: object, *, base: Path, where: str) -> ModelEntry:
    """Check one model's entry of a manifest.

    Parameters
    ----------
    value
        The parsed JSON.
    base
        Folder that the ``folder`` of a "bundled" or "local" model is relative to.
    where
        Name of the manifest, for messages.

    Raises
    ------
    ManifestError
        If a field is missing, unknown, of the wrong kind, or says what cannot be.
    """
    entry = _mapping(value, where)
    where = f"{where}, model {entry.get('name', '(without a name)')!r}"
    check_fields(entry, known=_KNOWN, required=_REQUIRED, where=where)
    name = _text(entry, "name", where)
    if not _NAME.fullmatch(name):
        msg = f"{where}: a name is letters, digits, '.', '_' and '-', at most 100, led by a letter or digit."
        raise ManifestError(msg)
    source: Source = _choice(entry, "source", get_args(Source), where)
    files = _files(entry["files"], where)
    folder = _optional(_text, entry, "folder", where)
    _check_source(source, files, entry, where)
    return ModelEntry(
        name=name,
        source=source,
        files=files,
        config=parse_config(entry["config"], where),
        folder=None if folder is None else base / Path(folder).expanduser(),
        **parse_description(entry, where),
    )


def parse_description(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the fields that say what a model is, as far as they are there.

    Parameters
    ----------
    entry
        The parsed JSON of a manifest's entry, or of ``metadata.json``.
    where
        Name of what was read, for messages.
    """
    found: dict[str, Any] = {
        "description": _optional(_text, entry, "description", where) or "",
        "vocabulary": _record(Vocabulary, entry, "vocabulary", where),
        "label_space": _record(LabelSpace, entry, "label_space", where),
        "training_data": _record(TrainingData, entry, "training_data", where),
        "n_parameters": _optional(_count, entry, "n_parameters", where),
    }
    found |= {key: _optional(_text, entry, key, where) for key in _TEXTS}
    if entry.get("kind") is not None:
        found["kind"] = _choice(entry, "kind", get_args(Kind), where)
    if entry.get("representation") is not None:
        found["representation"] = _choice(entry, "representation", ("cls", "cell"), where)
    if found["vocabulary"] is not None:
        _check_sha256(found["vocabulary"].sha256, f"{where}, vocabulary")
    if found["label_space"] is not None and found["label_space"].resource is not None:
        check_path(found["label_space"].resource, f"{where}, label_space")
    return found


def parse_config(value: object, where: str) -> Mapping[str, Any]:
    """Check a configuration: names and plain values.

    Parameters
    ----------
    value
        The parsed JSON.
    where
        Name of what was read, for messages.
    """
    config = _mapping(value, f"{where}, config")
    return MappingProxyType(
        {k: v for k, v in config.items() if v is None or isinstance(v, str | int | float)}
    )


def check_fields(
    value: Mapping[str, Any], *, known: Collection[str], required: Collection[str], where: str
) -> None:
    """Refuse missing fields, and unknown ones so that a misspelt one is not lost."""
    if missing := [name for name in required if name not in value]:
        msg = f"{where} lacks {missing}. Give null where a value is not known."
        raise ManifestError(msg)
    if unknown := sorted(set(value) - set(known)):
        msg = f"{where} has unknown fields {unknown[:5]}; expected some of {sorted(known)}."
        raise ManifestError(msg)


def check_path(path: str, where: str) -> None:
    """Refuse a path that could leave the model's folder, or that the cache keeps for itself."""
    parts = PurePosixPath(path).parts
    if not parts or "/".join(parts) != path or not all(_PATH_PART.fullmatch(p) for p in parts):
        msg = (
            f"{where}: file path {path!r} is refused; expected a path inside the model's folder, of "
            "letters, digits, '.', '_', '-' and '/', without '..' or hidden names."
        )
        raise ManifestError(msg)
    if path.endswith(_RESERVED_SUFFIXES):
        msg = f"{where}: file path {path!r} ends in one of {_RESERVED_SUFFIXES}, which the cache uses itself."
        raise ManifestError(msg)


def _files(value: object, where: str) -> tuple[ModelFile, ...]:
    if not isinstance(value, list):
        msg = f"{where}: 'files' is {_kind(value)}, expected a list of {{path, sha256, bytes}}."
        raise ManifestError(msg)
    files = tuple(_file(item, where) for item in value)
    paths = [file.path.casefold() for file in files]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        msg = f"{where} lists files twice: {twice[:5]}."
        raise ManifestError(msg)
    return files


def _file(value: object, where: str) -> ModelFile:
    item = _mapping(value, f"{where}, files")
    known = ("path", "sha256", "bytes", "bytes_about", "url")
    check_fields(item, known=known, required=("path", "sha256", "bytes"), where=f"{where}, files")
    path = _text(item, "path", where)
    check_path(path, where)
    where = f"{where}, file {path!r}"
    sha256 = _text(item, "sha256", where)
    if sha256 != UNVERIFIED:
        _check_sha256(sha256, where)
    sizes = [_optional(_count, item, key, where) for key in ("bytes", "bytes_about")]
    for size in sizes:
        if size is not None and not 0 < size <= MAX_FILE_BYTES:
            msg = f"{where} is said to have {size:,} bytes; expected 1 to {MAX_FILE_BYTES:,}."
            raise ManifestError(msg)
    url = _optional(_text, item, "url", where)
    if url is not None:
        check_url(url, error=ManifestError, where=where)
    return ModelFile(path, sha256, sizes[0], sizes[1], url)


def _check_source(
    source: Source, files: tuple[ModelFile, ...], entry: Mapping[str, Any], where: str
) -> None:
    if source == "huggingface":
        if not _REPO.fullmatch(str(entry.get("repo"))):
            msg = f"{where}: repo is {entry.get('repo')!r}, expected 'owner/name' for source 'huggingface'."
            raise ManifestError(msg)
        if not _PATH_PART.fullmatch(str(entry.get("revision") or ".")):
            msg = f"{where}: revision is {entry.get('revision')!r}, expected a commit for source 'huggingface'."
            raise ManifestError(msg)
    if source == "local" and not entry.get("folder"):
        msg = f"{where} lacks 'folder', which source 'local' needs."
        raise ManifestError(msg)
    if source == "url" and (without := [file.path for file in files if file.url is None]):
        msg = f"{where}: files without 'url', which source 'url' needs: {without[:5]}."
        raise ManifestError(msg)


def _record(kind: type[Any], entry: Mapping[str, Any], key: str, where: str) -> Any:
    """Read a record of texts and counts by the annotations of its fields."""
    if entry.get(key) is None:
        return None
    where = f"{where}, {key}"
    value = _mapping(entry[key], where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    required = [n for n, field in fields.items() if field.default is dataclasses.MISSING]
    check_fields(value, known=fields, required=required, where=where)
    read = {
        n: _count if str(field.type).startswith("int") else _text for n, field in fields.items()
    }
    return kind(
        **{n: read[n](value, n, where) for n in fields if n in required or value.get(n) is not None}
    )


def _check_sha256(value: str, where: str) -> None:
    if not _SHA256.fullmatch(value):
        msg = f"{where}: sha256 is {value!r}, expected 64 hexadecimal digits in lower case (a file's may be {UNVERIFIED!r})."
        raise ManifestError(msg)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        msg = f"{where} is {_kind(value)}, expected an object."
        raise ManifestError(msg)
    return value


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    found = value[key]
    if not isinstance(found, str) or not found.strip():
        msg = f"{where}: {key!r} is {found!r}, expected a text that is not empty."
        raise ManifestError(msg)
    return found


def _count(value: Mapping[str, Any], key: str, where: str) -> int:
    found = value[key]
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        msg = f"{where}: {key!r} is {found!r}, expected a whole number of at least 0."
        raise ManifestError(msg)
    return found


def _choice(value: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> Any:
    found = _text(value, key, where)
    if found not in choices:
        msg = f"{where}: {key!r} is {found!r}, expected one of {', '.join(choices)}."
        raise ManifestError(msg)
    return found


def _optional(
    read: Callable[[Mapping[str, Any], str, str], _T],
    value: Mapping[str, Any],
    key: str,
    where: str,
) -> _T | None:
    return None if value.get(key) is None else read(value, key, where)


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
