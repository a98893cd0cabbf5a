"""Tokenize files into a corpus on disk, for training on more cells than fit into memory."""

from __future__ import annotations

from collections import Counter
from logging import INFO, WARNING
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools._anndata.counts import CountsSource
from sccello_tools._docs import shared_docs
from sccello_tools._io import check_output
from sccello_tools._logging import logger
from sccello_tools._validation import check_choice
from sccello_tools.corpus import Corpus, shard_path
from sccello_tools.corpus.manifest import (
    RESERVED,
    SHARD_FOLDER,
    CorpusConfig,
    CorpusManifest,
    ShardRecord,
)
from sccello_tools.errors import ArgumentError, CorpusError, LabelError
from sccello_tools.files.job import examine, finished_blocks, locked, process_blocks, report
from sccello_tools.files.plan import Look, earlier_manifest, named_inputs
from sccello_tools.files.run import executor
from sccello_tools.files.worker import Setup
from sccello_tools.ontology import CellOntology, is_uninformative
from sccello_tools.tokens import MAX_LENGTH, GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.corpus.manifest import ColumnKind
    from sccello_tools.files.plan import Planned
    from sccello_tools.files.run import OnError
    from sccello_tools.tokens.counts import CountsPolicy


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
    min_matched: int = 500,
    unknown_labels: Literal["error", "leave_out"] = "error",
    max_length: int = MAX_LENGTH,
    cells_per_shard: int = 8192,
    ontology: CellOntology | None = None,
    client: Any = None,
    n_workers: int = 1,
    errors: OnError = "raise",
) -> Corpus:
    """Tokenize a collection of files into a corpus of Parquet files, optionally on a dask cluster.

    Files are read in blocks of rows. If the call is interrupted at any moment and called again with the same arguments, finished shards
    are kept, and the corpus is the same as that of an uninterrupted run, regardless of the number of workers. A later call can add
    inputs at the end. Cells without a label or without any gene of the vocabulary are left out and counted in the manifest.

    Parameters
    ----------
    %(files)s
    label_key
        Column of ``obs`` that holds Cell Ontology ids. Obsolete ids are replaced by their successors.
    obs_keys
        Further columns of ``obs`` to keep: strings, numbers or booleans. Every input must have them.
    %(counts_source)s
    unknown_labels
        ``"leave_out"`` leaves out cells whose label is not a current Cell Ontology id and reports them, instead of raising. Cells
        without a label, or with one that does not name a cell type ("unknown", CL:0000003), are always left out and reported.
    max_length
        %(max_length)s
    cells_per_shard
        Number of rows of an input per file of the corpus.
    ontology
        Cell Ontology to update the labels with; the bundled release by default.
    %(workers)s

    Returns
    -------
    The corpus. Its ``manifest`` states how many cells of each input were kept and left out. Columns: ``gene_token_ids`` (list of uint16), ``length`` (int32),
    ``cell_type_ontology_term_id``, ``source``, ``source_row`` (int64, row of the input), and those of ``obs_keys``.

    Raises
    ------
    LabelError
        If ``label_key`` is not a column of an input, or a label is not a current id of the ontology.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    FileFormatError
        If an input is missing, damaged or of an unsupported type.
    CorpusError
        If ``out`` contains other files, a corpus with other arguments or another vocabulary, or shards of an input that has changed;
        if another call is writing there; or if no cells are left.
    FilesError
        If workers were lost. Finished shards are kept.
    OutputError
        If ``out`` cannot be written to, or the disk is full.
    MissingExtraError
        If dask or zarr is needed and not installed.

    See Also
    --------
    sccello_tools.embed_files : embed the cells of a corpus or of files.

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
    CountsSource(layer, gene_ids, counts, min_matched)  # checks
    check_choice("errors", errors, ("raise", "report"))
    check_choice("unknown_labels", unknown_labels, ("error", "leave_out"))
    if cells_per_shard < 1 or max_length < 2:
        msg = f"cells_per_shard must be >= 1 and max_length >= 2, got {cells_per_shard} and {max_length}"
        raise ArgumentError(msg)
    _check_obs_keys(obs_keys, label_key)
    ontology = ontology or CellOntology.load()
    config = CorpusConfig(
        vocabulary_sha256=GeneVocabulary.load().sha256,
        layer=layer,
        gene_ids=gene_ids,
        max_length=max_length,
        cells_per_block=cells_per_shard,
        ontology_release=ontology.release,
        label_key=label_key,
        obs_keys=tuple(obs_keys),
    )
    named, folder = named_inputs(inputs), Path(out).absolute()
    earlier = earlier_manifest(folder, config, list(named), CorpusManifest)
    with executor(client, n_workers) as run:
        plans = examine(run, Look(config, min_matched), named, errors)
        manifest = _manifest(config, plans, ontology)
        if unknown_labels == "error":
            _check_labels(manifest)
        if earlier is not None and earlier.obs_kinds != manifest.obs_kinds:
            msg = f"{folder} stores columns of obs as {earlier.obs_kinds}, but with these inputs they would be {manifest.obs_kinds}. Convert the columns, or build into another folder."
            raise CorpusError(msg)
        check_output(folder)
        check_output(folder / SHARD_FOLDER)
        with locked(folder, CorpusError):
            finished = finished_blocks(manifest, lambda b: shard_path(folder, b.name), ShardRecord)
            n_left = sum(f.n_cells for f in manifest.inputs) - sum(
                r.n_rows for r in finished.values()
            )
            if earlier is None or n_left:  # a finished corpus stays readable
                manifest.write(folder)
            setup = Setup(folder, manifest.plan, counts, min_matched)
            failed = process_blocks(run, setup, manifest, finished, name="build_corpus", errors=errors)  # fmt: skip
            made = _finished(manifest, finished, failed)
            if not made.cell_types:
                msg = f"No cells are left: {'; '.join(map(str, made.inputs[:5]))}."
                raise CorpusError(msg)
            made.write(folder)
    for file in made.inputs:
        logger.log(WARNING if file.left_out else INFO, "%s", file)
    report("build_corpus", made.failures)
    logger.info("build_corpus: wrote %d shards to %s", len(made.shards), folder)
    return Corpus.open(folder)


def _check_obs_keys(obs_keys: Sequence[str], label_key: str) -> None:
    taken = sorted(set(obs_keys) & (RESERVED | {label_key}))
    if taken or len(set(obs_keys)) < len(obs_keys):
        what = f"{', '.join(map(repr, taken))}, which every corpus has" if taken else "a column twice"  # fmt: skip
        msg = f"obs_keys names {what} ({', '.join(sorted(RESERVED))} are reserved). Omit it, or rename the column of obs."
        raise ArgumentError(msg)


def _manifest(
    config: CorpusConfig, plans: Sequence[Planned], ontology: CellOntology
) -> CorpusManifest:
    """Look up the labels of all inputs, and choose one kind for each column of ``obs``."""
    terms: dict[str, str] = {}
    every = set().union(*(plan.labels for plan in plans)) - {""}
    uninformative = {label for label in every if is_uninformative(label)}
    for label in sorted(every - uninformative):
        try:
            terms[label] = ontology.current(label)
        except LabelError:
            continue
    inputs = []
    for plan in plans:
        counted = [(k, n) for k, n in Counter(plan.labels).most_common() if k and k not in terms]
        found = {
            "labels_left_out": {k: n for k, n in counted if k not in uninformative},
            "labels_uninformative": {k: n for k, n in counted if k in uninformative},
        }
        inputs.append(plan.input.model_copy(update=found))
    left_out = {label for file in inputs for label in file.labels_left_out}
    return CorpusManifest(
        schema_version=CorpusManifest.SCHEMA,
        config=config,
        inputs=tuple(inputs),
        obs_kinds={key: _common([p.kinds[key] for p in plans if p.kinds]) for key in config.obs_keys},
        terms=terms,
        obsolete=tuple(sorted(left_out & set(ontology.obsolete_terms))),
    )  # fmt: skip


def _common(kinds: list[ColumnKind]) -> ColumnKind:
    """Return the kind that can hold a column of every input."""
    if len(set(kinds)) == 1:
        return kinds[0]
    return "float64" if set(kinds) == {"int64", "float64"} else "string"


def _check_labels(manifest: CorpusManifest) -> None:
    found = [
        f"{file.source}: " + ", ".join(f"{label!r} ({n:,} cells)" for label, n in [*file.labels_left_out.items()][:5])
        for file in manifest.inputs
        if file.labels_left_out
    ]  # fmt: skip
    if found:
        more = f" (and {len(found) - 5} more inputs)" if len(found) > 5 else ""
        msg = (
            f"Some labels are not current Cell Ontology ids: {'; '.join(found[:5])}{more}. Map them with pp.map_cell_types, "
            "or pass unknown_labels='leave_out' to build the corpus without these cells."
        )
        raise LabelError(msg)


def _finished(
    manifest: CorpusManifest, finished: Mapping[str, ShardRecord], failed: Mapping[str, str]
) -> CorpusManifest:
    """Add the shards and count what became of the cells of each input."""
    shards = tuple(record for _, record in sorted(finished.items()) if record.source not in failed)
    inputs = []
    for file in manifest.inputs:
        own = [record for record in shards if record.source == file.source]
        left_out: Counter[str] = Counter()
        for record in own:
            left_out.update(record.left_out)
        counted = {
            "n_kept": sum(r.n_cells for r in own),
            "left_out": dict(sorted(left_out.items())),
        }
        inputs.append(
            file.model_copy(update={**counted, "error": failed.get(file.source, file.error)})
        )
    cell_types: Counter[str] = Counter()
    for record in shards:
        cell_types.update(record.cell_types)
    ranked = sorted(cell_types.items(), key=lambda item: (-item[1], item[0]))
    return manifest.model_copy(
        update={"inputs": tuple(inputs), "complete": True, "cell_types": dict(ranked), "shards": shards}
    )  # fmt: skip
