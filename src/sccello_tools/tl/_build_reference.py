"""References: labelled cells from which labels are transferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.columns import obs_column, require_obs
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools._messages import listed
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
    """Embed labelled cells as a reference for :func:`annotate` and :func:`search`.

    Labels may be Cell Ontology ids, names of terms, or any other names. Confidence is calibrated by three-fold cross-validation.

    Parameters
    ----------
    adata
        Labelled cells with raw counts; their embedding is written to ``adata.obsm["X_sccello"]`` if it is not there.
    label_key
        Column of ``adata.obs`` with the labels. Cells without a label, or with one that does not name a cell type ("unknown",
        "doublet", CL:0000003), are excluded with a warning. Terms are taken from ``adata.obs[label_key + "_ontology_term_id"]`` if
        present, else looked up by name.
    model
        %(model)s
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` computed with this model.
    batch_key
        Column of ``adata.obs`` with donors or studies. Cells of the same group are held out together, so that confidence holds for
        new donors or studies.
    n_neighbors
        Number of nearest neighbours that vote.
    obs_keys
        Columns of ``adata.obs`` to store with the cells, to be reported with neighbours by :func:`search`; ``batch_key`` is always
        stored.
    %(counts_source)s
    device
        %(device)s
    ontology
        Cell Ontology; the bundled release by default.
    rng
        Seed or generator of the cross-validation folds.

    Returns
    -------
    The reference. ``save(folder)`` writes it, ``Reference.load(folder)`` reads it, ``extend(other)`` joins two.

    Raises
    ------
    LabelError
        If there are fewer than two labels.
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
    column = type_column(adata, label_key, ontology, argument="label_key", any_names=True, skip_uninformative=True)  # fmt: skip
    if batch_key is not None:
        require_obs(adata, batch_key, argument="batch_key", remedy="Omit batch_key to hold out random cells.")  # fmt: skip
    labels = np.array([*column.names, ""])[column.codes]  # code -1 takes the last
    if column.excluded:
        logger.warning("build_reference: %s", column.excluded)
    if unmatched := [name for name, term in zip(column.names, column.terms) if not term]:
        logger.info(
            "build_reference: %d labels match no Cell Ontology term and cannot be replaced by a broader one: %s",
            len(unmatched),
            listed(unmatched),
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
        model=states.model.address,
        weights_sha256=states.model.sha256,
        ontology=ontology,
        groups=None if batch_key is None else np.asarray(obs_column(adata, batch_key), dtype=str),
        table=cell_table(adata.obs_names, {c: obs_column(adata, c) for c in columns}),
        n_neighbors=n_neighbors,
        rng=rng,
    )
