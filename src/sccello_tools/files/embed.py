"""Embed the cells of a collection of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools import __version__
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._docs import shared_docs
from sccello_tools._io import check_output
from sccello_tools._logging import logger
from sccello_tools.errors import ArgumentError
from sccello_tools.tokens import GeneVocabulary

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
from .plan import (
    BLOCKS,
    CellsRecord,
    EmbedConfig,
    FilesManifest,
    Look,
    earlier_manifest,
    named_inputs,
)
from .results import EmbeddedCells
from .run import check_on_error, executor
from .worker import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, Representation
    from sccello_tools.tokens.counts import CountsPolicy

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

    Files are read in blocks of rows, and each block of embeddings is written to its own file. If the call is interrupted at any moment
    and called again with the same arguments, finished blocks are kept. Blocks and the batches of the model do not depend on the number
    of workers: results are bit-identical on the same type of CPU with the same number of threads per worker, otherwise within 1e-5.

    Parameters
    ----------
    inputs
        Files with raw counts: h5ad, zarr, Cell Ranger ``.h5`` or folders with ``matrix.mtx``; folders of h5ad files and annbatch
        collections; or corpora of :func:`sccello_tools.pp.build_corpus`. Each is a source, named after the file; a mapping sets other
        names. Inputs can be added at the end by a later call.
    out
        Folder to write; new, empty, or from an earlier call.
    model
        Name of a model (see :func:`sccello_tools.models.list`), or a folder that holds one.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
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
    client
        A ``dask.distributed.Client``. Its workers must see the inputs and ``out`` under the same paths; each loads the model once.
        With GPUs, start one worker per GPU (dask-cuda).
    n_workers
        Without a client: number of local processes, one thread each. 1 works in this process, without dask. Scripts that pass more
        must guard their calls with ``if __name__ == "__main__":``.
    errors
        ``"report"`` leaves out files that cannot be processed and warns about them, instead of raising at the first.

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
    (50, 128)
    """
    CountsSource(layer, gene_ids, counts, min_matched)  # checks
    check_on_error(errors)
    if representation not in {"cls", "cell"}:
        msg = f"representation must be 'cls' or 'cell', got {representation!r}"
        raise ArgumentError(msg)
    if cells_per_block < 1:
        msg = f"cells_per_block must be >= 1, got {cells_per_block}"
        raise ArgumentError(msg)
    named, folder = named_inputs(inputs), Path(out).absolute()
    with executor(client, n_workers) as run:
        facts = on_worker(run, partial(facts_of, model, device=device, precision=precision, attention=attention))  # fmt: skip
        config = EmbedConfig(
            vocabulary_sha256=GeneVocabulary.load().sha256,
            layer=layer,
            gene_ids=gene_ids,
            max_length=length_of(max_length, facts),
            cells_per_block=cells_per_block,
            weights_sha256=facts.sha256,
            representation=representation,
            precision=facts.precision,
            n_dimensions=facts.n_dimensions,
        )
        earlier = earlier_manifest(folder, config, list(named), FilesManifest)
        look = Look(config, min_matched, tokens_allowed=True)
        files = tuple(planned.input for planned in examine(run, look, named, errors))
        manifest = FilesManifest(
            schema_version=FilesManifest.SCHEMA,
            config=config,
            inputs=files,
            model=facts.name,
            ontology_release=facts.ontology_release,
            sccello_tools_version=__version__,
        )
        check_output(folder)
        with locked(folder, FilesManifest.ERROR):
            finished = finished_blocks(manifest, lambda b: folder / BLOCKS / f"{b.name}.parquet", CellsRecord)  # fmt: skip
            missing = sum(f.n_cells for f in files) - sum(r.last_row - r.first_row for r in finished.values())  # fmt: skip
            check_output(folder, needed=missing * (4 * facts.n_dimensions + 16))
            if earlier is None or missing:  # a finished folder stays readable
                manifest.write(folder)
            setup = Setup(folder, manifest.plan, counts, min_matched, model, device, facts.precision, attention, batch_tokens)  # fmt: skip
            failed = process_blocks(run, setup, manifest, finished, name="embed_files", errors=errors)  # fmt: skip
            files = tuple(f.model_copy(update={"error": failed[f.source]}) if f.source in failed else f for f in files)  # fmt: skip
            manifest.model_copy(update={"inputs": files, "complete": True}).write(folder)
    cells = EmbeddedCells(folder)
    warn_of_cells(finished.values())
    report("embed_files", cells.failures)
    logger.info("embed_files: wrote %s cells to %s", f"{len(cells):,}", folder)
    return cells
