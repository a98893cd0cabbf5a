"""The annotation of cells or groups of cells, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import missing_column, obs_column
from sccello_tools._validation import check_at_least
from sccello_tools.errors import GroupError, NotFoundError

from .deciding_genes import SOURCES, DecidingGenes, genes_of_cells, genes_of_groups

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray


def annotation_df(
    adata: AnnData,
    groupby: str | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    n_markers: int = 5,
) -> pd.DataFrame:
    """Return the result of :func:`sccello_tools.tl.annotate_novel` or :func:`sccello_tools.tl.annotate` as a table with its evidence.

    Parameters
    ----------
    adata
        Annotated data.
    groupby
        Column of ``adata.obs`` with clusters, samples or other groups to summarise; one row per cell if None.
    key
        ``key_added`` of the annotation.
    n_markers
        Number of supporting and of missing marker genes to list; with 0, the counts are not read.

    Returns
    -------
    DataFrame. Without ``groupby`` one row per cell with the columns

    ``cell_type``, ``ontology_term_id`` : category
        Name and id of the Cell Ontology term.
    ``confidence``, ``novelty`` : float32
        Calibrated confidence in [0, 1] and novelty.
    ``status`` : category
        ``"known"``, ``"novel_subtype"`` or ``"unknown"``.
    ``runner_up`` : category
        Most probable other type.
    ``embedding``, ``ontology``, ``markers``, ``prior`` : float32
        How much each source of evidence favours the type over the runner-up, in log odds; for a broader term, those of its most
        probable subtype.
    ``supporting_markers``, ``missing_markers`` : str
        Symbols of marker genes of the term (:func:`sccello_tools.datasets.cell_markers`) that are expressed, by their
        contribution, and of those that are expected but not expressed. Missing if the counts are not available.

    With ``groupby`` one row per group in the order of its categories, with ``n_cells``, the ``cell_type`` of the group with its
    ``ontology_term_id``, and the ``fraction`` of the group's cells that have it, the median ``confidence`` and ``novelty``, the
    fractions of cells of each status, the most frequent ``runner_up`` and the mean contributions of the sources over the cells with
    the type. The type is that of the group as a whole if the annotation was computed with the same ``groupby``, else the most frequent one of
    its cells. Markers are averaged over up to 500 cells of a group; supporting ones are detected in at least 10 % of them. Cells without an annotation
    count towards ``n_cells``. Values that the annotation does not contain are missing.

    Raises
    ------
    NotFoundError
        If ``adata.obs`` has no annotation of that key.
    GroupError
        If ``groupby`` is not a column.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> sccello.get.annotation_df(adata).columns.tolist()[:6]
    ['cell_type', 'ontology_term_id', 'confidence', 'status', 'novelty', 'runner_up']
    >>> table = sccello.get.annotation_df(adata, "cell_type", n_markers=3)
    >>> table.loc["type B pancreatic cell", "supporting_markers"].split(", ")[0]
    'INS'
    """
    if key not in adata.obs:
        remedy = "Call tl.annotate_novel(adata) first."
        raise NotFoundError(missing_column("adata.obs", key, adata.obs.columns, "key", remedy))
    if groupby is not None and groupby not in adata.obs:
        raise GroupError(missing_column("adata.obs", groupby, adata.obs.columns, "groupby"))
    check_at_least("n_markers", n_markers, 0)
    stored = adata.uns.get(key)
    record: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
    no_values = np.full(adata.n_obs, np.nan, dtype=np.float32)
    columns: dict[str, Any] = {
        "cell_type": pd.Categorical(obs_column(adata, key)),
        "ontology_term_id": pd.Categorical(_column(adata, key + _keys.TERM_ID_SUFFIX, no_values)),
        "confidence": _column(adata, key + _keys.CONFIDENCE_SUFFIX, no_values),
        "status": pd.Categorical(
            _column(adata, key + _keys.STATUS_SUFFIX, no_values), categories=_keys.STATUSES
        ),
        "novelty": _column(adata, _keys.NOVELTY, no_values),
        "runner_up": pd.Categorical(_column(adata, key + _keys.RUNNER_UP_SUFFIX, no_values)),
    }
    evidence: Any = adata.obsm.get(key + _keys.EVIDENCE_SUFFIX)
    for name in SOURCES:
        given = isinstance(evidence, pd.DataFrame) and name in evidence
        columns[name] = evidence[name].to_numpy() if given else no_values
    cells = pd.DataFrame(columns, index=adata.obs_names)
    if groupby is None:
        found = None
        if n_markers:
            terms = cells["ontology_term_id"].astype(object)
            found = genes_of_cells(
                adata, record, terms.where(terms.notna(), None).tolist(), n_markers
            )
        return _with_genes(cells, found)
    groups = pd.Categorical(obs_column(adata, groupby))
    of_groups = None
    if record.get("groupby") == groupby and key + _keys.CLUSTER_SUFFIX in adata.obs:
        cluster = key + _keys.CLUSTER_SUFFIX
        of_groups = pd.DataFrame(
            {name: obs_column(adata, name) for name in (cluster, cluster + _keys.TERM_ID_SUFFIX)}
        )
    table = _by_group(cells, groups, groupby, of_groups)
    found = None
    if n_markers:
        terms = table["ontology_term_id"].astype(object)
        asked = terms.where(terms.notna(), None).tolist()
        found = genes_of_groups(adata, record, np.asarray(groups.codes), asked, n_markers)
    return _with_genes(table, found)


def _with_genes(table: pd.DataFrame, found: DecidingGenes | None) -> pd.DataFrame:
    for name in DecidingGenes._fields:
        values = [None] * len(table) if found is None else getattr(found, name)
        table[f"{name}_markers"] = pd.Series(values, index=table.index, dtype=object)
    return table


def _column(adata: AnnData, name: str, default: NDArray[np.float32]) -> Any:
    return obs_column(adata, name).to_numpy() if name in adata.obs else default


def _by_group(
    cells: pd.DataFrame, groups: pd.Categorical, groupby: str, of_groups: pd.DataFrame | None
) -> pd.DataFrame:
    rows = []
    for code in range(len(groups.categories)):
        inside = np.asarray(groups.codes) == code
        own = cells[inside]
        annotated = own[own["cell_type"].notna()]
        # the most frequent type; of equally frequent ones the first by name
        modes = annotated["cell_type"].mode()
        top, term = (modes[0] if len(modes) else None), None
        if of_groups is not None and inside.any():
            top, term = of_groups[inside].iloc[0].tolist()
        with_top = annotated[annotated["cell_type"] == top]
        ids = with_top["ontology_term_id"].dropna()
        if term is None:
            term = ids.iloc[0] if len(ids) else None
        runners = with_top["runner_up"].mode()
        rows.append(
            {
                "n_cells": len(own),
                "cell_type": top,
                "ontology_term_id": term,
                "fraction": len(with_top) / len(own) if len(own) else np.nan,
                "confidence": _median(own["confidence"]),
                "novelty": _median(own["novelty"]),
                **{value: (own["status"] == value).mean() for value in _keys.STATUSES},
                "runner_up": runners[0] if len(runners) else None,
                **{name: with_top[name].mean() for name in SOURCES},
            }
        )
    index = pd.Index([str(name) for name in groups.categories], name=groupby)
    return pd.DataFrame(rows, index=index)


def _median(values: pd.Series) -> float:
    """Median of the values that are not missing; NaN, without a warning, if there are none."""
    kept = values.dropna()
    return float(np.median(kept)) if len(kept) else float("nan")
