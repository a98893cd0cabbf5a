"""Plain threads over blocks of a range, for kernels that hold no lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def n_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(n: int, work: Callable[[int, int], T], *, block: int) -> list[T]:
    """Run ``work(first, last)`` over blocks of ``range(n)`` on every core; the results in order of the blocks."""
    blocks = [(first, min(first + block, n)) for first in range(0, n, block)]
    if len(blocks) <= 1:
        return [work(first, last) for first, last in blocks]
    with ThreadPoolExecutor(min(n_threads(), len(blocks))) as pool:
        return [done.result() for done in [pool.submit(work, *span) for span in blocks]]
