"""Give a model what it needs to annotate: prototypes, a head, and a measure of how sure it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._anndata.columns import obs_column
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._logging import logger
from sccello_tools.errors import ConfigError, GroupError, LabelError
from sccello_tools.models import LoadedModel, load
from sccello_tools.ontology import CellOntology

from ._hidden_states import hidden_states

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sccello_tools.annotation import AnnotationStatistics
    from sccello_tools.tokens.counts import CountsPolicy


def calibrate(
    adata: AnnData,
    label_key: str = "cell_type_ontology_term_id",
    *,
    model: str | Path | LoadedModel,
    batch_key: str | None = None,
    n_reference: int = 60,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    ontology: CellOntology | None = None,
    seed: int = 0,
) -> AnnotationStatistics:
    """Measure, from labelled cells, what :func:`annotate_novel` needs to know of a model, and keep it in the model's folder.

    Parameters
    ----------
    adata
        Labelled cells with raw counts; their embedding is written to ``adata.obsm["X_sccello"]`` if it is not there.
    label_key
        Column of ``adata.obs`` with Cell Ontology ids; cells without one are left aside. See :func:`sccello_tools.pp.map_cell_types`.
    model
        Folder of a model, or a loaded one; ``annotation.safetensors`` is written there.
    batch_key
        Column with donors, or studies. Groups are held out in turn to learn how sure to be of new ones; without it, cells are, and
        the confidence will be too high for new donors.
    n_reference
        Most cells of a type whose embeddings are kept, to tell novel cells by.
    layer
        Layer that holds the raw counts; ``X`` if not given.
    gene_ids
        Column of ``adata.var`` that holds Ensembl ids or symbols; ``var_names`` if not given.
    ontology
        The Cell Ontology; the shipped release if not given.
    seed
        Of the folds and samples.

    Returns
    -------
    What was measured.

    Raises
    ------
    LabelError
        If ``label_key`` is missing, its labels are no current Cell Ontology ids, or fewer than two types are there.
    GroupError
        If ``batch_key`` is missing.
    ConfigError
        If the model is one that ships with the package.

    Examples
    --------
    >>> import shutil, tempfile
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> folder = shutil.copytree(sccello.models.load(device="cpu").folder, tempfile.mkdtemp() + "/mine")
    >>> found = sccello.tl.calibrate(adata[::4].copy(), model=folder)
    >>> found
    AnnotationStatistics(4 types, 146 reference cells, Cell Ontology 2026-03-26)
    """
    from sccello_tools.annotation import KnownCells
    from sccello_tools.annotation import calibrate as measure

    if label_key not in adata.obs:
        msg = f"adata.obs has no column {label_key!r} (columns: {list(adata.obs.columns)}). Name the column that holds Cell Ontology ids."
        raise LabelError(msg)
    if batch_key is not None and batch_key not in adata.obs:
        msg = f"adata.obs has no column {batch_key!r} (columns: {list(adata.obs.columns)}). Name the column of donors, or leave batch_key out."
        raise GroupError(msg)
    ontology = ontology or CellOntology.load()
    given = obs_column(adata, label_key).astype(object)
    labels = np.array(["" if pd.isna(label) else str(label) for label in given])
    current = {label: ontology.current(label) for label in np.unique(labels) if label}
    loaded = model if isinstance(model, LoadedModel) else load(model)
    if loaded.entry.source == "bundled":
        msg = f"Model {loaded.name!r} ships with the package, which is not written to. Copy its folder ({loaded.folder}), and pass the copy."
        raise ConfigError(msg)
    states = hidden_states(
        adata, loaded, CountsSource(layer, gene_ids, counts, min_matched), use_rep=None
    )
    rows = np.flatnonzero(labels != "")
    groups = np.full(adata.n_obs, "all") if batch_key is None else obs_column(adata, batch_key)
    found = measure(
        KnownCells(
            states.hidden[rows],
            states.cells(slice(None))[rows],
            np.array([current[label] for label in labels[rows]], dtype=str),
            np.asarray(groups, dtype=str)[rows],
        ),
        ontology,
        weights_sha256=states.model.sha256,
        n_reference=n_reference,
        seed=seed,
    )
    path = found.save(states.model.folder)
    logger.info("calibrate: wrote %s (%d cell types, %d cells)", path, len(found.types), len(rows))
    return found
