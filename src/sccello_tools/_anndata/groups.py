"""Groups of cells in a column of ``obs``, and a sample of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools.errors import ArgumentError, GroupError

from .columns import obs_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

ALL_CELLS = "all"  # name of the one group if there is no column


class CellSample(NamedTuple):
    """Some cells of each group."""

    names: tuple[str, ...]
    """Groups, in the order of their categories."""
    rows: NDArray[np.int64]
    """Rows of the AnnData, ascending, shape (n_sampled,)."""
    group: NDArray[np.int64]
    """Index into ``names`` for each of the rows, shape (n_sampled,)."""


def sample_cells(adata: AnnData, groupby: str | None, *, n_per_group: int, seed: int) -> CellSample:
    """Draw up to ``n_per_group`` cells of each group, without replacement.

    Parameters
    ----------
    adata
        Annotated data.
    groupby
        Column of ``adata.obs``; one group of all cells if not given.
    n_per_group
        Most cells of a group.
    seed
        Of the draw. A group's cells do not depend on the other groups.

    Raises
    ------
    GroupError
        If the column is missing, numeric or incomplete, or a group has one cell only.
    """
    if n_per_group < 2:
        msg = f"n_cells_per_group is {n_per_group}; expected is 2 or more"
        raise ArgumentError(msg)
    names: tuple[str, ...]
    if groupby is None:
        names, codes = (ALL_CELLS,), np.zeros(adata.n_obs, dtype=np.int64)
    else:
        labels = group_labels(adata, groupby)
        names = tuple(str(name) for name in labels.categories)
        codes = labels.codes.astype(np.int64)
    if not names or not adata.n_obs:
        msg = "adata has no cells, and a group needs at least 2. Pass cells."
        raise GroupError(msg)
    counts = np.bincount(codes, minlength=len(names))
    if small := [f"{name!r} ({n})" for name, n in zip(names, counts) if n < 2]:
        where = "adata" if groupby is None else f"adata.obs[{groupby!r}]"
        msg = (
            f"{len(small)} of {len(names)} groups of {where} have fewer than 2 cells: {', '.join(small[:5])}. A mean over cells needs "
            "at least 2: merge such groups with others, or leave their cells out of adata."
        )
        raise GroupError(msg)
    rows = []
    for i in range(len(names)):
        members = np.flatnonzero(codes == i)
        rng = np.random.default_rng([seed, i])
        rows.append(rng.choice(members, min(n_per_group, len(members)), replace=False))
    chosen = np.sort(np.concatenate(rows))
    return CellSample(names, chosen, codes[chosen])


def group_labels(adata: AnnData, groupby: str) -> pd.Categorical[object]:
    """Return a column of group names; refuse numeric and incomplete ones."""
    if groupby not in adata.obs:
        found = ", ".join(repr(name) for name in adata.obs.columns) or "none"
        msg = f"adata.obs has no column {groupby!r} (columns: {found}). Name one of them in groupby=, or leave it out to take all cells as one group."
        raise GroupError(msg)
    column = obs_column(adata, groupby)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        msg = (
            f"adata.obs[{groupby!r}] is numeric ({column.dtype}, {column.nunique()} distinct values); expected is a column of group names. "
            f"If its numbers name groups: adata.obs[{groupby!r}] = adata.obs[{groupby!r}].astype(str).astype('category')."
        )
        raise GroupError(msg)
    if n_missing := int(column.isna().sum()):
        msg = (
            f"adata.obs[{groupby!r}] is missing in {n_missing:,} of {adata.n_obs:,} cells. Fill it in, or pass only the cells that have "
            f"a group: adata[adata.obs[{groupby!r}].notna()].copy()."
        )
        raise GroupError(msg)
    categorical: pd.Categorical[object] = pd.Categorical(
        pd.Series(column)
    ).remove_unused_categories()
    return categorical
