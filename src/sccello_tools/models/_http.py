"""One file over HTTP, taken up again where it broke off.

pooch's ``HTTPDownloader`` makes the transfer; the range, the time-outs and a response hook go in as its
keyword arguments. By itself it neither resumes nor looks at the answer before it writes, so the hook and
the file object of ``_body.py`` do that, and the attempts are counted here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sccello_tools._logging import logger
from sccello_tools.errors import DownloadError

from ._body import Body, BrokenOffError, CompleteError, MissingOnServerError, Received, etag_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Final

    from ._urls import Address

_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE: Final = 30.0  # seconds


@dataclass(frozen=True)
class Transfer:
    """How patient a download is, and how much it takes."""

    connect_timeout: float = 10.0
    """Seconds to wait for a connection."""

    stall_timeout: float = 30.0
    """Seconds without a byte after which the connection is given up and taken up again."""

    attempts: int = 4
    """Attempts in a row that bring no new byte before giving up."""

    backoff: float = 1.0
    """Seconds before the second attempt; doubles with each."""

    max_bytes: int = 4 * 1024**3
    """Most that a file may have whose size nobody published."""

    chunk_bytes: int = 64 * 1024
    """Bytes written at a time; so much is lost at most when a connection breaks."""

    lock_timeout: float = 1800.0
    """Seconds to wait for another process that fetches the same file."""


def download(
    address: Address,
    part: Path,
    *,
    n_bytes: int | None,
    limit: int,
    transfer: Transfer,
    report: Callable[[int], None],
) -> Received:
    """Fetch a file into its part file, going on from what is there already.

    Parameters
    ----------
    address
        Where from.
    part
        Where to; kept when the attempts are used up, so that a later call goes on from it.
    n_bytes
        Exact size, if known.
    limit
        Most bytes that may come.
    transfer
        Patience.
    report
        Called with the number of bytes that are there.

    Returns
    -------
    What the server said besides. The bytes are not verified.

    Raises
    ------
    MissingOnServerError
        If the server has no such file.
    DownloadError
        If the server refuses, sends too much, or too many attempts brought nothing.
    OSError
        If the part file cannot be written.
    """
    received = Received()
    most = _size(part)
    failures = 0
    while n_bytes is None or _size(part) != n_bytes:
        try:
            _attempt(address, part, limit, transfer, received, report)
            if n_bytes is None or _size(part) == n_bytes:
                break
            msg = f"the server ended after {_size(part):,} of {n_bytes:,} bytes"
            raise BrokenOffError(msg)
        except CompleteError:
            received.resumed = True
            break
        except BrokenOffError as fault:
            kept = _size(part)
            failures = 1 if kept > most else failures + 1
            most = max(most, kept)
            if failures >= transfer.attempts:
                raise DownloadError(
                    _gave_up(address, part, fault, failures, kept, n_bytes)
                ) from fault
            logger.info("%s: %s; trying again from byte %d", address.url, fault, kept)
        time.sleep(min(transfer.backoff * 2 ** (failures - 1), _LONGEST_PAUSE))
    return received


def _attempt(
    address: Address,
    part: Path,
    limit: int,
    transfer: Transfer,
    received: Received,
    report: Callable[[int], None],
) -> None:
    import pooch
    import requests

    body = Body(part, address=address, limit=limit, received=received, report=report)
    # gzip on the way would make offsets and sizes those of another file
    headers = {"Accept-Encoding": "identity", "User-Agent": "sccello-tools"}
    if body.size:
        headers["Range"] = f"bytes={body.size}-"
        if etag_path(part).exists():
            headers["If-Range"] = etag_path(part).read_text(encoding="utf-8")
    fetch = pooch.HTTPDownloader(
        progressbar=False,
        chunk_size=transfer.chunk_bytes,
        headers=headers,
        timeout=(transfer.connect_timeout, transfer.stall_timeout),
        hooks={"response": body.look_at},
    )
    try:
        fetch(address.url, body, None)
    except requests.HTTPError as error:
        raise _refusal(address, error.response.status_code) from error
    except (
        requests.exceptions.SSLError,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.TooManyRedirects,
    ) as error:
        msg = f"{address.url} could not be fetched: {error}."
        raise DownloadError(msg) from error
    except requests.RequestException as error:
        raise BrokenOffError(_reason(error, address, transfer)) from error
    finally:
        body.close()


def _refusal(address: Address, status: int) -> Exception:
    if status in {404, 410}:
        return MissingOnServerError(f"The server has no such file ({status}): {address.url}.")
    if status in _WORTH_ANOTHER_TRY:
        return BrokenOffError(f"the server answers {status}")
    return DownloadError(f"The server refuses {address.url} (status {status}).")


def _reason(error: Exception, address: Address, transfer: Transfer) -> str:
    import requests

    host = urlsplit(address.url).netloc
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection to {host} within {transfer.connect_timeout:g} s"
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error).lower():
        return f"{host} sent nothing for {transfer.stall_timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"{host} broke the connection off"
    return f"no connection to {host} ({error})"


def _gave_up(
    address: Address, part: Path, fault: Exception, failures: int, kept: int, n_bytes: int | None
) -> str:
    total = "" if n_bytes is None else f" of {n_bytes:,}"
    again = f"{kept:,}{total} bytes are kept in {part}; call again to go on from there. "
    return (
        f"{address.url} could not be fetched: {fault} ({failures} attempts without a new byte). "
        f"{again if kept else ''}Without a network, fetch the file elsewhere and put it at "
        f"{part.with_suffix('')}, or use the bundled model."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
