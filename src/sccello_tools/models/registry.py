"""The weights manifest and the description of a model folder, as validated records."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from sccello_tools._io import sha256_of, write_text
from sccello_tools._messages import listed
from sccello_tools._validation import describe
from sccello_tools.errors import ManifestError, ModelNotFoundError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Final, Self

SCHEMA_VERSION: Final = 1
UNVERIFIED: Final = "unverified"
"""Used where the sha256 of a file is not known; the first download pins it."""

CONFIG_FILE: Final = "config.json"
LABELS_FILE: Final = "labels.tsv"
METADATA_FILE: Final = "metadata.json"
CARD_FILE: Final = "README.md"
CURVE_FILE: Final = "training_curve.csv"
ANNOTATION_FILE: Final = "annotation.safetensors"
CLASSIFIER_FILE: Final = "classifier.safetensors"
WEIGHTS_FILES: Final = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files, in order of preference."""
DESCRIPTION_FILES: Final = (CONFIG_FILE, LABELS_FILE, METADATA_FILE, CARD_FILE)
KNOWN_FILES: Final = (
    *DESCRIPTION_FILES,
    *WEIGHTS_FILES,
    ANNOTATION_FILE,
    CLASSIFIER_FILE,
    CURVE_FILE,
)
"""Files that belong to a model; others in its folder, such as checkpoints of training, do not."""

_PICKLE_SUFFIXES: Final = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
_MAX_BYTES: Final = 16 * 1024**3  # a thousand times the bundled model


def check_url(url: str) -> str:
    """Return the URL, or raise ValueError if it is neither https nor http to this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if (parts.scheme == "https" and host) or (parts.scheme == "http" and _is_loopback(host)):
        return url
    msg = f"URL {url!r} is refused, must be https:// (http:// only to this machine)"
    raise ValueError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, not a number
        return False


_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_Count = Annotated[int, Field(ge=0)]
_Size = Annotated[int, Field(gt=0, le=_MAX_BYTES)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# no "..", no hidden names, no drive letters: a file stays inside the folder of its model
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_RelativePath = Annotated[str, Field(pattern=f"^{_PART}(/{_PART})*$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)


_R = TypeVar("_R", bound=_Record)


class ModelFile(_Record):
    """One file of a model."""

    path: _RelativePath
    """Path inside the folder of the model, with forward slashes."""
    sha256: _Sha256 | Literal["unverified"]
    """64 hexadecimal digits, or "unverified"."""
    n_bytes: Annotated[_Size | None, Field(alias="bytes")] = None
    """Exact size, if known."""
    n_bytes_about: Annotated[_Size | None, Field(alias="bytes_about")] = None
    """Approximate size where the exact one is not known."""
    url: Annotated[str, AfterValidator(check_url)] | None = None
    """Full URL, for models with source "url"."""

    @property
    def is_verified(self) -> bool:
        """Whether the manifest states the hash."""
        return self.sha256 != UNVERIFIED


class Vocabulary(_Record):
    """The gene vocabulary that a model was trained with."""

    name: _Text
    sha256: _Sha256
    """Hash of the uncompressed vocabulary table."""


class LabelSpace(_Record):
    """The cell types of a model's prototypes."""

    name: _Text
    n_labels: _Count
    resource: _RelativePath | None = None
    """Table among the resources of this package, for models whose folder has no ``labels.tsv``."""


class TrainingData(_Record):
    """The data that a model was trained on."""

    description: _Text
    n_cells: _Count | None = None


class Description(_Record):
    """What ``metadata.json`` in a model folder may state; all fields are optional."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    kind: Literal["encoder", "drug-response"] = "encoder"
    """Type of the model: an encoder is read by ``models.load``, a drug response model by ``drug.load``."""
    description: str = ""
    tissue: _Text | None = None
    """Tissues of the training data."""
    vocabulary: Vocabulary | None = None
    label_space: LabelSpace | None = None
    ontology_release: _Text | None = None
    """Cell Ontology release of the labels and losses, such as "2026-03-26"."""
    licence: _Text | None = None
    licence_note: _Text | None = None
    citation: _Text | None = None
    paper: _Text | None = None
    training_data: TrainingData | None = None
    results: dict[str, str | int | float] | None = None
    """Measured results by name, for the model card."""
    limitations: _Text | None = None
    """Known limitations, for the model card."""
    representation: Literal["cls", "cell"] = "cls"
    """Recommended embedding of a cell."""
    n_parameters: _Count | None = None
    pretrain_config: Any = None
    """Settings of the training; not interpreted."""
    finetune_config: Any = None


class ModelEntry(Description):
    """A model and its files, from the manifest, a folder or a repository on the Hugging Face Hub.

    Examples
    --------
    >>> from sccello_tools.models.registry import find_entry
    >>> find_entry("sccello-zeroshot").n_parameters
    10681094
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: Literal["bundled", "huggingface", "url", "local"]
    files: tuple[ModelFile, ...]
    config: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Size and constants, as in ``config.json``."""
    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] | None = None
    """Repository on the Hugging Face Hub, "owner/name"."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None = None
    """Commit of that repository, which may be abbreviated."""
    folder: Path | None = None
    """Location of the files, for models with source "bundled" or "local"."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        paths = [file.path.casefold() for file in self.files]
        if repeated := sorted({path for path in paths if paths.count(path) > 1}):
            msg = f"files lists {repeated} more than once"
            raise ValueError(msg)
        required = {"huggingface": ("repo", "revision"), "local": ("folder",)}
        if missing := [f for f in required.get(self.source, ()) if getattr(self, f) is None]:
            msg = f"source {self.source!r} requires {' and '.join(missing)}"
            raise ValueError(msg)
        if self.source == "url" and (no_url := [f.path for f in self.files if f.url is None]):
            msg = f"source 'url' requires the url of each file; missing for {no_url[:5]}"
            raise ValueError(msg)
        return self

    @property
    def n_bytes(self) -> int | None:
        """Size of all files, approximate where only that is known; None if unknown."""
        known = [size for f in self.files if (size := f.n_bytes or f.n_bytes_about) is not None]
        return sum(known) if known else None

    @property
    def hidden_size(self) -> int | None:
        """Width of the embedding, if the configuration states it."""
        value = self.config.get("hidden_size")
        return value if isinstance(value, int) else None


def packaged_manifest() -> Path:
    """Return the path of the manifest in the package."""
    return Path(str(files("sccello_tools") / "resources" / "weights_manifest.json"))


def read_manifest(path: str | Path | None = None) -> dict[str, ModelEntry]:
    """Read the packaged manifest and, if given, another one on top of it.

    Parameters
    ----------
    path
        A manifest. Its models come after the packaged ones and replace those of the same name.

    Returns
    -------
    Entries by name.

    Raises
    ------
    ManifestError
        If a manifest cannot be read or is invalid.

    Examples
    --------
    >>> from sccello_tools.models.registry import read_manifest
    >>> list(read_manifest())
    ['sccello-small', 'sccello-zeroshot', 'gdsc-small']
    """
    entries = dict(_read_packaged())
    return entries if path is None else entries | _read(Path(path).expanduser())


def find_entry(name: str, manifest: str | Path | None = None) -> ModelEntry:
    """Find a model by its name or its repository on the Hugging Face Hub.

    Parameters
    ----------
    name
        Such as ``"sccello-zeroshot"`` or ``"katarinayuan/scCello-zeroshot"``.
    manifest
        A manifest to read in addition to the packaged one.

    Raises
    ------
    ModelNotFoundError
        If there is no such model; the message lists those available.

    Examples
    --------
    >>> from sccello_tools.models.registry import find_entry
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
        f"There is neither a model nor a folder {name!r}; models: {', '.join(entries)}.{hint} "
        "Pass one of these names, the path of a model folder, or 'hf://owner/name' for a repository on the Hugging Face Hub."
    )
    raise ModelNotFoundError(msg)


def parse_manifest(text: str, *, base: Path, where: str) -> dict[str, ModelEntry]:
    """Validate a manifest.

    Parameters
    ----------
    text
        The JSON.
    base
        Folder to which relative folders of "local" models refer.
    where
        Name of the manifest for messages.

    Returns
    -------
    Entries by name.

    Raises
    ------
    ManifestError
        With the field, the value found and what is required.
    """
    value = _parse_json(text, where)
    if set(value) != {"schema_version", "models"} or not isinstance(value["models"], list):
        msg = f"{where} is not a weights manifest: it must be an object with 'schema_version' and a list 'models', found {sorted(value)}."
        raise ManifestError(msg)
    if (version := value["schema_version"]) != SCHEMA_VERSION:
        msg = f"{where} has schema_version {version!r}; this version of sccello-tools reads {SCHEMA_VERSION}. Upgrade sccello-tools, or write the manifest in that version."
        raise ManifestError(msg)
    entries: dict[str, ModelEntry] = {}
    for item in value["models"]:
        name = item.get("name") if isinstance(item, dict) else item
        entry = _validated(ModelEntry, item, f"{where}, model {name!r}")
        if entry.name in entries:
            msg = f"{where} has two models named {entry.name!r}; names must be unique."
            raise ManifestError(msg)
        if entry.folder is not None:
            entry = entry.model_copy(update={"folder": base / entry.folder.expanduser()})
        entries[entry.name] = entry
    return entries


def entry_from_folder(folder: Path) -> ModelEntry:
    """Describe a model folder by its ``metadata.json`` and ``config.json``, both optional.

    Parameters
    ----------
    folder
        A model folder.

    Raises
    ------
    ManifestError
        If one of the two files cannot be read.
    """
    found = (folder / name for name in KNOWN_FILES if (folder / name).is_file())
    return make_entry(
        folder,
        name=folder.resolve().name,
        source="local",
        folder=folder,
        files=tuple(
            ModelFile(path=path.name, sha256=UNVERIFIED, n_bytes=path.stat().st_size or None)
            for path in found
        ),
    )


def make_entry(description: Path, **fields: Any) -> ModelEntry:
    """Combine fields with the ``metadata.json`` and ``config.json`` of a folder; ``name`` is used if they state none."""
    metadata, config = (
        read_json(description / name) if (description / name).is_file() else {}
        for name in (METADATA_FILE, CONFIG_FILE)
    )
    scalars = {k: v for k, v in config.items() if v is None or isinstance(v, str | int | float)}
    described = _validated(Description, metadata, str(description / METADATA_FILE))
    stated = {f: v for f in described.model_fields_set if (v := getattr(described, f)) is not None}
    return ModelEntry(**{"name": _tidy(fields.pop("name"))} | stated | {"config": scalars} | fields)


def _tidy(name: str) -> str:
    """Make any folder name a valid model name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)[:100]
    return kept if kept[:1].isalnum() else f"model{kept}"[:100]


def check_metadata(metadata: Mapping[str, Any], where: str) -> Description:
    """Validate the content of a ``metadata.json``; see :class:`Description`."""
    return _validated(Description, dict(metadata), where)


def update_entry(
    name: str, folder: str | Path, /, *, path: str | Path | None = None, **fields: Any
) -> ModelEntry:
    """Update the entry of a model in a manifest from its folder.

    Files, hashes, sizes and ``config`` are taken from the folder, the description from ``metadata.json`` as far as it goes, the
    number of parameters from the header of the weights. The file is replaced atomically after the new text has been validated.

    Parameters
    ----------
    name
        Name of the model; an entry with source "local" is added if there is none.
    folder
        Its folder.
    path
        The manifest; the packaged one by default.
    fields
        Fields of the entry, in their JSON form, that take precedence.

    Returns
    -------
    The new entry.

    Raises
    ------
    ManifestError
        If the folder has no weights or the entry would be invalid.

    Examples
    --------
    See ``scripts/train_bundled_model.py``.
    """
    folder = Path(folder)
    # the packaged manifest is a link in the root of the repository, which is kept
    target = (packaged_manifest() if path is None else Path(path)).resolve()
    weights = next((folder / w for w in WEIGHTS_FILES if (folder / w).is_file()), None)
    if weights is None:
        msg = f"{folder} has no weights; expected {' or '.join(WEIGHTS_FILES)}. Write them with models.save first."
        raise ManifestError(msg)
    text = target.read_text(encoding="utf-8")
    parse_manifest(text, base=target.parent, where=str(target))
    value = json.loads(text)
    entry = next((item for item in value["models"] if item["name"] == name), None)
    if entry is None:
        entry = {"name": name, "source": "local", "folder": str(folder.resolve())}
        value["models"].append(entry)
    metadata = folder / METADATA_FILE
    stated = read_json(metadata) if metadata.is_file() else {}
    not_listed = {"name", "pretrain_config", "finetune_config"}
    entry |= {key: v for key, v in stated.items() if key not in not_listed}
    entry["config"] = read_json(folder / CONFIG_FILE)
    entry["files"] = [
        {
            "path": file.relative_to(folder).as_posix(),
            "sha256": sha256_of(file),
            "bytes": file.stat().st_size,
        }
        for file in model_paths(folder)
    ]
    if weights.suffix == ".safetensors":
        entry["n_parameters"] = count_parameters(weights)
    entry |= fields
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    entries = parse_manifest(text, base=target.parent, where=str(target))
    write_text(target, text)
    _read_packaged.cache_clear()
    return entries[name]


def model_paths(folder: Path) -> list[Path]:
    """List all files of a folder, sorted; hidden files are not part of a model."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def count_parameters(path: Path) -> int:
    """Count the parameters in a safetensors file from its header.

    Parameters
    ----------
    path
        The file: 8 bytes with the length of the header (little endian), then the header in JSON.

    Raises
    ------
    ManifestError
        If the header cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return sum(math.prod(v["shape"]) for k, v in header.items() if k != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is not a safetensors file: its header cannot be read ({error})."
        raise ManifestError(msg) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}."
        raise ManifestError(msg) from error
    return _parse_json(text, str(path))


def _parse_json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"{where} is not valid JSON: {error}."
        raise ManifestError(msg) from error
    if not isinstance(value, dict):
        msg = f"{where} contains a {type(value).__name__}, must be a JSON object."
        raise ManifestError(msg)
    return value


def _validated(record: type[_R], value: object, where: str) -> _R:
    try:
        return record.model_validate_json(json.dumps(value))
    except ValidationError as error:
        msg = f"{where}: {describe(error, known=record.model_fields)}"
        raise ManifestError(msg) from None


def check_contents(names: Collection[str], where: str) -> None:
    """Check by file names that a folder or repository contains a model of this package.

    Parameters
    ----------
    names
        File names.
    where
        The folder or repository, for messages.

    Raises
    ------
    WeightsError
        If there is no ``config.json`` or no weights; the message says what is there instead.
    """
    if CONFIG_FILE in names and any(name in names for name in WEIGHTS_FILES):
        return
    found = listed(sorted(names)) or "no files"
    pickles = sorted(name for name in names if Path(name).suffix in _PICKLE_SUFFIXES)
    if {"args.json", "best_model.pt"} <= set(names):
        problem = "contains scGPT, not scCello"
    elif WEIGHTS_FILES[0] not in names and pickles and pickles != [WEIGHTS_FILES[1]]:
        problem = f"has no {WEIGHTS_FILES[0]}, only pickled files ({listed(pickles)}), which may run code and are not read"
    else:
        problem = f"contains no scCello model (found: {found})"
    msg = f"{where} {problem}. Required are {CONFIG_FILE} and {WEIGHTS_FILES[0]}, as written by models.save, tl.pretrain and tl.finetune; models.list() shows models by name."
    raise WeightsError(msg)


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
