"""A progress bar for big files, in a terminal only."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sccello_tools._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

_BIG: Final = 8 * 1024**2  # bytes; less is over before a bar is read


@contextmanager
def byte_progress(name: str, n_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many bytes of a file are here.

    Parameters
    ----------
    name
        What to call it.
    n_bytes
        Its size, if known at least roughly; a file of unknown size counts as big.

    Yields
    ------
    A function to call with the number of bytes that are here.
    """
    shown = settings.progress and sys.stderr.isatty() and (n_bytes is None or n_bytes >= _BIG)
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=n_bytes)
        yield lambda done: bar.update(task, completed=done)
