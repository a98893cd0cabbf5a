"""Calibrate a model for annotation with labelled cells."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sccello_tools._anndata.columns import require_obs
from sccello_tools._anndata.counts import CountsSource, warn_user
from sccello_tools._anndata.labels import donor_column
from sccello_tools._anndata.marker_counts import marker_counts
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools._messages import quoted
from sccello_tools._random import seed_of
from sccello_tools.annotation.folds import N_FOLDS, assign_folds
from sccello_tools.errors import ConfigError, LabelError, OutputExistsError
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import VOCABULARY_SIZE

from ._embed import loaded_model
from ._hidden_states import hidden_states

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike
    from sccello_tools.annotation import EvidenceFit, LabelledCells
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy

    from ._hidden_states import HiddenStates

_MIN_TYPES = 10  # from which on evidence weights are learnt
_MOST_CELLS = 100  # of a type and group
_CHUNK = 4096


@shared_docs
def calibrate(
    adata: AnnData,
    label_key: str = "cell_type_ontology_term_id",
    *,
    model: str | Path | LoadedModel,
    out: str | Path | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    rng: RNGLike = 0,
) -> EvidenceFit:
    """Fit what :func:`annotate_novel` needs for a model on labelled cells: classifier, evidence weights, confidence and novelty.

    Groups of ``batch_key`` are held out in turn: a classifier of the known types is fitted to the others, and the evidence on the
    held-out cells shows how reliable its probabilities are and how much their novelty varies. With ten or more types in two or more groups, the
    weights of embedding, ontology and marker evidence are also learnt, by leaving out each type in turn; else those of the bundled model are used.

    Parameters
    ----------
    adata
        Labelled cells with raw counts. Their embedding is reused from ``adata.obsm["X_sccello"]`` if it fits, else computed and
        written there.
    label_key
        Column of ``adata.obs`` with Cell Ontology ids or names of terms. Cells without a label, or with one that does not name a cell
        type ("unknown", "doublet"), are excluded, with a warning. See :func:`sccello_tools.pp.map_cell_types`.
    model
        %(model)s
    out
        Model folder to write the result to: that of the model itself, or a new folder, to which the model is copied. By default
        nothing is written.
    batch_key
        Column of ``adata.obs`` with studies (or donors, if all cells are from one study), which are held out as a whole. Without it,
        random cells are held out, and the confidence is too high for new studies.
    %(counts_source)s
    device
        %(device)s
    ontology
        Cell Ontology; the bundled release by default.
    rng
        Seed or generator of the folds and samples.

    Returns
    -------
    The fit. Fields written to ``adata`` are those of :func:`embed`, if the embedding was computed.

    Raises
    ------
    LabelError
        If ``label_key`` is missing, a label is not a Cell Ontology term, there are fewer than two types, or no type occurs in two
        groups.
    GroupError
        If ``batch_key`` is missing.
    ConfigError
        If ``out`` is the folder of a bundled model.
    OutputExistsError
        If ``out`` is a file, or a folder that is neither empty nor the model's own.
    NotCountsError
        If the matrix does not hold raw counts.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[::4].copy()
    >>> folder = tempfile.mkdtemp()
    >>> sccello.tl.calibrate(adata, model="sccello-small", out=folder)
    EvidenceFit(4 types, 146 cells)
    >>> sccello.tl.annotate_novel(adata, model=folder)
    """
    from sccello_tools.annotation import CellMarkers, default_fit, fit_evidence, save_evidence

    values = require_obs(adata, label_key, argument="label_key", error=LabelError)
    ontology = ontology or CellOntology.load()
    column = type_column(
        adata, label_key, ontology, argument="label_key", any_names=True, skip_uninformative=True
    )
    unknown = [n for n, t, k in zip(column.names, column.terms, column.counts) if k and not t]
    if unknown:
        msg = (
            f"{len(unknown)} of {values.nunique():,} labels in adata.obs[{label_key!r}] are not Cell Ontology terms: "
            f"{quoted(unknown)}. Map them with pp.map_cell_types, or use tl.add_types for types of your own."
        )
        raise LabelError(msg)
    is_labelled = column.codes >= 0
    groups = np.full(adata.n_obs, "")
    if batch_key is not None:
        groups = donor_column(adata, batch_key, is_labelled)
    loaded = loaded_model(model, device)
    if out is not None:
        _check_out(Path(out), loaded)
    if column.excluded:
        warn_user(column.excluded)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(adata, loaded, source, use_rep=None)
    seed = seed_of(rng)
    types = np.array([*column.terms, ""])[column.codes]
    usable = is_labelled & np.isfinite(states.hidden).all(axis=1)
    cells = _labelled_cells(adata, states, source, types, groups, usable, seed)
    folds = assign_folds(groups[usable], np.random.default_rng(seed))
    if len(np.unique(groups[usable])) > 1:
        members: list[list[str]] = [
            np.unique(groups[usable][folds == k]).tolist() for k in range(folds.max() + 1)
        ]
    else:
        members = [[name] for name in np.unique(cells.studies).tolist()]
    n_types = len(np.unique(cells.types))
    is_large = n_types >= _MIN_TYPES and len(np.unique(groups[usable])) > 1
    found = fit_evidence(
        cells,
        ontology,
        CellMarkers.load(),
        folds=members,
        weights=None if is_large else default_fit().weights,
        n_classifier=_MOST_CELLS,
        seed=seed,
    )
    if out is not None:
        folder = Path(out)
        if folder.resolve() != loaded.folder.resolve():
            shutil.copytree(loaded.folder, folder, dirs_exist_ok=True)
        path = save_evidence(
            found, folder, weights_sha256=loaded.sha256, ontology_release=ontology.release
        )
        logger.info(
            "calibrate: wrote %s (%d cell types, %d cells)",
            path,
            len(found.known.types),
            int(usable.sum()),
        )
    return found


def _labelled_cells(
    adata: AnnData,
    states: HiddenStates,
    source: CountsSource,
    types: NDArray[np.str_],
    groups: NDArray[np.str_],
    usable: NDArray[np.bool_],
    seed: int,
) -> LabelledCells:
    """Sample cells of each type and group, and read their counts."""
    from sccello_tools.annotation import LabelledCells

    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(usable)
    key = np.char.add(np.char.add(groups[rows], "|"), types[rows])
    _, member, sizes = np.unique(key, return_inverse=True, return_counts=True)
    order = rng.permutation(len(rows))
    # rank of each cell among those of its type and group in random order
    by_group = order[np.argsort(member[order], kind="stable")]
    rank = np.empty(len(rows), dtype=np.intp)
    rank[by_group] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if len(np.unique(groups[rows])) > 1:
        kept = rank < _MOST_CELLS
        studies = groups[rows]
    else:  # random folds, each with its share of every type
        kept = rank < N_FOLDS * _MOST_CELLS
        studies = (rank % N_FOLDS).astype(str)
    chosen = rows[kept]
    counts = marker_counts(adata, source)
    to_tokens = gene_counts(counts.tokens)
    parts = []
    for chunk in counts.chunks(adata, _CHUNK):
        stop = chunk.start + chunk.rows.shape[0]
        inside = chosen[(chosen >= chunk.start) & (chosen < stop)] - chunk.start
        parts.append(sparse.csr_matrix(sparse.csr_matrix(chunk.rows[inside]) @ to_tokens))
    measured = np.zeros((1, VOCABULARY_SIZE), dtype=bool)
    measured[0, counts.tokens[counts.tokens >= 0]] = True
    return LabelledCells(
        states.hidden[chosen],
        states.cells(slice(None))[chosen],
        sparse.vstack(parts, format="csr"),
        types[chosen].astype(str),
        studies[kept].astype(str),
        np.zeros(len(chosen), dtype=np.intp),
        measured,
        np.zeros(len(chosen), dtype=bool),
        sizes[member][kept],
    )


def gene_counts(tokens: NDArray[np.integer]) -> sparse.csr_matrix:
    """Return the matrix that sums the columns of each gene, shape (n_columns, n_tokens)."""
    columns = np.flatnonzero(tokens >= 0)
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix(
        (ones, (columns, tokens[columns])), shape=(len(tokens), VOCABULARY_SIZE)
    )


def _check_out(out: Path, model: LoadedModel) -> None:
    if out.resolve() == model.folder.resolve():
        if model.entry.source == "bundled":
            msg = f"out is the folder of bundled model {model.name!r}, which must not change. Pass a new folder, which the model is copied to."
            raise ConfigError(msg)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists and is not an empty folder. Pass a new folder, or the model's own ({model.folder})."
        raise OutputExistsError(msg)
