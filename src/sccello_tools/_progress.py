"""One progress bar for long work, where somebody is looking."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONG_WORK = 2_000  # cells; below that the work is over before a bar is read


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar over ``total`` cells; yields a function that takes how many more are done.

    Nothing is shown for short work, outside a terminal or notebook, or with ``settings.progress = False``.
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
    if (
        not console.is_interactive
    ):  # a bar that is only disabled still ends its line with some releases of rich
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
