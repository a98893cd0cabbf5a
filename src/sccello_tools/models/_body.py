"""The answer of a server and the part file that it goes to: where the bytes belong, how many may come."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from sccello_tools.errors import DownloadError

from ._urls import check_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from ._urls import Address

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_SHA256_ETAG = re.compile(r'"?([0-9a-f]{64})"?')


class MissingOnServerError(DownloadError):
    """The server answers that it has no such file."""


class BrokenOffError(Exception):
    """An attempt failed in a way that another one may not."""


class CompleteError(Exception):
    """The part file already holds every byte."""


@dataclass
class Received:
    """What the answers said besides the bytes."""

    resumed: bool = False
    """Whether any of the bytes came from an earlier attempt or another call."""

    announced_sha256: str | None = None
    """Hash that the hub itself states for the file (``X-Linked-Etag``), for a check of the way here."""


class Body:
    """What pooch writes to: the part file, from the place on that the server's answer begins at."""

    def __init__(
        self,
        part: Path,
        *,
        address: Address,
        limit: int,
        received: Received,
        report: Callable[[int], None],
    ) -> None:
        self.part, self.address, self.limit = part, address, limit
        self.received, self.report = received, report
        self.file = part.open("ab")
        self.size = self.file.tell()
        self.commit: str | None = None
        self.responses: list[Any] = []

    def look_at(self, response: Any, *_: Any, **__: Any) -> None:
        """Judge an answer before its body is read (a response hook of requests)."""
        self.responses.append(response)
        headers = response.headers
        self.commit = headers.get("X-Repo-Commit", self.commit)
        if match := _SHA256_ETAG.fullmatch(headers.get("X-Linked-Etag", "")):
            self.received.announced_sha256 = match[1]
        if response.is_redirect:
            target = urljoin(response.url, headers["location"])
            check_url(
                target, error=DownloadError, where=f"{response.url} redirects", may_be_file=False
            )
        elif response.status_code == 206:
            self._check_commit()
            self._continue(headers.get("Content-Range", ""))
        elif response.status_code == 200:
            self._check_commit()
            self._restart(headers.get("ETag"))
            length = headers.get("Content-Length", "")
            self._check_size(int(length) if length.isdecimal() else 0)
        elif response.status_code == 416:
            self._range_refused(headers.get("Content-Range", ""))

    def write(self, chunk: bytes) -> None:
        self._check_size(self.size + len(chunk))
        self.file.write(chunk)
        self.size += len(chunk)
        self.report(self.size)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        for response in self.responses:
            response.close()

    def _check_commit(self) -> None:
        wanted = self.address.commit
        if wanted is None or (self.commit is None and not self.address.must_name_commit):
            return
        if self.commit is None or not self.commit.startswith(wanted):
            msg = f"{self.address.url} is of commit {self.commit or '(not named)'}, expected {wanted}. The repository has moved on; use a newer sccello-tools, or a manifest that names the full commit."
            raise DownloadError(msg)

    def _continue(self, content_range: str) -> None:
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None or match[1] is None or int(match[1]) != self.size:
            self.file.truncate(0)
            msg = (
                f"the server sent another range than was asked for ({content_range or 'not named'})"
            )
            raise BrokenOffError(msg)
        self.received.resumed = True

    def _restart(self, etag: str | None) -> None:
        """Begin at 0: the file is new here, has changed there, or the server knows no ranges."""
        self.file.truncate(0)
        self.size = 0
        self.received.resumed = False
        note = etag_path(self.part)
        if etag is not None and not etag.startswith("W/"):
            note.write_text(etag, encoding="utf-8")
        else:
            note.unlink(missing_ok=True)

    def _range_refused(self, content_range: str) -> None:
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is not None and match[2] == str(self.size):
            raise CompleteError
        self.file.truncate(0)
        msg = "the server has no such range"
        raise BrokenOffError(msg)

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            self.file.truncate(0)
            msg = f"{self.address.url} sends more than the {self.limit:,} bytes that the file may have; it is not the file that the manifest means."
            raise DownloadError(msg)


def etag_path(part: Path) -> Path:
    """Where the server's mark of the part file's version is kept."""
    return part.with_name(f"{part.name}.etag")
