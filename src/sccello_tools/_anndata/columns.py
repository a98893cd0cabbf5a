"""Columns of obs, whatever holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools.errors import GroupError

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData


def obs_column(adata: AnnData, key: str) -> pd.Series:
    """Return a column of ``obs`` that is there; that of a lazy AnnData is read, the others of it are not.

    Raises
    ------
    GroupError
        If several columns have that name.
    """
    column: Any = adata.obs[key]
    if isinstance(column, pd.DataFrame):
        msg = f"adata.obs has {column.shape[1]} columns called {key!r}, so it cannot be told which is meant. Rename all but one."
        raise GroupError(msg)
    # anndata.experimental.read_lazy gives xarray's arrays
    found: pd.Series = column if isinstance(column, pd.Series) else column.to_series()
    return found
