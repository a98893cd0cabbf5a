"""Annotate the cells of a collection of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import __version__
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._docs import shared_docs
from sccello_tools._io import check_output, write_text
from sccello_tools._logging import logger
from sccello_tools.corpus import read_record
from sccello_tools.errors import ArgumentError, ConfigError
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

from .blocks import annotator_of
from .job import (
    examine,
    facts_of,
    finished_blocks,
    length_of,
    locked,
    on_worker,
    process_blocks,
    report,
    warn_of_cells,
)
from .join import is_joined, join
from .join import write_back as write_file
from .plan import (
    BLOCKS,
    AnnotateConfig,
    CellsRecord,
    FilesManifest,
    Look,
    earlier_manifest,
    named_inputs,
)
from .results import SUMMARY, AnnotatedFiles, cells_path
from .run import Failure, check_on_error, executor
from .worker import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName
    from sccello_tools.tokens.counts import CountsPolicy

    from .run import OnError


@shared_docs
def annotate_files(
    inputs: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
    out: Path | str,
    *,
    model: str | Path = "sccello-small",
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    candidates: Sequence[str] | str | None = None,
    tissue: str | Sequence[str] | None = None,
    level: Literal["auto", "type"] = "auto",
    alpha: float = 0.1,
    method: Literal["combined", "published"] = "combined",
    device: str = "auto",
    precision: Precision = "auto",
    attention: AttentionName = "auto",
    batch_tokens: int | Literal["auto"] = "auto",
    cells_per_block: int = 4096,
    write_back: bool = False,
    client: Any = None,
    n_workers: int = 1,
    errors: OnError = "raise",
) -> AnnotatedFiles:
    """Annotate all cells of a collection of files with Cell Ontology terms, optionally on a dask cluster.

    The columns are those of :func:`sccello_tools.tl.annotate_novel`. Results go to one Parquet file per input and a summary table.
    If the call is interrupted at any moment and called again with the same arguments, finished blocks are kept, as in
    :func:`sccello_tools.embed_files`.

    Parameters
    ----------
    inputs
        Files with raw counts: h5ad, zarr, Cell Ranger ``.h5`` or folders with ``matrix.mtx``; folders of h5ad files and annbatch
        collections. Each is a source, named after the file; a mapping sets other names. Inputs can be added at the end by a later call.
    out
        Folder to write; new, empty, or from an earlier call.
    model
        Name of a model (see :func:`sccello_tools.models.list`), or a folder that holds one. It needs annotation statistics, which the
        bundled model has and :func:`sccello_tools.tl.calibrate` computes.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    candidates, tissue, level, alpha, method
        As in :func:`sccello_tools.tl.annotate_novel`.
    device
        %(device)s
    precision, attention, batch_tokens, cells_per_block
        As in :func:`sccello_tools.embed_files`.
    write_back
        Also write copies of the inputs with the columns in ``obs``, to the folder ``files`` of ``out``.
    client, n_workers
        Workers, as in :func:`sccello_tools.embed_files`.
    errors
        ``"report"`` leaves out files that cannot be processed and warns about them, instead of raising at the first.

    Returns
    -------
    The annotations: ``summary``, ``read(source)`` and ``failures``.

    Raises
    ------
    FileFormatError
        If an input is missing, damaged or of an unsupported type.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    LabelError
        If a candidate or tissue is unknown.
    FilesError
        If ``out`` holds results of other arguments, an input was changed, another call is writing there, or workers were lost.
    OutputError
        If ``out`` cannot be written to, or the disk is full.
    ModelNotFoundError, DownloadError, HashMismatchError, WeightsError, BackendError
        If the model cannot be loaded or run, or has no annotation statistics.
    MissingExtraError
        If dask or zarr is needed and not installed.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> found = sccello.annotate_files(f"{folder}/cells.h5ad", f"{folder}/annotated")
    >>> int(found.summary["n_cells"].sum())
    50
    """
    CountsSource(layer, gene_ids, counts, min_matched)  # checks
    check_on_error(errors)
    if cells_per_block < 1:
        msg = f"cells_per_block must be >= 1, got {cells_per_block}"
        raise ArgumentError(msg)
    if not 0 < alpha < 1:
        msg = f"alpha must be in (0, 1), got {alpha}"
        raise ConfigError(msg)
    parameters = {
        "candidates": tuple(candidates) if candidates is not None and not isinstance(candidates, str) else candidates,
        "tissue": tuple(tissue) if tissue is not None and not isinstance(tissue, str) else tissue,
        "level": level, "alpha": alpha, "method": method,
    }  # fmt: skip
    named, folder = named_inputs(inputs), Path(out).absolute()
    with executor(client, n_workers) as run:
        facts = on_worker(run, partial(facts_of, model, device=device, precision=precision, attention=attention))  # fmt: skip
        config = AnnotateConfig(
            vocabulary_sha256=GeneVocabulary.load().sha256,
            layer=layer,
            gene_ids=gene_ids,
            max_length=length_of(None, facts),
            cells_per_block=cells_per_block,
            weights_sha256=facts.sha256,
            precision=facts.precision,
            ontology_release=CellOntology.load().release,
            parameters=parameters,
        )
        on_worker(run, partial(_check_annotator, model, device, config))
        earlier = earlier_manifest(folder, config, list(named), FilesManifest)
        planned = examine(run, Look(config, min_matched), named, errors)
        manifest = FilesManifest(
            schema_version=FilesManifest.SCHEMA,
            config=config,
            inputs=tuple(found.input for found in planned),
            model=facts.name,
            ontology_release=facts.ontology_release,
            sccello_tools_version=__version__,
        )
        size = sum(f.fingerprint.n_bytes for f in manifest.inputs if f.fingerprint and write_back)
        check_output(folder, needed=size)
        with locked(folder, FilesManifest.ERROR):
            joined = {f.source for f in manifest.inputs if is_joined(folder, f, config.digest)}
            finished = finished_blocks(manifest, lambda b: folder / BLOCKS / f"{b.name}.parquet", CellsRecord)  # fmt: skip
            if earlier is None or len(joined) < len(manifest.inputs):
                manifest.write(folder)
            setup = Setup(folder, manifest.plan, counts, min_matched, model, device, facts.precision, attention, batch_tokens)  # fmt: skip
            failed = process_blocks(run, setup, manifest, finished, name="annotate_files", errors=errors, skip=joined)  # fmt: skip
            good = [
                i for i, f in enumerate(manifest.inputs) if f.n_cells and f.source not in failed
            ]
            summaries = {}
            steps = [partial(join, setup)] + ([partial(write_file, setup)] if write_back else [])
            for step in steps:
                for number, result in run.map(step, good):
                    if isinstance(result, Failure):
                        raise result.error
                    if isinstance(result, pd.DataFrame):
                        summaries[number] = result
            files = tuple(f.model_copy(update={"error": failed[f.source]}) if f.source in failed else f for f in manifest.inputs)  # fmt: skip
            ordered = [summaries[number] for number in sorted(summaries)]
            if ordered:
                write_text(folder / SUMMARY, pd.concat(ordered).to_csv(index=False))
            manifest.model_copy(update={"inputs": files, "complete": True}).write(folder)
    found = AnnotatedFiles(folder)
    records = [read_record(cells_path(folder, source), CellsRecord) for source in found.sources]
    known = [record for record in records if record]
    warn_of_cells(known)
    report("annotate_files", found.failures)
    logger.info("annotate_files: wrote the annotations of %d files to %s", len(known), folder)
    return found


def _check_annotator(model: str | Path, device: str, config: AnnotateConfig) -> None:
    """Raise errors about the annotation's arguments before any file is read; runs on a worker."""
    from sccello_tools.models import load

    annotator_of(load(model, device=device), config.parameters)
