"""What a model folder says of itself: its files, its ``metadata.json``, its ``config.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools.errors import ManifestError

from ._hashes import sha256_of
from ._parse import DESCRIPTION_FIELDS, check_fields, parse_config, parse_description
from ._records import CONFIG_FILE, FREE_FIELDS, KNOWN_FILES, METADATA_FILE, ModelEntry, ModelFile

if TYPE_CHECKING:
    from typing import Any


def entry_from_folder(folder: Path) -> ModelEntry:
    """Describe a model folder by its own ``metadata.json`` and ``config.json``.

    Parameters
    ----------
    folder
        A model folder; ``metadata.json`` may be missing, then the rest is unknown.

    Raises
    ------
    ManifestError
        If one of the two files cannot be read.
    """
    metadata = read_metadata(folder)
    config = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    name = metadata.pop("name", None) or folder.resolve().name
    described = parse_description(metadata, str(folder / METADATA_FILE))
    # Whatever else lies there, training checkpoints say, is no part of the model.
    found = tuple(
        ModelFile(path.relative_to(folder).as_posix(), n_bytes=path.stat().st_size)
        for path in (folder / known for known in KNOWN_FILES)
        if path.is_file()
    )
    return ModelEntry(
        name=str(name),
        source="local",
        files=found,
        folder=folder,
        config=parse_config(config, str(folder / CONFIG_FILE)),
        **described,
    )


def model_paths(folder: Path) -> list[Path]:
    """List the files of a model folder, sorted; hidden ones are not part of a model."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read ``metadata.json`` of a model folder, free fields apart; refuse fields that it cannot have."""
    path = folder / METADATA_FILE
    if not path.is_file():
        return {}
    metadata = read_json(path)
    check_metadata(metadata, str(path))
    return {key: value for key, value in metadata.items() if key not in FREE_FIELDS}


def check_metadata(metadata: dict[str, Any], where: str) -> None:
    """Refuse fields that ``metadata.json`` cannot have."""
    known = DESCRIPTION_FIELDS | {"name", *FREE_FIELDS}
    check_fields(metadata, known=known, required=(), where=where)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} cannot be read: {error}. Expected a JSON object."
        raise ManifestError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} holds a {type(value).__name__}, expected a JSON object."
        raise ManifestError(msg)
    return value


def describe_files(folder: str | Path) -> tuple[ModelFile, ...]:
    """Hash every file of a model folder.

    Parameters
    ----------
    folder
        A model folder; hidden files are left out.

    Returns
    -------
    One record a file, sorted by path, with sha256 and size.
    """
    folder = Path(folder)
    return tuple(
        ModelFile(path.relative_to(folder).as_posix(), sha256_of(path), path.stat().st_size)
        for path in model_paths(folder)
    )


def count_parameters(path: Path) -> int:
    """Count the numbers in a safetensors file by its header, without reading them.

    Parameters
    ----------
    path
        The file. Its form: 8 bytes length (little endian), then that many bytes of JSON.

    Raises
    ------
    ManifestError
        If the header cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                msg = f"{path} is no safetensors file: its header would be longer than itself."
                raise ManifestError(msg)
            header = json.loads(file.read(length))
        return sum(math.prod(v["shape"]) for k, v in header.items() if k != "__metadata__")
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is no safetensors file: its header cannot be read ({error})."
        raise ManifestError(msg) from error
