"""The steps that all jobs share: examine the inputs, find finished blocks, process the missing ones."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from filelock import FileLock, Timeout

from sccello_tools import __version__
from sccello_tools._anndata.counts import (
    warn_of_empty_cells,
    warn_of_low_fractions,
    warn_user,
)
from sccello_tools._io import check_output
from sccello_tools._logging import logger
from sccello_tools._validation import check_choice
from sccello_tools.corpus import read_record
from sccello_tools.corpus.manifest import Input
from sccello_tools.errors import ArgumentError

from .plan import (
    LOCK,
    CellsRecord,
    FilesManifest,
    Look,
    Planned,
    Task,
    block_path,
    blocks_of,
    earlier_manifest,
    named_inputs,
)
from .run import AGAIN, Failure, executor, progress
from .worker import job_of, process

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Any

    from sccello_tools.corpus.manifest import Manifest, Record
    from sccello_tools.engine import Precision
    from sccello_tools.errors import ScCelloError

    from .plan import Block, FilesConfig
    from .run import Here, OnCluster, OnError
    from .worker import Setup


_N_WARNINGS = 3  # maximum number of warnings about the genes of single files
C = TypeVar("C", bound="Record")
T = TypeVar("T")
R = TypeVar("R")


class ModelInfo(NamedTuple):
    """Properties of the model, as determined on a worker."""

    name: str
    sha256: str
    precision: Precision
    """As resolved for the worker's device."""
    max_length: int
    n_dimensions: int
    ontology_release: str
    warning: str = ""
    """Warning for the user, "" for none."""
    infers_tissues: bool = False
    """Whether the model infers tissues from the cells, for annotation without ``tissue``."""
    calibrated: tuple[float, float] = (0.0, float("inf"))
    """Least and largest number of tokens that confidence was calibrated on, for annotation."""


class FilesJob(NamedTuple):
    """A job of embed_files or annotate_files, ready to run."""

    run: Here | OnCluster
    setup: Setup
    manifest: FilesManifest
    info: ModelInfo
    is_new: bool
    """Whether no earlier call has written to the folder."""

    def finished_blocks(self) -> dict[str, CellsRecord]:
        """Return the records of all blocks that an earlier call finished, by name."""
        return finished_blocks(self.manifest, partial(block_path, self.setup.out), CellsRecord)

    def finish(self, failed: Mapping[str, str]) -> None:
        """Mark the folder as complete, without the inputs that failed."""
        files = [
            file.model_copy(update={"error": failed.get(file.source, file.error)})
            for file in self.manifest.inputs
        ]
        done = {"inputs": tuple(files), "complete": True}
        self.manifest.model_copy(update=done).write(self.setup.out)


@contextmanager
def files_job(
    inputs: Any,
    setup: Setup,
    config_of: Callable[[ModelInfo], FilesConfig],
    *,
    info_of: Callable[[Setup], ModelInfo],
    client: Any,
    n_workers: int,
    errors: OnError,
    tokens_allowed: bool = False,
) -> Iterator[FilesJob]:
    """Check everything that can be checked before any cell is read, and lock the output folder.

    Parameters
    ----------
    inputs, client, n_workers, errors
        As in :func:`sccello_tools.embed_files`.
    setup
        Arguments of the call; ``plan`` is filled in.
    config_of
        Returns the configuration, given the model.
    info_of
        Checks on a worker what depends on the model, and describes it.
    tokens_allowed
        Whether corpora of tokens are valid inputs.
    """
    check_choice("errors", errors, ("raise", "report"))
    named = named_inputs(inputs)
    if Path(setup.model).is_dir():  # workers may have another working directory
        setup = setup._replace(model=Path(setup.model).absolute())
    with executor(client, n_workers) as run:
        info = on_worker(run, partial(info_of, setup))
        config = config_of(info)
        if info.warning:
            warn_user(info.warning)
        earlier = earlier_manifest(setup.out, config, list(named), FilesManifest)
        look = Look(config, setup.min_matched, tokens_allowed)
        manifest = FilesManifest(
            schema_version=FilesManifest.SCHEMA,
            config=config,
            inputs=tuple(planned.input for planned in examine(run, look, named, errors)),
            model=info.name,
            ontology_release=info.ontology_release,
            sccello_tools_version=__version__,
        )
        check_output(setup.out)
        with locked(setup.out, FilesManifest.ERROR):
            ready = setup._replace(plan=manifest.plan, precision=info.precision)
            yield FilesJob(run, ready, manifest, info, earlier is None)


def model_info(setup: Setup) -> ModelInfo:
    """Load the model and check that device, precision and attention backend are available; runs on a worker."""
    from sccello_tools.engine import resolve_precision
    from sccello_tools.models import load
    from sccello_tools.nn import resolve_attention

    loaded = load(setup.model, device=setup.device)
    computed = resolve_precision(setup.precision, loaded.device)
    resolve_attention(setup.attention, loaded.device, computed)
    resolved: Any = str(computed).removeprefix("torch.")
    return ModelInfo(loaded.name, loaded.sha256, resolved, loaded.config.max_positions, loaded.config.hidden_size, loaded.ontology_release or "")  # fmt: skip


def results_of(run: Here | OnCluster, function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
    """Run tasks and return their results in the order of the tasks; the first error is raised."""
    found = {}
    for number, result in run.map(lambda task: function(task[1]), enumerate(tasks)):
        if isinstance(result, Failure):
            raise result.error
        found[number[0]] = result
    return [found[number] for number in sorted(found)]


def on_worker(run: Here | OnCluster, function: Callable[[], Any]) -> Any:
    """Call a function once where tasks run."""
    return results_of(run, lambda call: call(), [function])[0]


def length_of(max_length: int | None, info: ModelInfo) -> int:
    """Return the maximum number of tokens of a cell."""
    length = info.max_length if max_length is None else max_length
    if not 2 <= length <= info.max_length:
        msg = f"max_length must be in [2, {info.max_length}], the number of positions of {info.name}, got {max_length}"
        raise ArgumentError(msg)
    return length


def examine(
    run: Here | OnCluster, look: Look, named: Mapping[str, Path], errors: OnError
) -> list[Planned]:
    """Examine all inputs, on the workers, and warn about their genes."""
    found: dict[str, Planned] = {}
    for (source, path), result in run.map(look, named.items()):
        if not isinstance(result, Failure):
            found[source] = result
        elif errors == "raise":
            raise result.error
        else:
            logger.warning("%s is left out: %s", source, result.error)
            found[source] = Planned(Input(source=source, path=str(path), error=str(result.error)))
    ordered = [found[source] for source in named]
    notes = [f"{found.input.path}: {note}" for found in ordered for note in found.notes]
    for note in notes[:_N_WARNINGS]:
        warn_user(note)
    if len(notes) > _N_WARNINGS:
        warn_user(
            f"{len(notes) - _N_WARNINGS} similar warnings about other files are in the log (verbosity 'info')."
        )
        for note in notes[_N_WARNINGS:]:
            logger.info("%s", note)
    return ordered


@contextmanager
def locked(out: Path, error: type[ScCelloError]) -> Iterator[None]:
    """Let one call at a time write to a folder."""
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout as busy:
        msg = f"Another call is writing to {out}. Wait until it has finished, or stop it."
        raise error(msg) from busy


def finished_blocks(
    manifest: Manifest, path_of: Callable[[Block], Path], kind: type[C]
) -> dict[str, C]:
    """Return the records of all blocks that an earlier call finished, by name.

    Raises
    ------
    ScCelloError
        If an input was changed since.
    """
    found: dict[str, C] = {}
    for number, file in enumerate(manifest.inputs):
        for block in blocks_of(manifest, number):
            record = read_record(path_of(block), kind)
            if record is None or record.config != manifest.config.digest:
                continue
            if record.fingerprint != file.fingerprint:
                msg = (
                    f"{file.path} was changed since its first blocks were written to {path_of(block).parent}. "
                    f"Restore the file, or delete {block.number:05d}-*.parquet there to process the new one."
                )
                raise manifest.ERROR(msg)
            if (record.first_row, record.last_row) == (block.start, block.stop):
                found[block.name] = record
    return found


def tasks_of(
    manifest: Manifest,
    finished: Collection[str],
    skip: Collection[str],
    tissues: Mapping[str, Mapping[str, float]],
) -> list[Task]:
    """Return the tasks for all blocks that are not finished, without those of the inputs in ``skip``."""
    tasks = []
    for number, file in enumerate(manifest.inputs):
        if file.source in skip:
            continue
        missing = tuple(b for b in blocks_of(manifest, number) if b.name not in finished)
        parts = [(block,) for block in missing] if file.by_row else [missing]
        tasks += [Task(file.source, part, tissues.get(file.source)) for part in parts if part]
    return tasks


def process_blocks(
    run: Here | OnCluster,
    setup: Setup,
    manifest: Manifest,
    finished: dict[str, C],
    *,
    name: str,
    errors: OnError,
    skip: Collection[str] = (),
    tissues: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> dict[str, str]:
    """Process the missing blocks; their records are added to ``finished``.

    Parameters
    ----------
    run, setup, manifest
        The job.
    finished
        Records of the finished blocks, by name.
    name, errors
        Of the call.
    skip
        Inputs to leave out.
    tissues
        Inferred tissues by input, to annotate embedded blocks.

    Returns
    -------
    Why files failed, by name.
    """
    tasks = tasks_of(manifest, finished, skip, tissues)
    if finished:
        logger.info("%s: %d blocks are already finished", name, len(finished))
    if tasks:
        run.setup(partial(job_of, setup))
    with progress(name, sum(task.n_rows for task in tasks)) as shown:
        left = (task for task in tasks if task.source not in shown.failed)
        for task, result in run.map(partial(process, setup), left):
            if isinstance(result, Failure):
                shown.fail(task.source, result.error, errors)
            else:
                finished |= {record.name: cast("C", record) for record in result}
            shown.finished(task.n_rows)
    return shown.failed


def warn_of_cells(records: Iterable[CellsRecord]) -> None:
    """Warn about cells without tokens, and about cells with few counts in genes of the vocabulary."""
    found = list(records)
    n_cells = sum(record.n_rows for record in found)
    warn_of_empty_cells(sum(record.n_empty for record in found), n_cells)
    warn_of_low_fractions(sum(record.n_unknown for record in found), n_cells)


def report(name: str, failed: Mapping[str, str]) -> None:
    """Warn about files that failed."""
    if failed:
        listed = "; ".join(f"{source}: {reason}" for source, reason in [*failed.items()][:5])
        warn_user(f"{name}: {len(failed)} files failed and are left out ({listed}). {AGAIN}")
