"""A reference of a user's own labelled cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.columns import obs_column
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools.errors import GroupError
from sccello_tools.ontology import CellOntology

from ._hidden_states import hidden_states
from ._search import check_obs_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from sccello_tools._random import RNGLike
    from sccello_tools.annotation import Reference
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def build_reference(
    adata: AnnData,
    label_key: str,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    use_rep: str | None = None,
    batch_key: str | None = None,
    n_neighbors: int = 15,
    obs_keys: Sequence[str] = (),
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    rng: RNGLike = 0,
) -> Reference:
    """Make a reference of labelled cells, which :func:`annotate` looks up the nearest of.

    Labels may be Cell Ontology ids, names that fit one, or any names of your own. A third of the cells is left out in turn to
    learn how far votes can be trusted.

    Parameters
    ----------
    adata
        Labelled cells with raw counts; their embedding is written to ``adata.obsm["X_sccello"]`` if it is not there.
    label_key
        Column of ``adata.obs`` with the labels; cells without one are left aside, with a warning. Terms are taken from
        ``adata.obs[label_key + "_ontology_term_id"]`` where it is there, else looked up.
    model
        %(model)s
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` made with this model.
    batch_key
        Column with donors, or studies: its groups are left out together, so that confidence holds for new ones.
    n_neighbors
        Nearest cells that vote.
    obs_keys
        Columns of ``adata.obs`` to store with the cells, to be reported with neighbours by :func:`search`; ``batch_key`` is always
        stored.
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
        The Cell Ontology; the shipped release if not given.
    rng
        Seed or generator of the calibration folds.

    Returns
    -------
    The reference. ``save(folder)`` keeps it, ``Reference.load(folder)`` opens it, ``extend(other)`` joins two.

    Raises
    ------
    LabelError
        If fewer than two labels are there.
    GroupError
        If ``label_key``, ``batch_key`` or one of ``obs_keys`` is missing.
    ConfigError
        If ``use_rep`` is not an embedding of this model.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:120].copy()
    >>> sccello.tl.build_reference(adata, "cell_type").labels
    ('endothelial cell', 'pancreatic A cell', 'pancreatic D cell', 'pancreatic PP cell', 'type B pancreatic cell')
    """
    from sccello_tools.annotation import Reference
    from sccello_tools.annotation.reference_parts import cell_table

    ontology = ontology or CellOntology.load()
    column = type_column(adata, label_key, ontology, any_names=True)
    if batch_key is not None and batch_key not in adata.obs:
        msg = f"adata.obs has no column {batch_key!r} (columns: {list(adata.obs.columns)}). Name the column of donors, or leave batch_key out."
        raise GroupError(msg)
    labels = np.array([*column.names, ""])[column.codes]  # code -1 takes the last
    if n_missing := int((labels == "").sum()):
        logger.warning(
            "build_reference: %d of %d cells have no label in %r and are left aside",
            n_missing,
            len(labels),
            label_key,
        )
    if strange := [name for name, term in zip(column.names, column.terms) if not term]:
        logger.info(
            "build_reference: %d labels fit no Cell Ontology term, so no broader term stands in for them: %s",
            len(strange),
            ", ".join(strange[:5]),
        )
    columns = check_obs_keys(adata.obs.columns, obs_keys)
    if batch_key is not None and batch_key not in columns:
        columns.append(batch_key)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(adata, model, source, use_rep=use_rep, device=device)
    return Reference.of(
        states.hidden,
        labels,
        dict(zip(column.names, column.terms)),
        model=states.model.name,
        weights_sha256=states.model.sha256,
        ontology=ontology,
        groups=None if batch_key is None else np.asarray(obs_column(adata, batch_key), dtype=str),
        table=cell_table(adata.obs_names, {c: obs_column(adata, c) for c in columns}),
        n_neighbors=n_neighbors,
        rng=rng,
    )
