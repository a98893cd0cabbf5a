"""Is the file that lies here the one that is meant?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools._logging import logger
from sccello_tools.errors import HashMismatchError, WeightsError

from ._hashes import check_pin, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from ._records import ModelEntry, ModelFile


def is_good(path: Path, file: ModelFile, entry: ModelEntry, *, offline: bool) -> bool:
    if not path.is_file():
        return False
    digest = sha256_of(path)
    if not file.is_verified:
        check_pin(path, digest, source=str(path.parent))
        return True
    if digest == file.sha256:
        return True
    if offline:
        raise _mismatch(path, digest, file, entry)
    logger.warning(
        "%s is not the file that the manifest means (sha256 %s); fetching it again", path, digest
    )
    return False


def check_in_place(path: Path, file: ModelFile, entry: ModelEntry) -> Path:
    if not path.is_file():
        advice = "Install sccello-tools again." if entry.source == "bundled" else "Check the path."
        msg = f"{path} of {entry.source} model {entry.name!r} is missing. {advice}"
        raise WeightsError(msg)
    if file.is_verified and (digest := sha256_of(path)) != file.sha256:
        raise _mismatch(path, digest, file, entry)
    return path


def _mismatch(path: Path, digest: str, file: ModelFile, entry: ModelEntry) -> HashMismatchError:
    advice = {
        "bundled": "Install sccello-tools again; after training, bring the manifest up to date with models.manifest.update_entry.",
        "local": "Bring the manifest up to date with models.manifest.update_entry, if the change is yours.",
    }.get(entry.source, "Delete it and call again with the network on.")
    return HashMismatchError(f"{path} has sha256 {digest}, expected {file.sha256}. {advice}")
