"""The work of building a corpus, one shard at a time: in this process, in others, or on a cluster."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.corpus.manifest import BUILD_AGAIN, ShardRecord
from sccello_tools.corpus.writer import ShardCells, write_shard
from sccello_tools.errors import CorpusError, FileFormatError, NotCountsError
from sccello_tools.tokens import Tokenizer, ValueSummary

from .inputs import (
    as_text,
    fingerprint_of,
    frame_of,
    labels_of,
    matrix_of,
    not_counts,
    open_store,
    read_column,
)
from .spans import csc_spans, row_slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor, Future
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.corpus.manifest import CorpusConfig
    from sccello_tools.tokens import Chunk
    from sccello_tools.tokens.counts import CountsPolicy

    from .corpus_plan import InputPlan
    from .spans import Span


@dataclass(frozen=True, eq=False)
class ShardTask:
    """What one worker does at a time: one shard, or all shards of an input whose rows cannot be read apart."""

    out: Path
    """Folder of the corpus."""
    plan: InputPlan
    """The input."""
    spans: tuple[Span, ...]
    """The shards to write, ascending."""
    config: CorpusConfig
    """What decides the rows."""
    obs_kinds: dict[str, str]
    """Kind of each column of ``obs`` in the corpus."""
    counts: CountsPolicy
    """How strictly to check for counts."""


def run_task(task: ShardTask) -> list[ShardRecord]:
    """Read, tokenize and write the shards of a task.

    Raises
    ------
    NotCountsError
        If the matrix does not hold raw counts.
    FileFormatError
        If the input breaks off.
    CorpusError
        If the input has changed, or the disk is full.
    """
    plan = task.plan
    _check_unchanged(plan)
    records = []
    with open_store(plan.path) as store:
        matrix = matrix_of(store, plan.path, task.config.layer)
        chunks = csc_spans(matrix, task.spans) if plan.by_column else None
        for span in task.spans:
            rows = row_slices(matrix, span) if chunks is None else next(chunks)
            record = ShardRecord(
                span.name, plan.source, span.start, span.stop, task.config.digest, plan.fingerprint
            )
            cells = _cells(task, store, rows)
            records.append(write_shard(task.out, record, cells, task.obs_kinds))
    _check_unchanged(plan)
    return records


def run_tasks(
    tasks: Sequence[ShardTask], *, n_workers: int | None, client: Any
) -> Iterator[list[ShardRecord]]:
    """Run tasks and yield their records as they finish. At the first error nothing more is begun.

    Parameters
    ----------
    tasks
        What to do.
    n_workers
        Processes on this machine; None or 1 works in this one.
    client
        A ``dask.distributed.Client`` to work with instead.
    """
    if client is None and (n_workers is None or n_workers == 1 or len(tasks) <= 1):
        yield from map(run_task, tasks)
        return
    with _executor(min(n_workers or 1, len(tasks)), client) as pool:
        waiting = iter(tasks)
        running: set[Future[list[ShardRecord]]] = set()
        at_a_time = 2 * (n_workers or _n_of_client(client))
        try:
            while True:
                for task in waiting:
                    running.add(pool.submit(run_task, task))
                    if len(running) >= at_a_time:
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except _deaths() as error:
            msg = (
                "A worker process died, as happens when memory runs out, or when a script starts workers without "
                f'`if __name__ == "__main__":`. {BUILD_AGAIN} With fewer n_workers it needs less memory.'
            )
            raise CorpusError(msg) from error
        finally:
            for future in running:
                future.cancel()


def _deaths() -> tuple[type[Exception], ...]:
    """How it is told that a worker died: by the standard library, and by dask where it is in use."""
    if "distributed" not in sys.modules:
        return (BrokenProcessPool,)
    from dask.distributed import KilledWorker

    return BrokenProcessPool, KilledWorker


@contextmanager
def _executor(n_workers: int, client: Any) -> Iterator[Executor]:
    if client is not None:
        # the futures of a cluster in the form of the standard library
        with client.get_executor() as pool:
            yield pool
        return
    # fork would copy the locks of HDF5 and Arrow in whatever state they are
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        yield pool


def _n_of_client(client: Any) -> int:
    return max(1, sum(map(int, client.nthreads().values())))


def _cells(task: ShardTask, store: Any, rows: Iterator[Chunk]) -> Iterator[ShardCells]:
    """Tokenize pieces of a shard and leave out what cannot train."""
    plan, config = task.plan, task.config
    tokenizer = Tokenizer(plan.gene_match, config.max_length)
    obs = frame_of(store, plan.path, "obs")
    try:
        for chunk in rows:
            start, stop = chunk.start, chunk.start + chunk.rows.shape[0]
            summary = ValueSummary()
            summary.add(chunk.rows.data)
            if complaint := summary.complaint(task.counts):
                raise NotCountsError(not_counts(store, plan.path, config.layer, complaint))
            labels = labels_of(store, plan.path, config.label_key, start, stop)
            terms = np.array([plan.term_of.get(label, "") for label in labels], dtype=object)
            tokens = tokenizer(chunk.rows)
            labelled = terms != ""
            kept = np.flatnonzero(labelled & (tokens.lengths > 0))
            left_out = Counter(plan.reason_of[label] for label in labels[~labelled])
            left_out["no_gene"] = int((labelled & (tokens.lengths == 0)).sum())
            yield ShardCells(
                tokens=tokens if len(kept) == len(tokens) else tokens.take(kept),
                cell_types=terms[kept],
                rows=kept + start,
                obs={
                    key: _as_kind(read_column(obs, key, start, stop), kind)[kept]
                    for key, kind in task.obs_kinds.items()
                },
                left_out=left_out,
            )
    except OSError as error:  # not the disk that is written to
        msg = f"{plan.path} breaks off or is damaged: {error}. {BUILD_AGAIN}"
        raise FileFormatError(msg) from error


def _as_kind(values: Any, kind: str) -> NDArray[Any]:
    if kind == "string":
        return as_text(values, missing=None)
    array: NDArray[Any] = np.asarray(values)
    return array if array.dtype != object else array.astype(kind)


def _check_unchanged(plan: InputPlan) -> None:
    if fingerprint_of(plan.path) != plan.fingerprint:
        msg = f"{plan.path} was changed while the corpus was built. Let nothing write to it. {BUILD_AGAIN}"
        raise CorpusError(msg)
