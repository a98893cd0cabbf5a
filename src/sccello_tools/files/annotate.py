"""Annotate the cells of a collection of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools._anndata.counts import CountsSource, warn_of_uncalibrated_files
from sccello_tools._docs import shared_docs
from sccello_tools._io import check_output, write_text
from sccello_tools._logging import logger
from sccello_tools._validation import check_alpha, check_at_least
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

from .blocks import annotator_of
from .job import (
    files_job,
    length_of,
    model_info,
    process_blocks,
    report,
    results_of,
    warn_of_cells,
)
from .join import infer_tissues, is_joined, join
from .join import write_back as write_file
from .plan import AnnotateConfig
from .results import SUMMARY, AnnotatedFiles
from .worker import Setup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName
    from sccello_tools.tokens.counts import CountsPolicy

    from .job import FilesJob, ModelInfo
    from .plan import CellsRecord
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

    The columns are those of ``obs`` of :func:`sccello_tools.tl.annotate_novel`; each file is a data set of its own, with its own tissues,
    shift of novelty and threshold of confidence. Results go to one Parquet file per input and a summary table. If tissues are
    inferred, all cells are embedded first, and files are read a second time to annotate them.
    If the call is interrupted at any moment and called again with the same arguments, finished blocks are kept, as in
    :func:`sccello_tools.embed_files`.

    Parameters
    ----------
    %(files)s
    model
        %(model)s A model without calibration annotates from its prototypes; see :func:`sccello_tools.tl.calibrate`.
    %(counts_source)s
    candidates, tissue, level, alpha, method
        As in :func:`sccello_tools.tl.annotate_novel`.
    device
        %(device)s
    precision, attention, batch_tokens, cells_per_block
        As in :func:`sccello_tools.embed_files`.
    write_back
        Also write copies of the inputs with the columns in ``obs``, to the folder ``files`` of ``out``.
    %(workers)s

    Returns
    -------
    The annotations: ``summary``, ``read(source)``, ``inferred_tissues`` and ``failures``.

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
        If the model cannot be loaded or run, or has neither calibration nor labelled prototypes.
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
    CountsSource(layer, gene_ids, counts, min_matched)  # validates the arguments
    check_at_least("cells_per_block", cells_per_block, 1)
    check_alpha(alpha)
    parameters: dict[str, str | float | tuple[str, ...] | None] = {
        "candidates": candidates if isinstance(candidates, str | None) else tuple(candidates),
        "tissue": tissue if isinstance(tissue, str | None) else tuple(tissue),
        "level": level,
        "alpha": alpha,
        "method": method,
    }

    def config_of(info: ModelInfo) -> AnnotateConfig:
        return AnnotateConfig(
            vocabulary_sha256=GeneVocabulary.load().sha256,
            layer=layer,
            gene_ids=gene_ids,
            max_length=length_of(None, info),
            cells_per_block=cells_per_block,
            weights_sha256=info.sha256,
            precision=info.precision,
            ontology_release=CellOntology.load().release,
            parameters=parameters,
            infers_tissues=info.infers_tissues,
        )

    folder = Path(out).absolute()
    given = Setup(folder, "", counts, min_matched, model, device, precision, attention, batch_tokens)  # fmt: skip
    workers: Any = {"client": client, "n_workers": n_workers, "errors": errors}
    with files_job(
        inputs, given, config_of, info_of=partial(_annotation_info, parameters), **workers
    ) as job:
        manifest, run = job.manifest, job.run
        digest = manifest.config.digest
        joined = {file.source for file in manifest.inputs if is_joined(folder, file, digest)}
        left = [file for file in manifest.inputs if file.source not in joined]
        finished = job.finished_blocks()
        size = sum(f.fingerprint.n_bytes for f in manifest.inputs if f.fingerprint and write_back)
        if job.info.infers_tissues:
            n_missing = sum(f.n_cells for f in left) - sum(r.n_rows for r in finished.values())
            size += max(0, n_missing) * 4 * job.info.n_dimensions
        check_output(folder, needed=size)
        if job.is_new or left:
            manifest.write(folder)
        step = "annotate_files (embedding)" if job.info.infers_tissues else "annotate_files"
        failed = process_blocks(run, job.setup, manifest, finished, name=step, errors=errors, skip=joined)  # fmt: skip
        if job.info.infers_tissues:
            failed |= _annotate_embedded(job, finished, {*joined, *failed}, errors)
        good = [i for i, f in enumerate(manifest.inputs) if f.n_cells and f.source not in failed]
        summaries = results_of(run, partial(join, job.setup), good)
        if write_back:
            results_of(run, partial(write_file, job.setup), good)
        if summaries:
            write_text(folder / SUMMARY, pd.concat(summaries).to_csv(index=False))
        job.finish(failed)
    found = AnnotatedFiles(folder)
    warn_of_cells(found.records.values())
    counted = {
        name: (record.n_uncalibrated, record.n_rows - record.n_empty)
        for name, record in found.records.items()
    }
    warn_of_uncalibrated_files(counted, job.info.calibrated)
    report("annotate_files", found.failures)
    logger.info(
        "annotate_files: wrote the annotations of %d files to %s", len(found.records), folder
    )
    return found


def _annotation_info(parameters: Mapping[str, Any], setup: Setup) -> ModelInfo:
    """Raise errors about the annotation's arguments before any file is read, and describe the model; runs on a worker."""
    from sccello_tools.annotation import calibrated_lengths, calibration_warning
    from sccello_tools.models import load

    info = model_info(setup)
    model = load(setup.model, device=setup.device)
    fit = annotator_of(model, parameters).fit
    return info._replace(
        warning=calibration_warning(fit, model.name) or "",
        infers_tissues=parameters["tissue"] is None and fit.tissues is not None,
        calibrated=calibrated_lengths(fit, model.config.max_positions),
    )


def _annotate_embedded(
    job: FilesJob, finished: Mapping[str, CellsRecord], skip: Collection[str], errors: OnError
) -> dict[str, str]:
    """Infer the tissues of each file when all of its blocks are embedded, and annotate them.

    Parameters
    ----------
    job
        The job.
    finished
        Records of all blocks, embedded or annotated.
    skip
        Inputs to leave out.
    errors
        As in :func:`annotate_files`.

    Returns
    -------
    Why files failed, by name.
    """
    inputs = job.manifest.inputs
    numbers = [i for i, file in enumerate(inputs) if file.n_cells and file.source not in skip]
    found = results_of(job.run, partial(infer_tissues, job.setup), numbers)
    tissues = {inputs[i].source: fractions for i, fractions in zip(numbers, found)}
    annotated = {name: r for name, r in finished.items() if r.inferred_tissues is not None}
    return process_blocks(
        job.run,
        job.setup,
        job.manifest,
        annotated,
        name="annotate_files",
        errors=errors,
        skip=skip,
        tissues=tissues,
    )
