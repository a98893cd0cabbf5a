"""Tokenize files into a corpus on disk, for training on more cells than fit in memory."""

from __future__ import annotations

from logging import INFO, WARNING
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools._progress import progress_bar
from sccello_tools.corpus import Corpus
from sccello_tools.corpus.manifest import (
    BUILD_AGAIN,
    MANIFEST,
    SHARD_FOLDER,
    CorpusConfig,
    CorpusManifest,
)
from sccello_tools.corpus.writer import finished_shard
from sccello_tools.errors import ArgumentError, CorpusError
from sccello_tools.files.corpus_plan import (
    check_labels,
    check_obs_keys,
    common_kinds,
    named_inputs,
    plan_input,
)
from sccello_tools.files.corpus_report import finished_manifest, report_of
from sccello_tools.files.corpus_work import ShardTask, run_tasks
from sccello_tools.files.spans import spans_of
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import MAX_LENGTH, GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.corpus.manifest import ShardRecord
    from sccello_tools.files.corpus_plan import InputPlan
    from sccello_tools.tokens.counts import CountsPolicy

_LOCK = ".lock"


@shared_docs
def build_corpus(
    inputs: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
    out: Path | str,
    *,
    label_key: str = "cell_type_ontology_term_id",
    obs_keys: Sequence[str] = (),
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    unknown_labels: Literal["error", "leave_out"] = "error",
    max_length: int = MAX_LENGTH,
    min_matched: int = 500,
    cells_per_shard: int = 8192,
    ontology: CellOntology | None = None,
    n_workers: int | None = None,
    client: Any = None,
) -> Corpus:
    """Tokenize h5ad and zarr files into a corpus of Parquet files.

    Files are read a few thousand rows at a time, never whole. The call can be killed at any moment: called again with the same
    arguments it goes on, and the corpus is the same, row by row, as that of an undisturbed run. More inputs may be given at the end
    of the list later. Cells without a label or without any gene of the vocabulary are left out, and counted in the manifest.

    Parameters
    ----------
    inputs
        Files with raw counts. Each is a source, named after the file; a mapping gives them names of your own.
    out
        Folder of the corpus; new, empty, or one that an earlier call began.
    label_key
        Column of ``obs`` that holds Cell Ontology ids. Obsolete ids are replaced by their successors.
    obs_keys
        More columns of ``obs`` to keep: strings, numbers, or true and false. Every input must have them.
    layer
        Layer that holds the raw counts; ``X`` if not given. ``"raw.X"`` takes the matrix of ``.raw``, with its own genes.
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    unknown_labels
        ``"leave_out"`` goes on without cells whose label is no current Cell Ontology id, and reports them, instead of raising.
    max_length
        %(max_length)s
    min_matched
        %(min_matched)s
    cells_per_shard
        Rows of an input that go into one file of the corpus.
    ontology
        Cell Ontology to bring the labels up to; the release that ships with the package if not given.
    n_workers
        Processes to work with, each of which takes about 0.5 GB of memory. Works in this process if not given. A script that gives
        it must guard its own calls with ``if __name__ == "__main__":``.
    client
        A ``dask.distributed.Client`` whose workers do the work. They must see inputs and ``out`` under the same paths.

    Returns
    -------
    The corpus. Its ``manifest`` says what became of each input. Columns of its files: ``gene_token_ids`` (list of uint16), ``length``
    (int32), ``cell_type_ontology_term_id``, ``source``, ``source_row`` (int64, the row in the input), then those of ``obs_keys``.

    Raises
    ------
    LabelError
        If ``label_key`` is not a column of an input, or a label is no current id of the ontology.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    FileFormatError
        If an input is missing, damaged, or neither h5ad nor zarr.
    CorpusError
        If ``out`` holds something else, a corpus made with other arguments or another vocabulary, or shards of an input that was
        changed since; if another process is building it; if the disk is full; or if no cell is left. Finished shards stay.
    MissingExtraError
        If an input is zarr and zarr is not installed.

    See Also
    --------
    sccello_tools.tokens.Corpus : what can be done with a corpus.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler().write_h5ad(f"{folder}/pancreas.h5ad")
    >>> corpus = sccello.pp.build_corpus(f"{folder}/pancreas.h5ad", f"{folder}/corpus", obs_keys=["donor"])
    >>> len(corpus), len(corpus.cell_types)
    (583, 6)
    """
    if unknown_labels not in {"error", "leave_out"}:
        msg = f"unknown_labels is {unknown_labels!r}; expected is 'error' or 'leave_out'"
        raise ArgumentError(msg)
    if counts not in {"check", "trust"}:
        msg = f"counts is {counts!r}; expected is 'check' or 'trust'"
        raise ArgumentError(msg)
    if cells_per_shard < 1 or max_length < 2 or (n_workers is not None and n_workers < 1):
        msg = f"cells_per_shard is {cells_per_shard}, max_length {max_length}, n_workers {n_workers}; expected are at least 1, 2 and 1"
        raise ArgumentError(msg)
    check_obs_keys(obs_keys, label_key)
    ontology = ontology or CellOntology.load()
    config = CorpusConfig(
        vocabulary_sha256=GeneVocabulary.load().sha256,
        ontology_release=ontology.release,
        label_key=label_key,
        obs_keys=tuple(obs_keys),
        layer=layer,
        gene_ids=gene_ids,
        max_length=max_length,
        cells_per_shard=cells_per_shard,
    )
    named = named_inputs(inputs)
    out = Path(out)
    earlier = _earlier(out, config, list(named))
    plans = [
        plan_input(number, source, path, config, ontology=ontology, min_matched=min_matched)
        for number, (source, path) in enumerate(named.items())
    ]
    if unknown_labels == "error":
        check_labels(plans)
    manifest = CorpusManifest(config, common_kinds(plans), tuple(map(report_of, plans)))
    if earlier is not None and earlier.obs_kinds != manifest.obs_kinds:
        msg = (
            f"{out} keeps columns of obs as {earlier.obs_kinds}, and with the inputs given they would be {manifest.obs_kinds}. "
            "Make the columns alike, or build into another folder."
        )
        raise CorpusError(msg)
    out = _prepared(out)
    try:
        with FileLock(out / _LOCK, timeout=0):
            _build(out, manifest, plans, counts=counts, n_workers=n_workers, client=client)
    except Timeout as error:
        msg = f"Another process is building {out}. Wait until it has finished, or end it."
        raise CorpusError(msg) from error
    return Corpus.open(out)


def _earlier(out: Path, config: CorpusConfig, sources: list[str]) -> CorpusManifest | None:
    """Manifest that an earlier call left, if it was called alike."""
    if not (out / MANIFEST).is_file():
        if out.is_file() or (out.is_dir() and any(path.name != _LOCK for path in out.iterdir())):
            msg = f"{out} holds something else than a corpus. Name a new or an empty folder."
            raise CorpusError(msg)
        return None
    manifest = CorpusManifest.read(out)
    differences = manifest.config.differences(config)
    before = [report.source for report in manifest.inputs]
    if before != sources[: len(before)]:
        differences.append(
            f"the inputs were {before[:5]} and are now {sources[:5]}: more may be added at the end, none left out or moved"
        )
    if differences:
        msg = f"{out} was built with other arguments: {'; '.join(differences)}. Call with the same ones, or build into another folder."
        raise CorpusError(msg)
    return manifest


def _prepared(out: Path) -> Path:
    """Make the folders."""
    try:
        (out / SHARD_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"The folder {out} cannot be made ({error.strerror}). Name one that can be written to."
        )
        raise CorpusError(msg) from error
    return out


def _build(
    out: Path,
    manifest: CorpusManifest,
    plans: Sequence[InputPlan],
    *,
    counts: CountsPolicy,
    n_workers: int | None,
    client: Any,
) -> None:
    for part in (out / SHARD_FOLDER).glob(".*.part"):  # what a killed run was writing
        part.unlink(missing_ok=True)
    n_rows = manifest.config.cells_per_shard
    spans = {plan.number: spans_of(plan.number, plan.n_cells, n_rows) for plan in plans}
    digest = manifest.config.digest
    records: dict[str, ShardRecord] = {}
    for plan in plans:
        found = (finished_shard(out, span.name) for span in spans[plan.number])
        records |= {record.name: record for record in found if record and record.config == digest}
    _check_unchanged(out, plans, records)
    n_before = len(records)
    tasks: list[ShardTask] = []
    for plan in plans:
        missing = [span for span in spans[plan.number] if span.name not in records]
        groups = [tuple(missing)] if plan.by_column else [(span,) for span in missing]
        tasks += [
            ShardTask(out, plan, group, manifest.config, manifest.obs_kinds, counts)
            for group in groups
            if group
        ]
    if tasks:  # a finished corpus stays one for those who read it
        manifest.write(out)
    total = sum(span.stop - span.start for task in tasks for span in task.spans)
    if n_before:
        logger.info("build_corpus: %d shards are finished already", n_before)
    with progress_bar("Tokenizing", total) as advance:
        for done in run_tasks(tasks, n_workers=n_workers, client=client):
            records |= {record.name: record for record in done}
            advance(sum(record.last_row - record.first_row for record in done))
    ordered = [records[span.name] for plan in plans for span in spans[plan.number]]
    finished = finished_manifest(manifest, ordered)
    if not finished.cell_types:
        msg = "No cell is left: " + "; ".join(map(str, finished.inputs[:5])) + "."
        raise CorpusError(msg)
    finished.write(out)
    for report in finished.inputs:
        logger.log(WARNING if report.left_out else INFO, "%s", report)
    logger.info("build_corpus: wrote %d shards to %s", len(ordered) - n_before, out)


def _check_unchanged(
    out: Path, plans: Sequence[InputPlan], records: Mapping[str, ShardRecord]
) -> None:
    for plan in plans:
        stale = [
            record.name
            for record in records.values()
            if record.source == plan.source and record.fingerprint != plan.fingerprint
        ]
        if stale:
            msg = (
                f"{plan.path} was changed since {len(stale):,} finished shards were made from it ({stale[0]} and so on). "
                f"Bring the old file back, or delete {out / SHARD_FOLDER}/{plan.number:05d}-* to make them from the new one. {BUILD_AGAIN}"
            )
            raise CorpusError(msg)
