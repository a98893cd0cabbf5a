"""Files of models: local first, else fetched into the cache; nothing is used before it is verified.

A file gets its name only when all of its bytes are there and their hash is right; until then it is
``<name>.part``, which a later call goes on from. Beside it may lie ``<name>.part.etag`` (which version the
part is of), ``<name>.lock`` (held by the process that fetches) and ``<name>.sha256`` (the hash first seen,
where none is published).
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sccello_tools._logging import logger
from sccello_tools._settings import settings
from sccello_tools.errors import DownloadError, HashMismatchError, WeightsError

from ._body import MissingOnServerError, Received, etag_path
from ._disk import cannot_write, check_space
from ._hashes import check_pin, sha256_of
from ._http import Transfer, download
from ._parse import check_path
from ._progress import byte_progress
from ._urls import addresses
from ._verify import check_in_place, is_good

if TYPE_CHECKING:
    from typing import Final

    from ._records import ModelEntry, ModelFile
    from ._urls import Address

__all__ = ["Transfer", "fetch", "fetch_model", "is_available", "model_folder"]

_DEFAULT_TRANSFER: Final = Transfer()
_LEEWAY: Final = 4  # how many times a rough size a file may have


def model_folder(entry: ModelEntry) -> Path:
    """Return where a model's files lie, or will lie once fetched.

    Parameters
    ----------
    entry
        The model.

    Examples
    --------
    >>> from sccello_tools.models.hub import model_folder
    >>> from sccello_tools.models.manifest import find_entry
    >>> model_folder(find_entry("sccello-zeroshot")).name
    'e59304e'
    """
    if entry.folder is not None:
        return entry.folder
    check_path(entry.name, "model name")
    if entry.source == "bundled":
        return Path(str(files("sccello_tools") / "resources" / "models" / entry.name))
    folder = Path(settings.cache_dir).expanduser() / entry.name
    return folder if entry.revision is None else folder / entry.revision


def is_available(entry: ModelEntry) -> bool:
    """Whether every file of a model lies on this machine (unverified as yet)."""
    folder = model_folder(entry)
    return bool(entry.files) and all((folder / file.path).is_file() for file in entry.files)


def fetch_model(
    entry: ModelEntry, *, offline: bool | None = None, transfer: Transfer = _DEFAULT_TRANSFER
) -> Path:
    """Bring every file of a model to this machine and verify it.

    Parameters
    ----------
    entry
        The model.
    offline
        If true, nothing is downloaded; ``settings.offline`` by default.
    transfer
        Patience of downloads.

    Returns
    -------
    The model's folder.

    Raises
    ------
    WeightsError
        See :func:`fetch`.

    Examples
    --------
    >>> from sccello_tools.models.hub import fetch_model
    >>> from sccello_tools.models.manifest import find_entry
    >>> folder = fetch_model(find_entry("sccello-small"))  # doctest: +SKIP
    """
    if not entry.files and entry.source == "local":
        msg = f"The folder {entry.folder} holds no model: expected are config.json and model.safetensors. Make one with models.save or tl.pretrain, or call models.list() for models by name."
        raise WeightsError(msg)
    if not entry.files:
        msg = f"The manifest lists no files for model {entry.name!r}: it is not part of this version. Call models.list() for others, or give the path of a model folder."
        raise WeightsError(msg)
    for file in entry.files:
        fetch(file, entry, offline=offline, transfer=transfer)
    return model_folder(entry)


def fetch(
    file: ModelFile,
    entry: ModelEntry,
    *,
    offline: bool | None = None,
    transfer: Transfer = _DEFAULT_TRANSFER,
) -> Path:
    """Bring one file of a model to this machine and verify it.

    Parameters
    ----------
    file
        The file.
    entry
        Its model.
    offline
        If true, nothing is downloaded; ``settings.offline`` by default.
    transfer
        Patience of downloads.

    Returns
    -------
    Path of the verified file.

    Raises
    ------
    HashMismatchError
        If the file is not the one that the manifest, or the first download, says.
    DownloadError
        If it is not here and cannot be fetched: offline, no network, not on the server, no space,
        a cache that cannot be written.
    WeightsError
        If a bundled or local file is missing, or an address is refused.

    Examples
    --------
    >>> from sccello_tools.models.hub import fetch
    >>> from sccello_tools.models.manifest import find_entry
    >>> entry = find_entry("sccello-zeroshot")
    >>> fetch(entry.files[0], entry, offline=True)  # doctest: +SKIP
    """
    check_path(file.path, f"model {entry.name!r}")
    path = model_folder(entry) / file.path
    if entry.source in {"bundled", "local"}:
        return check_in_place(path, file, entry)
    offline = settings.offline if offline is None else offline
    if is_good(path, file, entry, offline=offline):
        return path
    sources = addresses(entry, file)
    if offline and not all(_is_file(source) for source in sources):
        msg = f"{path.name} of model {entry.name!r} is not in the cache ({path.parent}) and offline mode is on. Set settings.offline = False (environment: SCCELLO_OFFLINE), or put the file there; it comes from {sources[0].url}."
        raise DownloadError(msg)
    try:
        _fetch_locked(path, file, entry, sources, transfer, offline=offline)
    except DownloadError:  # an OSError too, and its message stands
        raise
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    return path


def _fetch_locked(
    path: Path,
    file: ModelFile,
    entry: ModelEntry,
    sources: tuple[Address, ...],
    transfer: Transfer,
    *,
    offline: bool,
) -> None:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    # Held by the system, so a process that dies lets go of it.
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=transfer.lock_timeout)
    try:
        with lock:
            # Another process may have brought it while this one waited.
            if not is_good(path, file, entry, offline=offline):
                _fetch_first(path, file, sources, transfer)
    except Timeout as error:
        msg = f"Another process has been fetching {path} for more than {transfer.lock_timeout:g} s. Wait for it, or end it and call again."
        raise DownloadError(msg) from error


def _fetch_first(
    path: Path, file: ModelFile, sources: tuple[Address, ...], transfer: Transfer
) -> None:
    """Take the file from the first source that has it."""
    for source in sources:
        try:
            _fetch_from(source, path, file, transfer)
        except MissingOnServerError as error:
            missing = error
            logger.info("%s", error)
        else:
            return
        finally:
            _drop_empty(_part_path(path))
    msg = f"{missing} Sources asked: {', '.join(source.url for source in sources)}. The manifest may be out of date: use a newer sccello-tools, or a manifest of your own."
    raise DownloadError(msg) from missing


def _fetch_from(source: Address, path: Path, file: ModelFile, transfer: Transfer) -> None:
    part = _part_path(path)
    if part.is_symlink():  # what is written to it would land where somebody else chose
        part.unlink()
    limit = file.n_bytes or min(
        transfer.max_bytes, _LEEWAY * (file.n_bytes_about or transfer.max_bytes)
    )
    kept = part.stat().st_size if part.exists() else 0
    # Without a hash only the server's mark can tell that a part is of the same version.
    if kept > limit or (not file.is_verified and not etag_path(part).exists()):
        _drop(part)
        kept = 0
    check_space(path.parent, (file.n_bytes or file.n_bytes_about or 0) - kept)
    logger.info("fetching %s from %s", path.name, source.url)
    received = _receive(source, part, file, limit, transfer)
    digest = sha256_of(part)
    if (received.resumed or kept) and _expected(file, received) not in {None, digest}:
        # A part that was damaged, or of another version, deserves a second, whole download.
        logger.info("%s, taken up again, has a wrong hash; fetching all of it", path.name)
        _drop(part)
        received = _receive(source, part, file, limit, transfer)
        digest = sha256_of(part)
    expected = _expected(file, received)
    if expected not in {None, digest}:
        _drop(part)
        msg = f"{source.url} has sha256 {digest}, expected {expected}. It was damaged on the way or is not the file that was published; nothing was kept. Call again; if it happens again, use another network or mirror (HF_ENDPOINT)."
        raise HashMismatchError(msg)
    if not file.is_verified:
        try:
            check_pin(path, digest, source=source.url)
        except HashMismatchError:
            _drop(part)
            raise
    part.replace(path)
    _drop(part)


def _receive(
    source: Address, part: Path, file: ModelFile, limit: int, transfer: Transfer
) -> Received:
    if _is_file(source):
        _copy(Path(url2pathname(urlsplit(source.url).path)), part, limit)
        return Received()
    with byte_progress(part.stem, file.n_bytes or file.n_bytes_about) as report:
        return download(
            source, part, n_bytes=file.n_bytes, limit=limit, transfer=transfer, report=report
        )


def _copy(source: Path, part: Path, limit: int) -> None:
    if not source.is_file():
        msg = f"There is no file {source}."
        raise MissingOnServerError(msg)
    if (size := source.stat().st_size) > limit:
        msg = f"{source} has {size:,} bytes, more than the {limit:,} that the file may have."
        raise DownloadError(msg)
    shutil.copyfile(source, part)


def _expected(file: ModelFile, received: Received) -> str | None:
    return file.sha256 if file.is_verified else received.announced_sha256


def _is_file(source: Address) -> bool:
    return urlsplit(source.url).scheme == "file"


def _part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _drop_empty(part: Path) -> None:
    if part.exists() and part.stat().st_size == 0:
        _drop(part)


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    etag_path(part).unlink(missing_ok=True)
