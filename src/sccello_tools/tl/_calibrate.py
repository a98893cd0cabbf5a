"""Calibrate a model for annotation with labelled cells."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._anndata.columns import require_obs
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools._random import seed_of
from sccello_tools.errors import ConfigError, LabelError, OutputExistsError
from sccello_tools.models import LoadedModel, load
from sccello_tools.ontology import CellOntology

from ._hidden_states import hidden_states

if TYPE_CHECKING:
    from anndata import AnnData

    from sccello_tools._random import RNGLike
    from sccello_tools.annotation import AnnotationStatistics
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def calibrate(
    adata: AnnData,
    label_key: str = "cell_type_ontology_term_id",
    *,
    model: str | Path | LoadedModel,
    out: str | Path | None = None,
    batch_key: str | None = None,
    n_reference: int = 60,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    rng: RNGLike = 0,
) -> AnnotationStatistics:
    """Fit the classifier, reference cells and thresholds that :func:`annotate_novel` uses, from labelled cells.

    Parameters
    ----------
    adata
        Labelled cells with raw counts. Their embedding is reused from ``adata.obsm["X_sccello"]`` if it fits, else computed and
        written there.
    label_key
        Column of ``adata.obs`` with Cell Ontology ids; cells without one are ignored. See :func:`sccello_tools.pp.map_cell_types`.
    model
        %(model)s
    out
        Model folder to write the statistics to: that of the model itself, or a new folder, to which the model is copied. If not
        given, nothing is written; ``save(folder)`` of the result writes later.
    batch_key
        Column of ``adata.obs`` with donors or studies, which are held out whole. Without it, single cells are held out, and
        confidence is too high for new donors.
    n_reference
        Maximum number of reference cells per type, which novelty is measured against.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    device
        %(device)s
    ontology
        Cell Ontology; the bundled release by default.
    rng
        Seed or generator of the folds and the reference sample.

    Returns
    -------
    The statistics. Fields written to ``adata`` are those of :func:`embed`, if the embedding was computed.

    Raises
    ------
    LabelError
        If ``label_key`` is missing, a label is not a Cell Ontology id, or there are fewer than two types.
    GroupError
        If ``batch_key`` is missing.
    ConfigError
        If ``out`` is the folder of a bundled model.
    OutputExistsError
        If ``out`` is a file, or a folder that is neither empty nor the model's own.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[::4].copy()
    >>> folder = tempfile.mkdtemp()
    >>> sccello.tl.calibrate(adata, model="sccello-small", out=folder)
    AnnotationStatistics(4 types, 146 reference cells, Cell Ontology 2026-03-26)
    >>> sccello.tl.annotate_novel(adata, model=folder)
    """
    from sccello_tools.annotation import KnownCells
    from sccello_tools.annotation import calibrate as fit

    column = require_obs(adata, label_key, argument="label_key", error=LabelError).astype(object)
    labels = np.array(["" if pd.isna(label) else str(label) for label in column])
    groups = (
        np.full(adata.n_obs, "all")
        if batch_key is None
        else np.asarray(require_obs(adata, batch_key, argument="batch_key"), dtype=str)
    )
    ontology = ontology or CellOntology.load()
    current = {label: ontology.current(label) for label in np.unique(labels) if label}
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)
    if out is not None:
        _check_out(Path(out), loaded)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(adata, loaded, source, use_rep=None)
    rows = np.flatnonzero(labels != "")
    found = fit(
        KnownCells(
            states.hidden[rows],
            states.cells(slice(None))[rows],
            np.array([current[label] for label in labels[rows]], dtype=str),
            groups[rows],
        ),
        ontology,
        weights_sha256=loaded.sha256,
        n_reference=n_reference,
        seed=seed_of(rng),
    )
    if out is not None:
        folder = Path(out)
        if folder.resolve() != loaded.folder.resolve():
            shutil.copytree(loaded.folder, folder, dirs_exist_ok=True)
        path = found.save(folder)
        logger.info(
            "calibrate: wrote %s (%d cell types, %d cells)", path, len(found.types), len(rows)
        )
    return found


def _check_out(out: Path, model: LoadedModel) -> None:
    if out.resolve() == model.folder.resolve():
        if model.entry.source == "bundled":
            msg = f"out is the folder of bundled model {model.name!r}, which must not change. Pass a new folder, which the model is copied to."
            raise ConfigError(msg)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists and is not an empty folder. Pass a new folder, or the model's own ({model.folder})."
        raise OutputExistsError(msg)
