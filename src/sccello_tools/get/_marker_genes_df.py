"""Marker genes as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import _keys
from sccello_tools.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

_FIELDS = (
    "names",
    "scores",
    "mean_scores",
    "logfoldchanges",
    "pvals",
    "pvals_adj",
    "shares",
    "reference_shares",
)


def marker_genes_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = _keys.MARKER_GENES,
    n_genes: int | None = None,
    max_pval_adj: float | None = None,
) -> pd.DataFrame:
    """Return the result of :func:`sccello_tools.tl.marker_genes` as a tidy table, one row for each group and gene.

    Parameters
    ----------
    adata
        Annotated data with marker genes.
    group
        One group or several; all if not given.
    key
        Key of ``adata.uns`` that they were written to.
    n_genes
        Only the highest ranked genes of each group.
    max_pval_adj
        Only genes with an adjusted p-value of at most this.

    Returns
    -------
    DataFrame with columns group, names, scores, mean_scores, logfoldchanges, pvals, pvals_adj, shares and reference_shares, by
    descending score within each group.

    Raises
    ------
    KeyError
        If there are no marker genes of that key, or there is no such group.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.marker_genes(adata, method="fast", n_cells_per_group=2, max_length=64)
    >>> sccello.get.marker_genes_df(adata, n_genes=3).shape
    (3, 9)
    """
    if key not in adata.uns or "mean_scores" not in adata.uns[key]:
        msg = f"adata.uns[{key!r}] holds no marker genes of this package. Call sccello.tl.marker_genes first, or name its key_added in key=."
        raise NotFoundError(msg)
    result = adata.uns[key]
    known = result["names"].dtype.names
    chosen = known if group is None else (group,) if isinstance(group, str) else tuple(group)
    if unknown := [name for name in chosen if name not in known]:
        msg = f"There is no group {unknown[0]!r} in adata.uns[{key!r}]; expected one of {', '.join(map(repr, known[:5]))}{', …' * (len(known) > 5)}."
        raise NotFoundError(msg)
    tables = []
    for name in chosen:
        table = pd.DataFrame({field: result[field][name] for field in _FIELDS})
        table.insert(0, "group", name)
        if max_pval_adj is not None:
            table = table[table["pvals_adj"] <= max_pval_adj]
        tables.append(table.head(n_genes) if n_genes is not None else table)
    joined = pd.concat(tables, ignore_index=True)
    joined["group"] = pd.Categorical(joined["group"], categories=list(chosen))
    return joined
