"""Hashes of files, and the pins of those whose hash nobody published."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from sccello_tools._logging import logger
from sccello_tools.errors import HashMismatchError

_PIN = re.compile(r"([0-9a-f]{64})  .+\n?")


def sha256_of(path: Path) -> str:
    """Hash a file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text beside its place and move it there: a broken run leaves the old file or the new one.

    Parameters
    ----------
    path
        Its place.
    text
        What to write, in UTF-8.
    """
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(mode)  # mkstemp makes files that only their owner reads
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def pin_path(path: Path) -> Path:
    """Where the pin of a file lies: beside it, in the form that ``sha256sum --check`` reads."""
    return path.with_name(f"{path.name}.sha256")


def read_pin(path: Path) -> str | None:
    """Return the pinned hash of a file, None if there is no pin.

    Parameters
    ----------
    path
        The file, which itself need not be there.

    Raises
    ------
    HashMismatchError
        If there is a pin but it cannot be read: then nothing vouches for the file.
    """
    pin = pin_path(path)
    if not pin.exists():
        return None
    if match := _PIN.fullmatch(pin.read_text(encoding="utf-8", errors="replace")):
        return match[1]
    msg = f"The pinned hash in {pin} cannot be read; expected a line '<sha256>  {path.name}'. If you trust the file, delete the pin and call again."
    raise HashMismatchError(msg)


def check_pin(path: Path, sha256: str, *, source: str) -> None:
    """Compare a hash with the file's pin, and pin it (and say so) if it is the first.

    Parameters
    ----------
    path
        The file, at the place where it lies or will lie.
    sha256
        Its hash.
    source
        Where it came from, for messages.

    Raises
    ------
    HashMismatchError
        If another hash was seen before.
    """
    pinned = read_pin(path)
    if pinned is None:
        _write_pin(path, sha256, source)
    elif pinned != sha256:
        msg = (
            f"{path.name} from {source} has sha256 {sha256}, but {pinned} was seen first and pinned in "
            f"{pin_path(path)}. Its publisher states no hash, so one of the two is not what it claims to be. "
            f"If you trust the new one, delete {path.name} and its pin and call again."
        )
        raise HashMismatchError(msg)


def _write_pin(path: Path, sha256: str, source: str) -> None:
    try:
        write_atomically(pin_path(path), f"{sha256}  {path.name}\n")
    except OSError as error:
        logger.warning(
            "No sha256 is published for %s; its hash %s could not be pinned (%s), so a change will not be noticed.",
            path.name, sha256, error,
        )  # fmt: skip
        return
    logger.warning(
        "No sha256 is published for %s (%s); pinned the one seen now, %s. A different file will be refused.",
        path.name, source, sha256,
    )  # fmt: skip
