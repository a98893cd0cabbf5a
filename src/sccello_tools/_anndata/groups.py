"""Groups of cells in a column of ``obs``, and samples of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._messages import listed
from sccello_tools._validation import check_at_least
from sccello_tools.errors import GroupError

from .columns import require_obs

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

ALL_CELLS = "all"  # name of the only group if there is no column


class CellSample(NamedTuple):
    """Some cells of each group."""

    names: tuple[str, ...]
    """Groups, in the order of their categories."""
    rows: NDArray[np.int64]
    """Rows of the AnnData in ascending order, shape (n_sampled,)."""
    group: NDArray[np.int64]
    """Index into ``names`` of each row, shape (n_sampled,)."""


def sample_cells(adata: AnnData, groupby: str | None, *, n_per_group: int, seed: int) -> CellSample:
    """Draw up to ``n_per_group`` cells of each group without replacement.

    Parameters
    ----------
    adata
        Annotated data.
    groupby
        Column of ``adata.obs``; None for one group of all cells.
    n_per_group
        Maximum number of cells per group.
    seed
        Seed of the draw. The sample of a group depends on its name and cells only, not on other groups or the order of categories.

    Raises
    ------
    ArgumentError
        If ``n_per_group`` is less than 2.
    GroupError
        If the column is missing, numeric or incomplete, or a group has fewer than two cells.
    """
    check_at_least("n_cells_per_group", n_per_group, 2)
    names: tuple[str, ...]
    if groupby is None:
        names, codes = (ALL_CELLS,), np.zeros(adata.n_obs, dtype=np.int64)
    else:
        labels = group_labels(adata, groupby)
        names = tuple(str(name) for name in labels.categories)
        codes = labels.codes.astype(np.int64)
    if not names or not adata.n_obs:
        msg = "adata has no cells, but each group needs at least two. Pass cells."
        raise GroupError(msg)
    counts = np.bincount(codes, minlength=len(names))
    if small := [f"{name!r} ({n})" for name, n in zip(names, counts) if n < 2]:
        where = "adata" if groupby is None else f"adata.obs[{groupby!r}]"
        msg = (
            f"{len(small)} of {len(names)} groups of {where} have fewer than two cells, which a mean over cells requires: "
            f"{listed(small)}. Merge such groups with others or remove their cells from adata."
        )
        raise GroupError(msg)
    rows = []
    for code, name in enumerate(names):
        members = np.flatnonzero(codes == code)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        rows.append(rng.choice(members, min(n_per_group, len(members)), replace=False))
    chosen = np.sort(np.concatenate(rows))
    return CellSample(names, chosen, codes[chosen])


def group_labels(adata: AnnData, groupby: str) -> pd.Categorical[object]:
    """Return a complete column of group names as a categorical without unused categories.

    Raises
    ------
    GroupError
        If the column is missing, numeric without being categorical, or has missing values.
    """
    column = require_obs(
        adata, groupby, argument="groupby", remedy="Omit groupby to use all cells as one group."
    )
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        msg = (
            f"adata.obs[{groupby!r}] is numeric ({column.dtype}, {column.nunique():,} distinct values), but group names are required. "
            f"If its numbers are names of groups, make it categorical: adata.obs[{groupby!r}] = adata.obs[{groupby!r}].astype('category')."
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
