"""The annotation of cells or groups of cells, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import missing_column, obs_column
from sccello_tools.errors import GroupError, NotFoundError

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray


def annotation_df(
    adata: AnnData, groupby: str | None = None, *, key: str = _keys.CELL_TYPE
) -> pd.DataFrame:
    """Return the result of :func:`sccello_tools.tl.annotate_novel` or :func:`sccello_tools.tl.annotate` as a table.

    Parameters
    ----------
    adata
        Annotated data.
    groupby
        Column of ``adata.obs`` with clusters, samples or other groups to summarise; one row per cell if None.
    key
        ``key_added`` of the annotation.

    Returns
    -------
    DataFrame. Without ``groupby`` one row per cell with the columns

    ``cell_type``, ``ontology_term_id`` : category
        Name and id of the Cell Ontology term.
    ``confidence``, ``novelty`` : float32
        Calibrated confidence in [0, 1] and novelty.
    ``status`` : category
        ``"known"``, ``"novel_subtype"`` or ``"unknown"``.

    With ``groupby`` one row per group in the order of its categories, with ``n_cells``, the most frequent ``cell_type`` with its
    ``ontology_term_id`` and the ``fraction`` of the group's cells that have it, the median ``confidence`` and ``novelty``, and the
    fractions of cells of each status. Cells without an annotation count towards ``n_cells``. Values that the annotation does not
    contain are missing.

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
    >>> sccello.get.annotation_df(adata).columns.tolist()
    ['cell_type', 'ontology_term_id', 'confidence', 'status', 'novelty']
    >>> sccello.get.annotation_df(adata, "cell_type").index.name
    'cell_type'
    """
    if key not in adata.obs:
        remedy = "Call tl.annotate_novel(adata) first."
        raise NotFoundError(missing_column("adata.obs", key, adata.obs.columns, "key", remedy))
    if groupby is not None and groupby not in adata.obs:
        raise GroupError(missing_column("adata.obs", groupby, adata.obs.columns, "groupby"))
    no_values = np.full(adata.n_obs, np.nan, dtype=np.float32)
    cells = pd.DataFrame(
        {
            "cell_type": pd.Categorical(obs_column(adata, key)),
            "ontology_term_id": pd.Categorical(
                _column(adata, key + _keys.TERM_ID_SUFFIX, no_values)
            ),
            "confidence": _column(adata, key + _keys.CONFIDENCE_SUFFIX, no_values),
            "status": pd.Categorical(
                _column(adata, key + _keys.STATUS_SUFFIX, no_values), categories=_keys.STATUSES
            ),
            "novelty": _column(adata, _keys.NOVELTY, no_values),
        },
        index=adata.obs_names,
    )
    if groupby is None:
        return cells
    return _by_group(cells, pd.Categorical(obs_column(adata, groupby)), groupby)


def _column(adata: AnnData, name: str, default: NDArray[np.float32]) -> Any:
    return obs_column(adata, name).to_numpy() if name in adata.obs else default


def _by_group(cells: pd.DataFrame, groups: pd.Categorical, groupby: str) -> pd.DataFrame:
    rows = []
    for code in range(len(groups.categories)):
        own = cells[np.asarray(groups.codes) == code]
        annotated = own[own["cell_type"].notna()]
        # the most frequent type; of equally frequent ones the first by name
        top = annotated["cell_type"].mode()
        with_top = annotated[annotated["cell_type"] == top[0]] if len(top) else annotated
        ids = with_top["ontology_term_id"].dropna()
        rows.append(
            {
                "n_cells": len(own),
                "cell_type": top[0] if len(top) else None,
                "ontology_term_id": ids.iloc[0] if len(ids) else None,
                "fraction": len(with_top) / len(own) if len(own) else np.nan,
                "confidence": _median(own["confidence"]),
                "novelty": _median(own["novelty"]),
                **{value: (own["status"] == value).mean() for value in _keys.STATUSES},
            }
        )
    index = pd.Index([str(name) for name in groups.categories], name=groupby)
    return pd.DataFrame(rows, index=index)


def _median(values: pd.Series) -> float:
    """Median of the values that are not missing; NaN, without a warning, if there are none."""
    kept = values.dropna()
    return float(np.median(kept)) if len(kept) else float("nan")
