"""Run tasks in this process or on the workers of a dask cluster, with progress, retries and a report of failures."""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import islice
from logging import INFO
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from sccello_tools._logging import logger
from sccello_tools._progress import progress_bar
from sccello_tools.errors import (
    ArgumentError,
    BackendError,
    FilesError,
    MissingExtraError,
    OutputError,
    ScCelloError,
    WeightsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Final

    from sccello_tools._progress import Bar

T = TypeVar("T")
R = TypeVar("R")
OnError = Literal["raise", "report"]

AGAIN: Final = "Call again with the same arguments: finished blocks are kept."
_NOT_THE_FILE = (OutputError, WeightsError, BackendError, MissingExtraError)
_LOG_EVERY = 60.0  # seconds between lines in the log, for batch jobs without a terminal
_PLUGIN: Final = "sccello-tools"
_ATTEMPTS = 5  # for a task whose scheduler was restarted
_CHECK_WORKERS_EVERY = 5.0  # seconds; clusters grow and shrink


class Failure(NamedTuple):
    """A task that raised an error of this package."""

    error: ScCelloError


class Done(NamedTuple, Generic[T, R]):
    """A finished task."""

    task: T
    result: R | Failure


def guarded(function: Callable[[T], R], task: T) -> R | Failure:
    """Call a function; errors about the data are returned, so that dask does not retry them."""
    try:
        return function(task)
    except ScCelloError as error:
        return Failure(error)


class Here:
    """Runs tasks in this process, one after the other."""

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Yield finished tasks."""
        for task in tasks:
            yield Done(task, guarded(function, task))

    def setup(self, prepare: Callable[[], object]) -> None:
        """Do nothing: what a task needs is loaded by the first one."""


class OnCluster:
    """Runs tasks on the workers of a ``dask.distributed`` cluster."""

    def __init__(self, client: Any) -> None:
        if getattr(client, "asynchronous", False):
            msg = "client must be a synchronous dask.distributed.Client; create it without asynchronous=True."
            raise ArgumentError(msg)
        self._client = client
        self._n_slots, self._checked, self._prepared = 0, 0.0, False

    def setup(self, prepare: Callable[[], object]) -> None:
        """Prepare all workers, also those that join later: load the model once, before their first task."""
        from distributed import WorkerPlugin

        class Preparation(WorkerPlugin):
            name = _PLUGIN

            def setup(self, worker: object) -> None:
                del worker
                prepare()

        try:
            self._client.register_plugin(Preparation())
        except ScCelloError:
            raise
        except (OSError, RuntimeError) as error:
            raise FilesError(_lost(error)) from error
        self._prepared = True

    def close(self) -> None:
        """Stop preparing workers that join later."""
        if self._prepared and self._client.status == "running":
            self._client.unregister_worker_plugin(_PLUGIN)

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Yield finished tasks in the order in which they finish; a limited number is submitted at a time."""
        from distributed import CancelledError, KilledWorker, as_completed

        waiting = iter(tasks)
        running: dict[str, tuple[Any, T, int]] = {}
        futures: Any = as_completed(loop=self._client.loop)  # type: ignore[no-untyped-call]

        def submit(task: T, attempt: int = 1) -> None:
            future = self._client.submit(guarded, function, task, pure=False, retries=2)
            running[future.key] = future, task, attempt
            futures.add(future)

        try:
            for task in islice(waiting, self._window()):
                submit(task)
            for future in futures:
                _, task, attempt = running.pop(future.key)
                try:
                    result = future.result()
                except KilledWorker as error:
                    msg = f"Workers died repeatedly, for example because memory ran out ({error}). Give each worker more memory, or reduce cells_per_block. {AGAIN}"
                    result = Failure(FilesError(msg))
                except (
                    CancelledError,
                    OSError,
                ) as error:  # the scheduler was restarted, or is gone
                    if attempt >= _ATTEMPTS or self._client.status != "running":
                        raise FilesError(_lost(error)) from error
                    submit(task, attempt + 1)
                    continue
                yield Done(task, result)
                for more in islice(waiting, max(0, self._window() - len(running))):
                    submit(more)
        finally:
            if running and self._client.status == "running":
                self._client.cancel([future for future, _, _ in running.values()])

    def _window(self) -> int:
        """Return how many tasks may be submitted: enough to keep all workers busy, whatever the number of tasks."""
        if time.monotonic() - self._checked > _CHECK_WORKERS_EVERY:
            self._n_slots = sum(self._client.nthreads().values())
            self._checked = time.monotonic()
        return 4 * self._n_slots + 16


def _lost(error: BaseException) -> str:
    return (
        f"The connection to the dask scheduler was lost ({type(error).__name__}: {error}). {AGAIN}"
    )


@contextmanager
def executor(client: Any, n_workers: int) -> Iterator[Here | OnCluster]:
    """Return what runs tasks: a client's cluster, a temporary one of ``n_workers`` local processes, or this process.

    Without a client and with ``n_workers=1``, dask is not imported.

    Raises
    ------
    MissingExtraError
        If dask is needed and not installed.
    FilesError
        If the local processes cannot be started.
    """
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
        msg = f"n_workers must be an integer >= 1, got {n_workers!r}"
        raise ArgumentError(msg)
    if client is not None:
        on_cluster = OnCluster(client)
        try:
            yield on_cluster
        finally:
            on_cluster.close()
        return
    if n_workers == 1:
        yield Here()
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        what = f"n_workers={n_workers}"
        raise MissingExtraError(what, extra="scale") from error
    import logging

    try:
        # without limits on memory: dask would pause and restart workers for pages that other processes share
        cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0", silence_logs=logging.ERROR)  # type: ignore[no-untyped-call]  # fmt: skip
    except (OSError, RuntimeError) as error:
        msg = f'{n_workers} worker processes could not be started ({error}). A script must guard its calls with `if __name__ == "__main__":`.'
        raise FilesError(msg) from error
    with cluster, Client(cluster, set_as_default=False) as local:  # type: ignore[no-untyped-call]
        logger.debug("dashboard of the local workers: %s", cluster.dashboard_link)
        yield OnCluster(local)


class Progress:
    """Counts finished cells and failed files, for a progress bar and the log."""

    def __init__(self, name: str, n_cells: int, bar: Bar) -> None:
        self._name, self._total, self._bar = name, n_cells, bar
        self._done, self._start = 0, time.monotonic()
        self._said = self._start
        self.failed: dict[str, str] = {}
        """Reason by name of the input."""

    def finished(self, n_cells: int) -> None:
        """Count cells."""
        self._done += n_cells
        self._bar(n_cells)
        now = time.monotonic()
        if now - self._said > _LOG_EVERY:
            self._said = now
            rate = self._done / (now - self._start)
            left = (self._total - self._done) / max(rate, 1e-9)
            logger.log(INFO, "%s: %s of %s cells, %s cells/s, about %s left, %d files failed", self._name, f"{self._done:,}", f"{self._total:,}", f"{rate:,.0f}", _duration(left), len(self.failed))  # fmt: skip

    def fail(self, source: str, error: ScCelloError, on_error: OnError) -> None:
        """Raise the error of a task, or record it for its file.

        Raises
        ------
        ScCelloError
            The error, with ``errors="raise"`` or if it is not about the file.
        """
        if on_error == "raise" or isinstance(error, _NOT_THE_FILE):
            raise error
        if source not in self.failed:
            self.failed[source] = str(error)
            self._bar.describe(f"{self._name} ({len(self.failed)} files failed)")
            logger.warning("%s: %s failed: %s", self._name, source, error)


@contextmanager
def progress(name: str, n_cells: int) -> Iterator[Progress]:
    """Show the progress of a job."""
    with progress_bar(name, n_cells) as bar:
        yield Progress(name, n_cells, bar)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
