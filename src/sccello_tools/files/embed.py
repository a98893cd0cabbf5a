"""Embed the cells of a collection of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from sccello_tools._anndata.counts import CountsSource
from sccello_tools._docs import shared_docs
from sccello_tools._io import check_output
from sccello_tools._logging import logger
from sccello_tools._validation import check_at_least, check_choice
from sccello_tools.tokens import GeneVocabulary

from .job import files_job, length_of, model_info, process_blocks, report, warn_of_cells
from .plan import EmbedConfig
from .results import EmbeddedCells
from .worker import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, Representation
    from sccello_tools.tokens.counts import CountsPolicy

    from .job import ModelInfo
    from .run import OnError


@shared_docs
def embed_files(
    inputs: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
    out: Path | str,
    *,
    model: str | Path = "sccello-small",
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    representation: Representation = "cls",
    max_length: int | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    attention: AttentionName = "auto",
    cells_per_block: int = 4096,
    client: Any = None,
    n_workers: int = 1,
    errors: OnError = "raise",
) -> EmbeddedCells:
    """Embed all cells of a collection of files into a folder, optionally on a dask cluster.

    Each block of rows is written to its own file. If the call is interrupted at any moment and repeated with the same arguments, finished
    blocks are kept. Blocks and the batches of the model do not depend on the number of workers: results are bit-identical on the same
    type of CPU with the same number of threads per worker, otherwise within 1e-5.

    Parameters
    ----------
    %(files)s
        Corpora of :func:`sccello_tools.pp.build_corpus` are also valid inputs.
    model
        %(model)s
    %(counts_source)s
    representation
        ``"cls"`` or ``"cell"``, as in :func:`sccello_tools.tl.embed`.
    max_length
        Maximum number of tokens of a cell, ``<cls>`` included; by default the number of positions of the model.
    batch_tokens
        Maximum number of tokens in a batch.
    device
        %(device)s
    precision
        ``"auto"`` computes in bfloat16 where the hardware supports it, else in float32.
    attention
        Attention backend: ``"auto"``, ``"flash"``, ``"torch_varlen"`` or ``"sdpa"``.
    cells_per_block
        Number of rows that are processed and written together.
    %(workers)s

    Returns
    -------
    The embeddings, like an array of shape (n_cells, d) that is read lazily.

    Raises
    ------
    FileFormatError
        If an input is missing, damaged or of an unsupported type.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    FilesError
        If ``out`` holds results of other arguments, an input was changed, another call is writing there, or workers were lost.
    OutputError
        If ``out`` cannot be written to, or the disk is full.
    ModelNotFoundError, DownloadError, HashMismatchError, WeightsError, BackendError
        If the model cannot be loaded or run.
    MissingExtraError
        If dask or zarr is needed and not installed.

    See Also
    --------
    sccello_tools.open_embedded : open the folder later.
    sccello_tools.annotate_files : annotate the cells of a collection of files.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> cells = sccello.embed_files(f"{folder}/cells.h5ad", f"{folder}/embedded")
    >>> cells.shape
    (50, 256)
    """
    CountsSource(layer, gene_ids, counts, min_matched)  # validates the arguments
    check_choice("representation", representation, ("cls", "cell"))
    check_at_least("cells_per_block", cells_per_block, 1)

    def config_of(info: ModelInfo) -> EmbedConfig:
        return EmbedConfig(
            vocabulary_sha256=GeneVocabulary.load().sha256,
            layer=layer,
            gene_ids=gene_ids,
            max_length=length_of(max_length, info),
            cells_per_block=cells_per_block,
            weights_sha256=info.sha256,
            representation=representation,
            precision=info.precision,
            n_dimensions=info.n_dimensions,
        )

    folder = Path(out).absolute()
    given = Setup(folder, "", counts, min_matched, model, device, precision, attention, batch_tokens)  # fmt: skip
    workers: Any = {"client": client, "n_workers": n_workers, "errors": errors}
    with files_job(
        inputs, given, config_of, info_of=model_info, tokens_allowed=True, **workers
    ) as job:
        finished = job.finished_blocks()
        n_missing = sum(file.n_cells for file in job.manifest.inputs)
        n_missing -= sum(record.n_rows for record in finished.values())
        n_dimensions = cast("EmbedConfig", job.manifest.config).n_dimensions
        check_output(folder, needed=n_missing * (4 * n_dimensions + 16))
        if job.is_new or n_missing:  # a finished folder stays readable
            job.manifest.write(folder)
        failed = process_blocks(job.run, job.setup, job.manifest, finished, name="embed_files", errors=errors)  # fmt: skip
        job.finish(failed)
    cells = EmbeddedCells(folder)
    warn_of_cells(finished.values())
    report("embed_files", cells.failures)
    logger.info("embed_files: wrote %s cells to %s", f"{len(cells):,}", folder)
    return cells
