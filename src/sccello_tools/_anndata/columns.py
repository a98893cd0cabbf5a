"""Columns of ``obs`` and ``var``: presence checks and reading, whatever container holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools.errors import GroupError

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData

    from sccello_tools.errors import ScCelloError

_N_SHOWN = 20


def require_obs(
    adata: AnnData,
    key: str,
    *,
    argument: str,
    error: type[ScCelloError] = GroupError,
    remedy: str = "",
) -> pd.Series:
    """Return a column of ``adata.obs`` or raise an error that lists the existing columns.

    Parameters
    ----------
    adata
        Annotated data; a lazily read one is supported, only this column is read.
    key
        Name of the column.
    argument
        Name of the argument that the user passed, for the message.
    error
        Exception type to raise.
    remedy
        What else the user can do, as a sentence.

    Raises
    ------
    ScCelloError
        Of type ``error``, if the column is missing or several columns have this name.
    """
    if key not in adata.obs:
        raise error(missing_column("adata.obs", key, adata.obs.columns, argument, remedy))
    return obs_column(adata, key)


def missing_column(table: str, key: str, columns: Any, argument: str, remedy: str = "") -> str:
    """Return the message for a column that does not exist: what was asked for, what exists, what to pass."""
    names = [str(name) for name in columns]
    shown = ", ".join(repr(name) for name in names[:_N_SHOWN]) or "none"
    more = f", ... ({len(names)} in total)" if len(names) > _N_SHOWN else ""
    hint = f" {remedy}" if remedy else ""
    return f"{table} has no column {key!r} (columns: {shown}{more}). Pass one of them as {argument}=.{hint}"


def obs_column(adata: AnnData, key: str) -> pd.Series:
    """Return an existing column of ``obs``; for a lazily read AnnData only this column is loaded.

    Raises
    ------
    GroupError
        If several columns have that name.
    """
    column: Any = adata.obs[key]
    if isinstance(column, pd.DataFrame):
        msg = f"adata.obs has {column.shape[1]} columns named {key!r}. Rename all but one."
        raise GroupError(msg)
    # anndata.experimental.read_lazy returns xarray arrays
    found: pd.Series = column if isinstance(column, pd.Series) else column.to_series()
    return found
