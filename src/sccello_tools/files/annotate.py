"""Annotate the cells of a collection of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd

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
    files_job,
    finished_blocks,
    length_of,
    process_blocks,
    report,
    results_of,
    warn_of_cells,
)
from .join import is_joined, join
from .join import write_back as write_file
from .plan import AnnotateConfig, CellsRecord
from .results import SUMMARY, AnnotatedFiles, cells_path
from .worker import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName
    from sccello_tools.tokens.counts import CountsPolicy

    from .job import Facts
    from .plan import FilesConfig
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

    The columns are those of ``obs`` of :func:`sccello_tools.tl.annotate_novel`; the shift of novelty and the threshold of confidence are
    those of each file as a whole. Results go to one Parquet file per input and a summary table.
    If the call is interrupted at any moment and called again with the same arguments, finished blocks are kept, as in
    :func:`sccello_tools.embed_files`.

    Parameters
    ----------
    %(files)s
    model
        %(model)s A model without calibration annotates from its prototypes; see :func:`sccello_tools.tl.calibrate`.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    candidates, tissue, level, alpha, method
        As in :func:`sccello_tools.tl.annotate_novel`, except that tissues are not inferred from the cells: pass ``tissue`` for the same
        results.
    device
        %(device)s
    precision, attention, batch_tokens, cells_per_block
        As in :func:`sccello_tools.embed_files`.
    write_back
        Also write copies of the inputs with the columns in ``obs``, to the folder ``files`` of ``out``.
    %(workers)s

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
    CountsSource(layer, gene_ids, counts, min_matched)  # checks
    if cells_per_block < 1:
        msg = f"cells_per_block must be >= 1, got {cells_per_block}"
        raise ArgumentError(msg)
    if not 0 < alpha < 1:
        msg = f"alpha must be in (0, 1), got {alpha}"
        raise ConfigError(msg)

    def config_of(facts: Facts) -> AnnotateConfig:
        return AnnotateConfig(
            vocabulary_sha256=GeneVocabulary.load().sha256,
            layer=layer,
            gene_ids=gene_ids,
            max_length=length_of(None, facts),
            cells_per_block=cells_per_block,
            weights_sha256=facts.sha256,
            precision=facts.precision,
            ontology_release=CellOntology.load().release,
            parameters={
                "candidates": candidates if isinstance(candidates, str | None) else tuple(candidates),
                "tissue": tissue if isinstance(tissue, str | None) else tuple(tissue),
                "level": level, "alpha": alpha, "method": method,
            },
        )  # fmt: skip

    folder = Path(out).absolute()
    given = Setup(folder, "", counts, min_matched, model, device, precision, attention, batch_tokens)  # fmt: skip
    workers: Any = {"client": client, "n_workers": n_workers, "errors": errors}
    with files_job(inputs, given, config_of, check=_check_annotator, **workers) as job:
        manifest, run = job.manifest, job.run
        size = sum(f.fingerprint.n_bytes for f in manifest.inputs if f.fingerprint and write_back)
        check_output(folder, needed=size)
        digest = manifest.config.digest
        joined = {file.source for file in manifest.inputs if is_joined(folder, file, digest)}
        finished = finished_blocks(manifest, job.path_of, CellsRecord)
        if job.is_new or len(joined) < len(manifest.inputs):
            manifest.write(folder)
        failed = process_blocks(run, job.setup, manifest, finished, name="annotate_files", errors=errors, skip=joined)  # fmt: skip
        good = [i for i, f in enumerate(manifest.inputs) if f.n_cells and f.source not in failed]
        summaries = results_of(run, partial(join, job.setup), good)
        if write_back:
            results_of(run, partial(write_file, job.setup), good)
        if summaries:
            write_text(folder / SUMMARY, pd.concat(summaries).to_csv(index=False))
        job.finish(failed)
    found = AnnotatedFiles(folder)
    records = [read_record(cells_path(folder, source), CellsRecord) for source in found.sources]
    warn_of_cells([record for record in records if record])
    report("annotate_files", found.failures)
    logger.info("annotate_files: wrote the annotations of %d files to %s", len(records), folder)
    return found


def _check_annotator(setup: Setup, config: FilesConfig) -> str | None:
    """Raise errors about the annotation's arguments before any file is read, and return a warning; runs on a worker."""
    from sccello_tools.annotation import calibration_warning, evidence_of
    from sccello_tools.models import load

    model = load(setup.model, device=setup.device)
    annotator_of(model, cast("AnnotateConfig", config).parameters)
    return calibration_warning(evidence_of(model), model.name)
