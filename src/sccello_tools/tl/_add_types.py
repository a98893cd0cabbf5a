"""Add known types to a model without training."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.counts import CountsSource, warn_user
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools._random import seed_of
from sccello_tools.errors import LabelError, OutputExistsError
from sccello_tools.models import load
from sccello_tools.ontology import CellOntology

from ._embed import loaded_model
from ._hidden_states import hidden_states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from sccello_tools._random import RNGLike
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def add_types(
    adata: AnnData,
    label_key: str,
    *,
    out: str | Path,
    model: str | Path | LoadedModel = "sccello-small",
    parents: Mapping[str, str] | None = None,
    use_rep: str | None = None,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    rng: RNGLike = 0,
) -> LoadedModel:
    """Add known types to a model from a few cells of each, without training its network. This takes seconds.

    The new model is written to a new folder, with the same weights. :func:`annotate_novel` then assigns the new types like those
    that the model was calibrated on.

    Everything else that the new cells have in common is learnt as well. If the model was not trained on other cells of their study or
    technology, other types of that study are therefore assigned to the new type (tutorial 6). It may help to also add cells of similar
    types of that study, under other names; with many labels, use :func:`annotate` with a reference, or :func:`calibrate`.

    Parameters
    ----------
    adata
        Cells of the new types, five or more of each, with raw counts; their embedding is written to ``adata.obsm["X_sccello"]``
        if it does not exist.
    label_key
        Column of ``adata.obs`` with the types: Cell Ontology ids, names of terms, or any names. Cells without a label, or with one that
        does not name a cell type ("unknown", "doublet"), are excluded, with a warning.
    out
        Folder for the new model; it must be empty or not exist.
    model
        %(model)s
    parents
        Parent term (id or name) of each label that is not a Cell Ontology term. Back-off then includes its ancestors, and its marker
        genes are used as evidence.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` computed with this model.
    %(counts_source)s
    device
        %(device)s
    ontology
        Cell Ontology; the bundled release by default.
    rng
        Seed or generator of the simulated points that represent the known types.

    Returns
    -------
    The new model. Its thresholds of confidence and novelty are those of the original model; :func:`calibrate` computes new ones.

    Raises
    ------
    LabelError
        If a type is already known, has fewer than five cells, or its parent is not a term.
    OutputExistsError
        If ``out`` is not empty.
    WeightsError
        If the model has neither calibration nor labelled prototypes.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> adata = adata[adata.obs["cell_type"] == "type B pancreatic cell"][:40].copy()
    >>> adata.obs["mine"] = "my beta cell"
    >>> model = sccello.tl.add_types(
    ...     adata, "mine", out=tempfile.mkdtemp(), parents={"my beta cell": "type B pancreatic cell"}
    ... )
    >>> sccello.tl.annotate_novel(adata, model=model)
    >>> adata.obs["sccello_cell_type"].value_counts().index[0]
    'my beta cell'
    """
    from sccello_tools.annotation import (
        NewCells,
        evidence_of,
        resolve_candidates,
        save_evidence,
    )
    from sccello_tools.annotation import add_types as learn
    from sccello_tools.engine import cell_representation

    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists and is not an empty folder. Pass a new folder for the new model."
        raise OutputExistsError(msg)
    ontology = ontology or CellOntology.load()
    column = type_column(
        adata, label_key, ontology, argument="label_key", any_names=True, skip_uninformative=True
    )
    if unknown := sorted(set(parents or {}) - set(column.names)):
        msg = f"parents contains {unknown[0]!r}, which is not a label of adata.obs[{label_key!r}] ({', '.join(column.names[:8]) or 'none'}). Use labels of that column in parents=, or omit it."
        raise LabelError(msg)
    under = {
        name: resolve_candidates([term], ontology)[0] for name, term in (parents or {}).items()
    }
    # a name that is given a parent is a type of its own, even if it also fits a term
    types = [
        name if name in under or not term else term
        for name, term in zip(column.names, column.terms)
    ]
    loaded = loaded_model(model, device)
    known = evidence_of(loaded)
    if column.excluded:
        warn_user(column.excluded)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(adata, loaded, source, use_rep=use_rep, device=device)
    rows = np.flatnonzero((column.codes >= 0) & np.isfinite(states.hidden).all(axis=1))
    learnt = learn(
        known,
        NewCells(
            states.hidden[rows],
            cell_representation(loaded.network, states.hidden[rows]),
            np.array([*types, ""])[column.codes[rows]],
        ),
        ontology,
        parents=under,
        cell_representation=partial(cell_representation, loaded.network),
        seed=seed_of(rng),
    )
    shutil.copytree(loaded.folder, out, dirs_exist_ok=True)
    save_evidence(learnt, out, weights_sha256=loaded.sha256, ontology_release=ontology.release)
    return load(out, device=device)
