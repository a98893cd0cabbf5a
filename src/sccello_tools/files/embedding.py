"""Embed files that are too large for memory, by as many processes as there are GPUs or cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from sccello_tools import __version__
from sccello_tools._anndata.counts import warn_of_empty_cells
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools.errors import ArgumentError, BackendError, EmbeddingFilesError, FileFormatError
from sccello_tools.tokens import GeneVocabulary, match_gene_names

from .corpus_plan import named_inputs
from .inputs import fingerprint_of, gene_names, matrix_of, n_cells_of, open_store
from .manifest import MANIFEST, PARTS, EmbedConfig, EmbedManifest, InputFile
from .part import import_zarr
from .processes import places, run_places
from .reader import EmbeddedCells
from .work import Job, device_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, Representation
    from sccello_tools.tokens import GeneMatch
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def embed_files(
    paths: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
    out: Path | str,
    *,
    model: str | Path = "sccello-small",
    devices: int = 1,
    num_nodes: int = 1,
    layer: str | None = None,
    gene_ids: str | None = None,
    representation: Representation = "cls",
    max_length: int | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    attention: AttentionName = "auto",
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    cells_per_block: int = 4096,
) -> EmbeddedCells:
    """Embed the cells of h5ad and zarr files into a folder, by several processes if asked for.

    Files are read a few thousand rows at a time, and vectors are on disk as soon as their block is finished. The call can be killed
    at any moment: called again with the same arguments, with the same number of processes or another, it goes on. Rows come out in
    the order of the inputs, and in float32 with as many threads a process they are the same to the last bit whatever the processes.

    Parameters
    ----------
    paths
        Files with raw counts. Each is a source, named after the file; a mapping gives them names of your own.
    out
        Folder to write; new, empty, or one that an earlier call began.
    model
        Name of a model (see :func:`sccello_tools.models.list`), or a folder that holds one.
    devices
        Processes on this machine, each with a GPU of its own where there are any, else with a share of the cores. A script that asks
        for several must guard its own calls with ``if __name__ == "__main__":``.
    num_nodes
        Machines. Start the call on each, with ``NODE_RANK`` set; or start ``devices * num_nodes`` processes by ``srun`` or
        ``torchrun``. ``out`` and the inputs must be seen by all under the same paths. No process waits for another.
    layer
        Layer that holds the raw counts; ``X`` if not given. ``"raw.X"`` takes the matrix of ``.raw``, with its own genes.
    gene_ids
        %(gene_ids)s
    representation
        ``"cls"`` or ``"cell"``, as in :func:`sccello_tools.tl.embed`.
    max_length
        %(max_length)s The model's number of positions if not given.
    batch_tokens
        Most tokens in a batch. The result does not depend on it; memory and speed do.
    device
        %(device)s
    precision
        ``"auto"`` computes in bfloat16 where the hardware does, else in float32.
    attention
        Attention backend: ``"auto"``, ``"flash"``, ``"torch_varlen"`` or ``"sdpa"``.
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    cells_per_block
        Rows that are embedded and written together: what is lost at most when a process is killed.

    Returns
    -------
    The embeddings, like an array of shape (n_cells, d) float32; its ``to_anndata()`` is what :func:`sccello_tools.tl.annotate_novel` takes.
    Of several machines only the last to finish finds it complete.

    Raises
    ------
    FileFormatError
        If an input is missing, damaged, or neither h5ad nor zarr.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    EmbeddingFilesError
        If ``out`` holds something else or embeddings made with other arguments, an input was changed, another process is writing
        there, a process died, or the disk is full. Finished blocks stay.
    ConfigError
        If it cannot be told which process of how many this is.
    BackendError
        If more GPUs are asked for than there are, or a device, precision or attention backend is not available.
    ModelNotFoundError, DownloadError, HashMismatchError, WeightsError
        If the model cannot be had.
    MissingExtraError
        If zarr is not installed.

    See Also
    --------
    sccello_tools.open_embedded : opens the folder later.

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
    import torch

    from sccello_tools.engine import resolve_precision
    from sccello_tools.models import load
    from sccello_tools.nn import resolve_attention

    import_zarr()
    if cells_per_block < 1:
        msg = f"cells_per_block is {cells_per_block}; expected is at least 1"
        raise ArgumentError(msg)
    if counts not in {"check", "trust"}:
        msg = f"counts is {counts!r}; expected is 'check' or 'trust'"
        raise ArgumentError(msg)
    if representation not in {"cls", "cell"}:
        msg = f"representation is {representation!r}; expected is 'cls' or 'cell'"
        raise ArgumentError(msg)
    here, launched = places(devices, num_nodes)
    if device in {"auto", "cuda"} and 0 < torch.cuda.device_count() < devices:
        msg = f"devices is {devices}, and this machine has {torch.cuda.device_count()} GPUs. Pass devices={torch.cuda.device_count()}, or device='cpu'."
        raise BackendError(msg)
    # what cannot be had is said before any process is started
    loaded = load(model, device=device_of(device, here[0]))
    computed = resolve_precision(precision, loaded.device)
    resolve_attention(attention, loaded.device, computed)
    positions = loaded.config.max_positions
    length = positions if max_length is None else max_length
    if not 2 <= length <= positions:
        msg = (
            f"max_length is {length}; expected is 2 to {positions}, the positions of {loaded.name}"
        )
        raise ArgumentError(msg)
    config = EmbedConfig(
        weights_sha256=loaded.sha256,
        vocabulary_sha256=GeneVocabulary.load().sha256,
        representation=representation,
        precision=str(computed).removeprefix("torch."),
        max_length=length,
        layer=layer,
        gene_ids=gene_ids,
        counts=counts,
        cells_per_block=cells_per_block,
        n_dimensions=loaded.config.hidden_size,
    )
    inputs = [
        _look_at(source, path, layer=layer, gene_ids=gene_ids, min_matched=min_matched)
        for source, path in named_inputs(paths).items()
    ]
    manifest = EmbedManifest(
        config,
        loaded.name,
        loaded.ontology_release or "",
        __version__,
        tuple(file for file, _ in inputs),
    )
    folder = Path(out).absolute()
    _prepare(folder, manifest)
    job = Job(
        out=folder,
        manifest=manifest,
        matches=tuple(match for _, match in inputs),
        model=str(model),
        representation=representation,
        precision=precision,
        attention=attention,
        batch_tokens=batch_tokens,
        device=device,
        counts=counts,
        n_threads=torch.get_num_threads(),
    )
    run_places(job, here)
    cells = EmbeddedCells(folder)
    if cells.complete and not (launched and here[0].rank):
        warn_of_empty_cells(int((cells.obs["sccello_n_tokens"] == 0).sum()), len(cells))
        logger.info("embed_files: wrote %d cells to %s", len(cells), folder)
    return cells


def _look_at(
    source: str, path: Path, *, layer: str | None, gene_ids: str | None, min_matched: int
) -> tuple[InputFile, GeneMatch]:
    """Look through one input: its genes and its size, not its matrix."""
    if not path.exists():
        msg = f"There is no file {path}. Expected is an h5ad file or a zarr folder with raw counts."
        raise FileFormatError(msg)
    path = path.absolute()
    fingerprint = fingerprint_of(path)  # before it is read, so that a later change shows
    with open_store(path) as store:
        n_cells = n_cells_of(store, path)
        matrix = matrix_of(store, path, layer)
        if matrix.shape[0] != n_cells:
            msg = f"{path} has {n_cells:,} rows in obs and {matrix.shape[0]:,} in its matrix. It is damaged: write it again."
            raise FileFormatError(msg)
        match = match_gene_names(gene_names(store, path, gene_ids, layer), min_matched=min_matched)
    logger.info("%s: %s", source, match)
    return InputFile(source, str(path), fingerprint, n_cells, match.n_matched), match


def _prepare(folder: Path, manifest: EmbedManifest) -> None:
    """Make the folder, or see that an earlier call was alike."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists() and any(
            path.name not in {PARTS, MANIFEST} for path in folder.iterdir()
        ):
            msg = f"{folder} holds something else than embeddings. Name a new or an empty folder."
            raise EmbeddingFilesError(msg)
        (folder / PARTS).mkdir(exist_ok=True)
        with FileLock(folder / PARTS / "join.lock", timeout=600):
            if (folder / MANIFEST).exists():
                _check_alike(folder, manifest)
            else:
                manifest.write(folder)
    except OSError as error:
        msg = f"{folder} cannot be written ({error.strerror or error}). Name a folder that can be, or free space."
        raise EmbeddingFilesError(msg) from error


def _check_alike(folder: Path, manifest: EmbedManifest) -> None:
    earlier = EmbedManifest.read(folder)
    differences = earlier.config.differences(manifest.config)
    before = [(file.source, file.n_cells) for file in earlier.inputs]
    now = [(file.source, file.n_cells) for file in manifest.inputs]
    if before != now:
        differences.append(f"the inputs (and their cells) were {before[:5]} and are now {now[:5]}")
    if differences:
        msg = f"{folder} was made with other arguments: {'; '.join(differences)}. Call with the same ones, or embed into another folder."
        raise EmbeddingFilesError(msg)
    changed = [
        file.path
        for file, other in zip(earlier.inputs, manifest.inputs)
        if file.fingerprint != other.fingerprint
    ]
    if changed:
        msg = f"{changed[0]} was changed since its cells were embedded into {folder}. Bring the old file back, or embed into another folder."
        raise EmbeddingFilesError(msg)
