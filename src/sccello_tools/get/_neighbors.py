"""Nearest reference cells as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import require_obs
from sccello_tools.errors import NotFoundError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def neighbors_df(adata: AnnData, *, key: str = _keys.NEIGHBORS) -> pd.DataFrame:
    """Return the result of :func:`sccello_tools.tl.search` as a tidy table, one row per cell and neighbour.

    Parameters
    ----------
    adata
        Annotated data with the result of ``tl.search`` or ``tl.annotate(return_neighbors=True)``.
    key
        Key of ``adata.uns``; for ``tl.annotate``, its ``key_added`` followed by "_neighbors".

    Returns
    -------
    DataFrame in the order of the cells, nearest neighbour first, with columns

    - obs_name, rank: name of the cell, and 1 for the nearest neighbour
    - index, cell, distance: row and name of the reference cell, cosine distance
    - the columns of ``reference.obs`` that were requested

    Cells without counts have no rows.

    Raises
    ------
    NotFoundError
        If there is no result of that key.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> cells = sccello.datasets.pancreas_tritschler()
    >>> adata = cells[:3].copy()
    >>> sccello.tl.search(adata, cells[3:60].copy(), n_neighbors=2)
    >>> sccello.get.neighbors_df(adata)["rank"].tolist()
    [1, 2, 1, 2, 1, 2]
    """
    indices, cells = _result(adata, key)
    at, rank = np.nonzero(indices >= 0)
    found = cells.iloc[np.searchsorted(cells["index"].to_numpy(), indices[at, rank])]
    found = found.reset_index(drop=True)
    distances = np.asarray(adata.obsm[key + _keys.DISTANCES_SUFFIX])[at, rank]
    found.insert(0, "obs_name", adata.obs_names.to_numpy()[at])
    found.insert(1, "rank", rank + 1)
    found.insert(4, "distance", distances)
    return found


def neighbor_fractions(
    adata: AnnData, column: str, *, groupby: str | None = None, key: str = _keys.NEIGHBORS
) -> pd.DataFrame:
    """Return the fraction of the nearest reference cells of each donor, study or label.

    If nearly all neighbours come from one donor or study, the match is supported by little evidence, or the embedding separates batches.

    Parameters
    ----------
    adata
        Annotated data with the result of ``tl.search`` or ``tl.annotate(return_neighbors=True)``.
    column
        Column of ``reference.obs``, one of the ``obs_keys`` of the search.
    groupby
        Column of ``adata.obs``; if given, the mean over the cells of each group is returned.
    key
        Key of ``adata.uns``.

    Returns
    -------
    DataFrame of cells (or groups) by values of the column; rows sum to 1. Neighbours without a value are counted in the column "missing".
    Cells without counts have NaN.

    Raises
    ------
    NotFoundError
        If there is no result of that key, or the column was not requested.
    GroupError
        If ``groupby`` is not a column.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> cells = sccello.datasets.pancreas_tritschler()
    >>> adata = cells[:60].copy()
    >>> sccello.tl.search(adata, cells[60:260].copy(), obs_keys="cell_type")
    >>> fractions = sccello.get.neighbor_fractions(adata, "cell_type", groupby="cell_type")
    >>> bool(fractions.loc["pancreatic A cell", "pancreatic A cell"] > 0.7)
    True
    """
    indices, cells = _result(adata, key)
    if column not in cells.columns[2:]:
        msg = f"adata.uns[{key!r}] has no column {column!r} (columns: {list(cells.columns[2:])}). Pass it in obs_keys= of tl.search or tl.build_reference."
        raise NotFoundError(msg)
    texts = cells[column].astype(object).where(cells[column].notna(), "missing").astype(str)
    values, codes = np.unique(texts.to_numpy(dtype=str), return_inverse=True)
    found = np.full((adata.n_obs, len(values)), np.nan)
    usable = (indices >= 0).all(axis=1)
    own = codes[np.searchsorted(cells["index"].to_numpy(), indices[usable])]
    for code in range(len(values)):
        found[usable, code] = (own == code).mean(axis=1)
    table = pd.DataFrame(found, index=adata.obs_names.copy(), columns=values.tolist())
    if groupby is None:
        return table
    groups = require_obs(adata, groupby, argument="groupby").astype(str)
    return table.groupby(groups.to_numpy()).mean().rename_axis(groupby)


def _result(adata: AnnData, key: str) -> tuple[NDArray[np.int64], pd.DataFrame]:
    record = adata.uns.get(key, {})
    if "cells" not in record or key + _keys.INDICES_SUFFIX not in adata.obsm:
        msg = f"adata.uns[{key!r}] has no neighbours. Call tl.search first, or pass its key_added as key=."
        raise NotFoundError(msg)
    indices: NDArray[np.int64] = np.asarray(adata.obsm[key + _keys.INDICES_SUFFIX])
    return indices, record["cells"]
