"""The weights manifest: every model that :func:`~sccello_tools.models.load` knows by name."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools.errors import ManifestError, ModelNotFoundError

from ._folder import count_parameters, describe_files, entry_from_folder, read_json, read_metadata
from ._hashes import write_atomically
from ._parse import check_fields, parse_entry
from ._records import (
    CONFIG_FILE,
    UNVERIFIED,
    WEIGHTS_FILES,
    LabelSpace,
    ModelEntry,
    ModelFile,
    TrainingData,
    Vocabulary,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

__all__ = [
    "UNVERIFIED",
    "LabelSpace",
    "ModelEntry",
    "ModelFile",
    "TrainingData",
    "Vocabulary",
    "entry_from_folder",
    "find_entry",
    "packaged_manifest",
    "parse_manifest",
    "read_manifest",
    "update_entry",
]

SCHEMA_VERSION: Final = 1


def packaged_manifest() -> Path:
    """Return the path of the manifest that ships with the package."""
    return Path(str(files("sccello_tools") / "resources" / "weights_manifest.json"))


def read_manifest(path: str | Path | None = None) -> dict[str, ModelEntry]:
    """Read the packaged manifest and, on top of it, one of your own.

    Parameters
    ----------
    path
        A manifest of your own. Its models come after the packaged ones; one of the same name
        takes the packaged one's place.

    Returns
    -------
    Entries by name, in the order of the files.

    Raises
    ------
    ManifestError
        If a manifest cannot be read or is not of the form that this version knows.

    Examples
    --------
    >>> from sccello_tools.models.manifest import read_manifest
    >>> list(read_manifest())
    ['sccello-small', 'sccello-zeroshot', 'gdsc-small']
    """
    entries = dict(_read_packaged())
    return entries if path is None else entries | _read(Path(path).expanduser())


def find_entry(name: str, manifest: str | Path | None = None) -> ModelEntry:
    """Look a model up by its name, or by its repository on Hugging Face.

    Parameters
    ----------
    name
        E.g. ``"sccello-zeroshot"`` or ``"katarinayuan/scCello-zeroshot"``.
    manifest
        A manifest of your own, read on top of the packaged one.

    Raises
    ------
    ModelNotFoundError
        If there is no such model; the message lists those that there are.

    Examples
    --------
    >>> from sccello_tools.models.manifest import find_entry
    >>> find_entry("katarinayuan/scCello-zeroshot").name
    'sccello-zeroshot'
    """
    entries = read_manifest(manifest)
    if name in entries:
        return entries[name]
    for entry in entries.values():
        if entry.repo is not None and entry.repo.casefold() == name.casefold():
            return entry
    close = difflib.get_close_matches(name, entries, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    msg = (
        f"No model is called {name!r} and no folder of that name exists; known: {', '.join(entries)}.{hint} "
        "Call models.list() to see them, or give the path of a model folder."
    )
    raise ModelNotFoundError(msg)


def parse_manifest(text: str, *, base: Path, where: str) -> dict[str, ModelEntry]:
    """Check a manifest and return its entries by name.

    Parameters
    ----------
    text
        The JSON.
    base
        Folder that relative folders of "local" models start from.
    where
        Name of the manifest, for messages.

    Raises
    ------
    ManifestError
        With the place in the manifest and what was expected there.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"{where} is not JSON: {error}."
        raise ManifestError(msg) from error
    if not isinstance(value, dict) or "schema_version" not in value:
        msg = f"{where} is no weights manifest; expected an object with 'schema_version' and 'models'."
        raise ManifestError(msg)
    if (version := value["schema_version"]) != SCHEMA_VERSION:
        msg = f"{where} has schema_version {version!r}; this version of sccello-tools reads {SCHEMA_VERSION}. Upgrade sccello-tools, or write the manifest in that form."
        raise ManifestError(msg)
    fields = ("schema_version", "models")
    check_fields(value, known=fields, required=fields, where=where)
    if not isinstance(value["models"], list):
        msg = f"{where}: 'models' is a {type(value['models']).__name__}, expected a list."
        raise ManifestError(msg)
    entries: dict[str, ModelEntry] = {}
    for item in value["models"]:
        entry = parse_entry(item, base=base, where=where)
        if entry.name in entries:
            msg = f"{where} has two models called {entry.name!r}; names must differ."
            raise ManifestError(msg)
        entries[entry.name] = entry
    return entries


def update_entry(
    name: str, folder: str | Path, /, *, path: str | Path | None = None, **fields: Any
) -> ModelEntry:
    """Bring a model's entry of a manifest up to date with its folder.

    Files, hashes, sizes and ``config`` come from the folder, the description from its
    ``metadata.json`` where that says it, the number of parameters from the weights' header.
    The file is replaced in one step, and only after the new text has been read back and checked.

    Parameters
    ----------
    name
        Name of the model; a new entry (source "local" unless ``fields`` say otherwise) is added
        if there is none.
    folder
        Its folder.
    path
        The manifest; the packaged one by default.
    fields
        Fields of the entry to set by hand, in their JSON form; they win.

    Returns
    -------
    The entry as it now stands.

    Raises
    ------
    ManifestError
        If the folder holds no weights, or the entry would not be complete.

    Examples
    --------
    See ``scripts/train_bundled_model.py``.
    """
    folder = Path(folder)
    # The packaged manifest is reached by a link at the top of the repository: keep the link.
    target = (packaged_manifest() if path is None else Path(path)).resolve()
    weights = next((folder / w for w in WEIGHTS_FILES if (folder / w).is_file()), None)
    if weights is None:
        msg = f"{folder} holds no weights; expected {' or '.join(WEIGHTS_FILES)}. Write them with nn.save_checkpoint first."
        raise ManifestError(msg)
    text = target.read_text(encoding="utf-8")
    parse_manifest(text, base=target.parent, where=str(target))
    value = json.loads(text)
    entry = next((item for item in value["models"] if item["name"] == name), None)
    if entry is None:
        entry = {"name": name, "source": "local", "folder": str(folder.resolve())}
        value["models"].append(entry)
    entry |= {key: v for key, v in read_metadata(folder).items() if key != "name"}
    entry["config"] = read_json(folder / CONFIG_FILE)
    entry["files"] = [
        {"path": file.path, "sha256": file.sha256, "bytes": file.n_bytes}
        for file in describe_files(folder)
    ]
    if weights.suffix == ".safetensors":
        entry["n_parameters"] = count_parameters(weights)
    entry |= fields
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    entries = parse_manifest(text, base=target.parent, where=str(target))
    write_atomically(target, text)
    _read_packaged.cache_clear()
    return entries[name]


def _read(path: Path) -> dict[str, ModelEntry]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The manifest {path} cannot be read: {error}."
        raise ManifestError(msg) from error
    return parse_manifest(text, base=path.parent, where=str(path))


@cache
def _read_packaged() -> Mapping[str, ModelEntry]:
    return _read(packaged_manifest())
