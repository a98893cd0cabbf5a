"""Threads: usable cores, blocks of a range in parallel, and prefetching from an iterator."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

T = TypeVar("T")


def n_cores() -> int:
    """Return the number of cores that this process may use: those it is bound to, at most ``OMP_NUM_THREADS``.

    Workers of a cluster share a machine and are limited by that variable, as the libraries that compute for them.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(n, int(limit))) if limit.isdigit() else n


def in_threads(n: int, work: Callable[[int, int], T], *, block: int) -> list[T]:
    """Run ``work(first, last)`` over blocks of ``range(n)`` on all cores and return the results in block order."""
    blocks = [(first, min(first + block, n)) for first in range(0, n, block)]
    if len(blocks) <= 1:
        return [work(first, last) for first, last in blocks]
    with ThreadPoolExecutor(min(n_cores(), len(blocks))) as pool:
        return [done.result() for done in [pool.submit(work, *span) for span in blocks]]


class _SingleThreadedBlas:
    """Count the callers, because limits that overlap would restore each other's instead of the original number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_callers = 0
        self._controller: Any = None  # finding the libraries takes milliseconds
        self._limit: Any = None

    @contextmanager
    def __call__(self) -> Generator[None, None, None]:
        """Limit BLAS to one thread per call, for blocks that run in threads of their own."""
        from threadpoolctl import ThreadpoolController

        with self._lock:
            if self._controller is None:
                self._controller = ThreadpoolController()
            if self._n_callers == 0:
                self._limit = self._controller.limit(limits=1, user_api="blas")
            self._n_callers += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_callers -= 1
                if self._n_callers == 0:
                    self._limit.restore_original_limits()


single_threaded_blas = _SingleThreadedBlas()


def prefetch(source: Iterator[T]) -> Generator[T, None, None]:
    """Compute the next item in a thread while the caller processes the current one.

    An exception of the source is raised where its item would have been yielded. Closing the generator ends the thread and closes the
    source.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="sccello-tokenize") as pool:
        try:
            pending = pool.submit(next, source, None)
            while (item := pending.result()) is not None:
                pending = pool.submit(next, source, None)
                yield item
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(source, Generator):
                source.close()
