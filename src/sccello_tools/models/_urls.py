"""Where a file can be fetched from, and which addresses are refused."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from sccello_tools.errors import WeightsError

if TYPE_CHECKING:
    from typing import Final

    from ._records import ModelEntry, ModelFile

HUGGINGFACE: Final = "https://huggingface.co"
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


class Address(NamedTuple):
    """One place to fetch a file from."""

    url: str
    commit: str | None = None
    """Commit, maybe shortened, that the answer must be of, where the server names it."""
    must_name_commit: bool = False
    """Whether an answer that names no commit is refused."""


def addresses(entry: ModelEntry, file: ModelFile) -> tuple[Address, ...]:
    """List the places to try for a file, best first.

    Hugging Face documents full commit hashes only; whether it takes a shortened one is its own
    choice. So a shortened one is asked for first, then the main branch, whose answer must name
    a commit that begins with it.

    Parameters
    ----------
    entry
        Model of source "huggingface" or "url".
    file
        One of its files.

    Raises
    ------
    WeightsError
        If the address that ``HF_ENDPOINT`` gives is not https (http is for this machine only).
    """
    if entry.source == "url" or file.url is not None:
        return (Address(str(file.url)),)
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUGGINGFACE
    check_url(endpoint, error=WeightsError, where="HF_ENDPOINT")
    base, name = f"{endpoint}/{entry.repo}/resolve", quote(file.path)
    revision = str(entry.revision)
    if not _SHORT_COMMIT.fullmatch(revision):
        return (Address(f"{base}/{revision}/{name}"),)
    return (
        Address(f"{base}/{revision}/{name}", revision),
        Address(f"{base}/main/{name}", revision, must_name_commit=True),
    )


def check_url(url: str, *, error: type[WeightsError], where: str, may_be_file: bool = True) -> None:
    """Refuse an address that is neither https nor a local file; http may only go to this machine.

    Parameters
    ----------
    url
        The address.
    error
        Type to raise.
    where
        Who gave the address, for the message.
    may_be_file
        Whether a file of this machine will do; a server may not send us to one.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if (
        (parts.scheme == "https" and host)
        or (may_be_file and parts.scheme == "file" and host in {"", "localhost"})
        or (parts.scheme == "http" and _is_loopback(host))
    ):
        return
    or_file = " or file://" if may_be_file else ""
    msg = f"{where}: address {url!r} is refused; expected https:// (http:// only to this machine){or_file}."
    raise error(msg)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, not a number
        return False
