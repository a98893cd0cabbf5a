"""Progress bar for long computations."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, Task, TaskID

_LONG_WORK = 2_000  # cells; fewer are processed before a bar can be read


class Bar:
    """A progress bar, shown or not; call it with the number of cells just completed."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress, self._task = progress, task

    def __call__(self, n: int) -> None:
        """Advance by ``n`` cells."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, n)

    def describe(self, text: str) -> None:
        """Replace the description."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Bar]:
    """Show a progress bar over ``total`` cells with rate and remaining time.

    Nothing is shown for fewer than 2,000 cells, outside a terminal or notebook, or with ``settings.progress = False``.
    """
    if not settings.progress or total < _LONG_WORK:
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    console = Console(stderr=True)
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    # with some releases of rich, a bar that is only disabled still prints a newline
    if not (console.is_interactive or in_notebook):
        yield Bar()
        return

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} cells/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Bar(bar, bar.add_task(description, total=total))
