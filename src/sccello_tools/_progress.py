"""Progress bar for long computations."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONG_WORK = 2_000  # cells; fewer are processed before a bar can be read


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over ``total`` cells; yields a function to call with the number of cells just completed.

    Nothing is shown for fewer than 2,000 cells, outside a terminal or notebook, or with ``settings.progress = False``.
    """
    if not settings.progress or total < _LONG_WORK:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    # with some releases of rich, a bar that is only disabled still prints a newline
    if not console.is_interactive:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n: bar.advance(task, n)
