"""What every benchmark needs: timings with their spread, a table, and a line that says on which machine.

Run a benchmark as a script (``python benchmarks/tokenizing.py``), so that this folder is where it imports from. `board.py` runs them all
and names a file in the environment variable `SCCELLO_BENCH_TABLES`, to which each printed table is added.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel


TABLES = "SCCELLO_BENCH_TABLES"


class Timing(NamedTuple):
    """Seconds that a piece of work took, over several runs."""

    seconds: tuple[float, ...]
    """By the clock on the wall, a run each."""

    cpu_seconds: tuple[float, ...] = ()
    """Of this process on all cores, a run each: what is left to compare on a machine that has other work too."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu_seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range over the median: 0.05 means about 5 % up and down."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median

    def rate(self, n: int) -> str:
        """Pieces a second, median and range over the runs."""
        low, high = n / max(self.seconds), n / min(self.seconds)
        return f"{n / self.median:,.0f} ({low:,.0f} to {high:,.0f})"

    def __str__(self) -> str:
        unit, scale = ("s", 1.0) if self.median >= 1 else ("ms", 1e3)
        return f"{self.median * scale:,.3g} {unit} ± {self.spread:.0%}"


def time_all(
    work: Mapping[str, Callable[[], object]], *, n_runs: int = 5, n_warmup: int = 1
) -> dict[str, Timing]:
    """Time several pieces of work in turns, so that a slow minute of the machine touches all of them alike."""
    for function in work.values():
        for _ in range(n_warmup):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(n_runs):
        for name, function in work.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            function()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu_start)
    return {name: Timing(tuple(seconds[name]), tuple(cpu_seconds[name])) for name in work}


def describe_machine() -> str:
    """Processor, cores, memory, load at this moment, and versions: what a figure means nothing without."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{_processor()}, {cores} cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        parts.append(f"{memory:.0f} GiB")
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} over the last minute")
    if (torch := sys.modules.get("torch")) is not None:
        parts.append(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_device_name())
    parts.append(f"Python {platform.python_version()}, NumPy {version('numpy')}")
    return "; ".join(parts)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *notes: str,
    machine: str | None = None,
) -> None:
    """Print a table, its notes and the machine (this one, if not given). The first column is text, the others are figures."""
    console = Console()
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    machine = machine or describe_machine()
    console.print(f"Machine: {machine}", style="dim", highlight=False, markup=False)
    if path := os.environ.get(TABLES):
        record = {
            "title": title,
            "columns": list(columns),
            "rows": [list(row) for row in rows],
            "notes": list(notes),
            "machine": machine,
        }
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def mean_and_spread(values: Sequence[float] | NDArray[np.floating]) -> str:
    """Format mean and standard deviation, the mean alone of a single value, and a dash without a value."""
    if np.isnan(values).all():
        return "–"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def load_models(names: Sequence[str]) -> dict[str, LoadedModel]:
    """Load models on the CPU, keyed by their names, or by their addresses if two have the same name."""
    import sccello_tools as sccello

    loaded = [sccello.models.load(name, device="cpu") for name in names]
    short = [model.name for model in loaded]
    keys = [model.name if short.count(model.name) == 1 else model.address for model in loaded]
    return dict(zip(keys, loaded))


def against(value: float, wanted: float, *, at_least: bool = True) -> str:
    """Say whether a figure is what was wanted."""
    met = value >= wanted if at_least else value <= wanted
    return f"{'met' if met else 'NOT met'} (wanted {'≥' if at_least else '≤'} {wanted:,g})"
