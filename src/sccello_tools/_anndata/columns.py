"""Columns of ``obs`` and ``var``: presence checks and reading, whatever container holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._messages import quoted
from sccello_tools.errors import ArgumentError, GroupError

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.errors import ScCelloError

_N_SHOWN = 20


def check_anndata(adata: Any) -> None:
    """Refuse anything that is not an AnnData, and name the modality or table to pass instead of a MuData or SpatialData.

    Raises
    ------
    ArgumentError
        If it is not an AnnData.
    """
    from anndata import AnnData

    if isinstance(adata, AnnData):
        return
    kind = type(adata).__name__
    if isinstance(parts := getattr(adata, "mod", None), Mapping):
        msg = f"adata is a {kind} with modalities {quoted(parts) or '(none)'}. Pass the modality with gene expression, such as mdata[{_expression(parts)!r}]."
    elif isinstance(parts := getattr(adata, "tables", None), Mapping):
        msg = f"adata is a {kind} with tables {quoted(parts) or '(none)'}. Pass the table with counts, such as sdata.tables[{_expression(parts)!r}]."
    elif isinstance(adata, str | Path):
        msg = f"adata is a path ({str(adata)!r}), and an AnnData is required. Read the file first: anndata.read_h5ad({str(adata)!r})."
    else:
        msg = f"adata is of type {kind}, and an AnnData is required. Pass anndata.AnnData(X, obs=..., var=...)."
    raise ArgumentError(msg)


def _expression(parts: Mapping[str, Any]) -> str:
    """Guess which part holds gene expression, for an example in a message."""
    names = [str(name) for name in parts]
    likely = [name for name in names if name.lower() in {"rna", "gex", "gene expression", "table"}]
    return (likely or names or ["rna"])[0]


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
        Name of the argument that the user passed, for the message; "" to omit it.
    error
        Exception type to raise.
    remedy
        What else the user can do, as a sentence.

    Raises
    ------
    ScCelloError
        Of type ``error``, if the column is missing or several columns have this name.
    """
    check_anndata(adata)
    if key not in adata.obs:
        raise error(missing_column("adata.obs", key, adata.obs.columns, argument, remedy))
    return obs_column(adata, key)


def missing_column(table: str, key: str, columns: Any, argument: str, remedy: str = "") -> str:
    """Return the message for a column that does not exist: what was asked for, what exists, what to pass."""
    names = [str(name) for name in columns]
    shown = ", ".join(repr(name) for name in names[:_N_SHOWN]) or "none"
    more = f", ... ({len(names)} in total)" if len(names) > _N_SHOWN else ""
    hint = f" {remedy}" if remedy else ""
    use = f" as {argument}=" if argument else ""
    return f"{table} has no column {key!r} (columns: {shown}{more}). Pass one of them{use}.{hint}"


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


def as_text(values: pd.Series) -> NDArray[np.object_]:
    """Return the text of each value, stripped, "" where one is missing.

    Bytes are decoded and integral floats written without a fraction, so that a column of numbers with missing values has the same
    texts as one without. Each distinct value is converted once.
    """
    codes, distinct = pd.factorize(values.astype(object))
    # a missing value has code -1, which takes the last
    texts: NDArray[np.object_] = np.array([*map(_as_text, distinct), ""], dtype=object)
    return texts[codes]


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
