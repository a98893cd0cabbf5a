"""Model files: bundled, in a folder, on the Hugging Face Hub or at URLs; downloaded if necessary, and verified before use.

Files of the Hugging Face Hub are in its own cache (environment: ``HF_HOME``), as those of other packages. Files from URLs, and the
pinned hashes of files whose publisher states none, are in ``settings.cache_dir``.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin

from sccello_tools._io import sha256_of, write_text
from sccello_tools._logging import logger
from sccello_tools._settings import settings
from sccello_tools.errors import DownloadError, HashMismatchError, ModelNotFoundError, WeightsError

from .registry import (
    CONFIG_FILE,
    DESCRIPTION_FILES,
    KNOWN_FILES,
    UNVERIFIED,
    WEIGHTS_FILES,
    ModelFile,
    check_contents,
    check_url,
    make_entry,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from .registry import ModelEntry

HUB_SCHEME: Final = "hf://"
_HUB_NAME: Final = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+(?:/[\w.-]+)*))?/?")
_PIN: Final = re.compile(r"([0-9a-f]{64})  .+\n?")
_TIMEOUT: Final = (10.0, 30.0)  # seconds for a connection, and without a byte


class HubName(NamedTuple):
    """A repository on the Hugging Face Hub and a revision of it."""

    repo: str
    revision: str


def parse_hub_name(name: str) -> HubName:
    """Split ``"hf://owner/name@revision"``; the revision defaults to "main"."""
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        msg = f"{name!r} is not a repository on the Hugging Face Hub; use 'hf://owner/name' or 'hf://owner/name@revision'."
        raise ModelNotFoundError(msg)
    return HubName(match[1], match[2] or "main")


def is_offline(offline: bool | None = None) -> bool:  # noqa: FBT001 - the argument of models.load
    """Return whether downloads are disabled: the argument, else ``settings.offline`` or ``HF_HUB_OFFLINE``."""
    if offline is not None:
        return offline
    from huggingface_hub import constants

    stated = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return settings.offline or stated or constants.HF_HUB_OFFLINE


def model_folder(entry: ModelEntry) -> Path:
    """Return the folder of a model's files, which may not be downloaded yet.

    Parameters
    ----------
    entry
        The model.

    Examples
    --------
    >>> from sccello_tools.models.hub import model_folder
    >>> from sccello_tools.models.registry import find_entry
    >>> model_folder(find_entry("sccello-small")).name
    'sccello-small'
    """
    if entry.folder is not None:
        return entry.folder
    if entry.source == "bundled":
        return Path(str(files("sccello_tools") / "resources" / "models" / entry.name))
    if entry.repo is not None and entry.revision is not None:
        return _snapshot(entry.repo, entry.revision) or _snapshots(entry.repo) / entry.revision
    return Path(settings.cache_dir).expanduser() / entry.name


def is_available(entry: ModelEntry) -> bool:
    """Return whether all files of a model are on this machine."""
    folder = model_folder(entry)
    return bool(entry.files) and all((folder / file.path).is_file() for file in entry.files)


def fetch_model(entry: ModelEntry, *, offline: bool | None = None) -> Path:
    """Download the files of a model that are not on this machine, and verify all of them.

    Parameters
    ----------
    entry
        The model.
    offline
        Do not download; ``settings.offline`` by default.

    Returns
    -------
    The folder of the model.

    Raises
    ------
    HashMismatchError
        If a file is not the one that the manifest states or that was pinned by the first download.
    DownloadError
        If a file cannot be downloaded: offline, no network, refused by the server, no space.
    WeightsError
        If a bundled or local file is missing.

    Examples
    --------
    >>> from sccello_tools.models.hub import fetch_model
    >>> from sccello_tools.models.registry import find_entry
    >>> fetch_model(find_entry("sccello-small")).name
    'sccello-small'
    """
    if entry.source == "local":
        folder = model_folder(entry)
        check_contents([path.name for path in folder.iterdir()], str(folder))
    offline = is_offline(offline)
    pinned = {}
    for file in entry.files:
        if entry.source in {"bundled", "local"}:
            path = model_folder(entry) / file.path
            if not path.is_file():
                advice = (
                    "Reinstall sccello-tools." if entry.source == "bundled" else "Check the path."
                )
                msg = f"{path} of {entry.source} model {entry.name!r} is missing. {advice}"
                raise WeightsError(msg)
            digest = sha256_of(path) if file.is_verified else UNVERIFIED
            _check_hash(path, digest, file, entry)
            continue
        fetch = _fetch_from_hub if file.url is None else _fetch_from_url
        path = fetch(file, entry, offline=offline)
        if not file.is_verified and _check_pin(file, entry, digest := sha256_of(path)):
            pinned[file.path] = digest
    if pinned:
        logger.warning(
            "No sha256 is published for files of %r; pinned those downloaded now, other files will be refused: %s",
            entry.name, ", ".join(f"{name} {digest}" for name, digest in pinned.items()),
        )  # fmt: skip
    return model_folder(entry)


def hub_entry(repo: str, revision: str, *, offline: bool | None = None) -> ModelEntry:
    """Describe a repository on the Hugging Face Hub by its file list and its small files, which are downloaded.

    Parameters
    ----------
    repo
        "owner/name".
    revision
        Branch, tag or commit.
    offline
        Use the cache only; ``settings.offline`` by default.

    Raises
    ------
    ModelNotFoundError
        If there is no such repository, or no access to it.
    WeightsError
        If it does not contain a scCello model; the message names what it contains.
    DownloadError
        If the hub cannot be reached and the repository is not in the cache.
    """
    offline = is_offline(offline)
    listing = _list_repository(repo, revision, offline=offline)
    check_contents(listing.names, f"{HUB_SCHEME}{repo}@{revision}")
    if not offline and revision != listing.commit:
        # the cache remembers the revision
        _hub_download(repo, CONFIG_FILE, revision, offline=False)
    for name in DESCRIPTION_FILES:
        if name in listing.files:
            _hub_download(repo, name, listing.commit, offline=offline)
    if WEIGHTS_FILES[0] in listing.files:
        listing.files.pop(WEIGHTS_FILES[1], None)
    folder = _snapshots(repo) / listing.commit
    entry = make_entry(
        folder,
        name=repo.partition("/")[2],
        source="huggingface",
        repo=repo,
        revision=listing.commit,
        files=tuple(listing.files.values()),
    )
    if entry.kind == "encoder":
        from sccello_tools.nn import EncoderConfig

        # names another architecture before the weights are downloaded
        EncoderConfig.from_dict(read_json(folder / CONFIG_FILE))
    return entry


class _Listing(NamedTuple):
    commit: str
    names: list[str]
    files: dict[str, ModelFile]
    """Those that belong to a model."""


def _list_repository(repo: str, revision: str, *, offline: bool) -> _Listing:
    """List the files of a repository, or of its copy in the cache if the hub cannot be reached."""
    cached = _snapshot(repo, revision)
    if not offline:
        try:
            with hub_errors(repo, revision):
                info = hub_api().model_info(repo, revision=revision, files_metadata=True)
        except DownloadError as error:
            if cached is None:
                raise
            logger.warning("%s Using the copy in the cache.", error)
        else:
            stated = {
                f.rfilename: (f.lfs.sha256 if f.lfs else UNVERIFIED, f.size or None)
                for f in info.siblings or ()
            }
            return _listing(str(info.sha), stated)
    if cached is None or not any((cached / name).is_file() for name in WEIGHTS_FILES):
        msg = f"{HUB_SCHEME}{repo}@{revision} is not in the cache, and offline mode is on. Set settings.offline = False (environment: SCCELLO_OFFLINE, HF_HUB_OFFLINE), or download it elsewhere and pass the folder."
        raise DownloadError(msg)
    there = {p.name: (UNVERIFIED, p.stat().st_size or None) for p in sorted(cached.iterdir())}
    return _listing(cached.name, there)


def _listing(commit: str, stated: dict[str, tuple[str, int | None]]) -> _Listing:
    known: dict[str, ModelFile] = {
        name: ModelFile(path=name, sha256=stated[name][0], n_bytes=stated[name][1])
        for name in KNOWN_FILES
        if name in stated
    }
    return _Listing(commit, sorted(stated), known)


def _fetch_from_hub(file: ModelFile, entry: ModelEntry, *, offline: bool) -> Path:
    repo, commit = str(entry.repo), _full_commit(entry, offline=offline)
    path = _hub_download(repo, file.path, commit, offline=offline)
    if _is_intact(path, file):
        return path
    if not offline:
        logger.warning(
            "%s is damaged or not the file that was published; downloading it again", path
        )
        path.unlink()  # a cache without links does not replace it
        path = _hub_download(repo, file.path, commit, offline=False, force=True)
        if _is_intact(path, file):
            return path
    digest = sha256_of(path)
    expected = file.sha256 if file.is_verified else "the hash that the hub states"
    msg = f"{path} has sha256 {digest}, expected {expected}. Delete the file and call again with network access, or use another network or mirror (HF_ENDPOINT)."
    raise HashMismatchError(msg)


def _full_commit(entry: ModelEntry, *, offline: bool) -> str:
    """Return the full hash of an abbreviated commit, which the hub itself does not resolve."""
    repo, revision = str(entry.repo), str(entry.revision)
    if len(revision) == 40:
        return revision
    if (cached := _snapshot(repo, revision)) is not None:
        return cached.name
    if offline:
        msg = f"Model {entry.name!r} ({HUB_SCHEME}{repo}@{revision}) is not in the cache, and offline mode is on. Set settings.offline = False (environment: SCCELLO_OFFLINE, HF_HUB_OFFLINE), or download it elsewhere and pass the folder."
        raise DownloadError(msg)
    with hub_errors(repo, revision):
        commits: list[str] = [commit.commit_id for commit in hub_api().list_repo_commits(repo)]
    found = [commit for commit in commits if commit.startswith(revision)]
    if len(found) != 1:
        msg = f"Repository {repo} has {len(found)} commits that start with {revision}, expected one. Use a newer version of sccello-tools, or {HUB_SCHEME}{repo}@COMMIT with a full commit."
        raise DownloadError(msg)
    return found[0]


def _snapshots(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots"


def _snapshot(repo: str, revision: str) -> Path | None:
    """Return the folder in the cache of a branch, tag or commit, which may be abbreviated."""
    snapshots = _snapshots(repo)
    reference = snapshots.parent / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    return next(iter(sorted(snapshots.glob(f"{commit}*"))), None)


def hub_api() -> Any:
    """Return a client of the Hugging Face Hub."""
    from huggingface_hub import HfApi

    return HfApi(
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        library_name="sccello-tools",
        library_version=version("sccello-tools"),
    )


def _hub_download(repo: str, name: str, commit: str, *, offline: bool, force: bool = False) -> Path:
    with hub_errors(repo, commit, name), _progress_bars():
        return Path(
            hub_api().hf_hub_download(
                repo, name, revision=commit, local_files_only=offline, force_download=force
            )
        )


@contextmanager
def _progress_bars() -> Iterator[None]:
    """Hide the progress bars of huggingface_hub if ``settings.progress`` is false."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if settings.progress or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def hub_errors(repo: str, revision: str, name: str = "") -> Iterator[None]:
    """Translate errors of huggingface_hub."""
    from huggingface_hub import errors

    what = f"{name} of {HUB_SCHEME}{repo}@{revision}" if name else f"{HUB_SCHEME}{repo}@{revision}"
    try:
        yield
    except errors.GatedRepoError as error:
        msg = f"Access to {repo} is restricted. Accept its conditions on its page, then log in with `hf auth login` or set HF_TOKEN."
        raise DownloadError(msg) from error
    except errors.RepositoryNotFoundError as error:
        msg = f"There is no repository {repo} on the Hugging Face Hub, or it is private. Check the name; for a private repository, log in with `hf auth login` or set HF_TOKEN."
        raise ModelNotFoundError(msg) from error
    except errors.RevisionNotFoundError as error:
        msg = (
            f"Repository {repo} has no revision {revision!r}. Use a branch, a tag or a full commit."
        )
        raise ModelNotFoundError(msg) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        msg = f"{what} is not in the cache and cannot be downloaded: offline mode is on (settings.offline, SCCELLO_OFFLINE, HF_HUB_OFFLINE) or the hub cannot be reached ({_first_line(error)}). Check the network (proxies: HTTPS_PROXY, mirrors: HF_ENDPOINT), or download it elsewhere and pass the folder."
        raise DownloadError(msg) from error
    except errors.EntryNotFoundError as error:
        msg = f"{what} does not exist. Use a newer version of sccello-tools, or another revision."
        raise DownloadError(msg) from error
    except errors.HFValidationError as error:
        msg = f"{repo!r} is not a valid repository name: {error}"
        raise ModelNotFoundError(msg) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = {
            401: "Log in with `hf auth login` or set HF_TOKEN.",
            403: "Log in with `hf auth login` or set HF_TOKEN; check that the token has access.",
            429: "The hub limits the number of requests: wait a few minutes, and set HF_TOKEN for a higher limit.",
        }.get(status, "Call again later, or use a mirror (HF_ENDPOINT).")
        msg = f"{what} could not be transferred: the hub answered with status {status}. {advice}"
        raise DownloadError(msg) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined] # of the HTTP library that huggingface_hub uses
        msg = f"{what} could not be transferred: {_first_line(error) or type(error).__name__}. Check the network (proxies: HTTPS_PROXY, mirrors: HF_ENDPOINT) and call again; finished parts are kept."
        raise DownloadError(msg) from error
    except OSError as error:
        msg = f"{what} could not be transferred: {_first_line(error)}. Check the free space and permissions of the cache (HF_HOME), and call again."
        raise DownloadError(msg) from error
    except (RuntimeError, ValueError) as error:
        reason = _first_line(error.__cause__ or error)
        msg = f"{what} could not be transferred: {reason}. Check that HF_ENDPOINT, if set, is a mirror of the Hugging Face Hub, and call again."
        raise DownloadError(msg) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _is_intact(path: Path, file: ModelFile) -> bool:
    """Compare the hash of a file with the manifest, and with the one by which the hub names it in the cache."""
    if file.is_verified and sha256_of(path) != file.sha256:
        return False
    # if the cache uses links: sha256 of a large file, git hash of a small one
    etag = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return etag == sha256_of(path)
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return etag == git.hexdigest()
    return True


def _fetch_from_url(file: ModelFile, entry: ModelEntry, *, offline: bool) -> Path:
    path = model_folder(entry) / file.path
    if path.is_file() and (not file.is_verified or sha256_of(path) == file.sha256):
        return path
    if offline:
        problem = "is damaged" if path.is_file() else "is not in the cache"
        msg = f"{path} {problem}, and offline mode is on. Set settings.offline = False (environment: SCCELLO_OFFLINE), or put the file there; it is available from {file.url}."
        raise DownloadError(msg)
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    known = f"sha256:{file.sha256}" if file.is_verified else None
    download = pooch.HTTPDownloader(timeout=_TIMEOUT, hooks={"response": _check_redirect})
    try:
        pooch.retrieve(file.url, known, path.name, path.parent, downloader=download)
    except requests.RequestException as error:
        msg = f"{file.url} could not be downloaded: {error}. Check the network and the URL and call again, or put the file at {path}."
        raise DownloadError(msg) from error
    except DownloadError:
        raise
    except ValueError as error:
        msg = f"{file.url} does not have the sha256 that the manifest states: {_first_line(error)} Nothing was kept. Call again, or use a newer manifest."
        raise HashMismatchError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be written: {error}. Set settings.cache_dir (environment: SCCELLO_CACHE) to another folder."
        raise DownloadError(msg) from error
    return path


def _check_redirect(response: Any, *_: Any, **__: Any) -> None:
    """Refuse redirects to an insecure URL (a response hook of requests)."""
    if response.is_redirect:
        try:
            check_url(urljoin(response.url, response.headers["location"]))
        except ValueError as error:
            msg = f"{response.url} redirects: {error}."
            raise DownloadError(msg) from None


def _check_hash(path: Path, digest: str, file: ModelFile, entry: ModelEntry) -> None:
    if digest != file.sha256:
        advice = {
            "bundled": "Reinstall sccello-tools; after training, update the manifest with models.registry.update_entry.",
            "local": "Update the manifest with models.registry.update_entry if the change is intended.",
        }[entry.source]
        msg = f"{path} has sha256 {digest}, expected {file.sha256}. {advice}"
        raise HashMismatchError(msg)


def _check_pin(file: ModelFile, entry: ModelEntry, digest: str) -> bool:
    """Compare a hash with the pinned one; return whether it was pinned now because it is the first."""
    folder = Path(settings.cache_dir).expanduser() / "pins" / (entry.repo or entry.name)
    pin = folder / (entry.revision or "") / f"{file.path}.sha256"
    try:
        stated = pin.read_text(encoding="utf-8") if pin.is_file() else None
        if stated is None:
            write_text(pin, f"{digest}  {file.path}\n")
            return True
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("The sha256 of %s, %s, cannot be pinned (%s)", file.path, digest, error)
        return False
    match = _PIN.fullmatch(stated)
    if match is None or match[1] != digest:
        seen = match[1] if match else f"an unreadable hash ({stated[:70]!r})"
        msg = f"{file.path} of model {entry.name!r} has sha256 {digest}, but {seen} was pinned in {pin} by an earlier download. The publisher states no hash, so one of the two is wrong. If you trust the new file, delete the pin and call again."
        raise HashMismatchError(msg)
    return False
