"""Marker genes as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import missing_column
from sccello_tools._messages import quoted
from sccello_tools.errors import NotFoundError
from sccello_tools.tokens import GeneVocabulary

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
    "fractions",
    "reference_fractions",
)


def marker_genes_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = _keys.MARKER_GENES,
    gene_symbols: str | None = None,
    n_genes: int | None = None,
    max_pval_adj: float | None = None,
) -> pd.DataFrame:
    """Return the result of :func:`sccello_tools.tl.marker_genes` as a tidy table, one row per group and gene.

    Parameters
    ----------
    adata
        Annotated data with marker genes.
    group
        One group or several; all if None.
    key
        Key of ``adata.uns`` with the marker genes.
    gene_symbols
        Column of ``adata.var`` with gene symbols. If None, Ensembl ids get the symbol of the vocabulary.
    n_genes
        Only this many of the highest ranked genes per group.
    max_pval_adj
        Only genes with an adjusted p-value of at most this.

    Returns
    -------
    DataFrame with the columns group, names, symbol, scores, mean_scores, logfoldchanges, pvals, pvals_adj, fractions and
    reference_fractions, by descending score within each group.

    Raises
    ------
    NotFoundError
        If there are no marker genes with that key, no such group or no such column of symbols.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.marker_genes(adata, method="fast", n_cells_per_group=2, max_length=64)
    >>> sccello.get.marker_genes_df(adata, n_genes=3).shape
    (3, 10)
    """
    if key not in adata.uns or "mean_scores" not in adata.uns[key]:
        msg = f"adata.uns[{key!r}] does not contain the result of tl.marker_genes. Call tl.marker_genes first, or pass its key_added as key=."
        raise NotFoundError(msg)
    result = adata.uns[key]
    chosen = chosen_groups(result["names"].dtype.names, group, key=key)
    symbol_of = symbols_of(adata, gene_symbols)
    tables = []
    for name in chosen:
        table = pd.DataFrame({field: result[field][name] for field in _FIELDS})
        table.insert(0, "group", name)
        table.insert(2, "symbol", [symbol_of.get(str(gene), str(gene)) for gene in table["names"]])
        if max_pval_adj is not None:
            table = table[table["pvals_adj"] <= max_pval_adj]
        tables.append(table.head(n_genes) if n_genes is not None else table)
    joined = pd.concat(tables, ignore_index=True)
    joined["group"] = pd.Categorical(joined["group"], categories=chosen)
    return joined


def chosen_groups(
    known: Sequence[str], group: str | Sequence[str] | None, *, key: str
) -> list[str]:
    """Return the requested groups of the result in ``uns[key]``, by default all of them.

    Raises
    ------
    NotFoundError
        If one does not exist.
    """
    if group is None:
        return list(known)
    chosen = [group] if isinstance(group, str) else [str(name) for name in group]
    if unknown := [name for name in chosen if name not in known]:
        msg = f"adata.uns[{key!r}] has no group {unknown[0]!r} (groups: {quoted(known)})."
        raise NotFoundError(msg)
    return chosen


def symbols_of(adata: AnnData, gene_symbols: str | None) -> dict[str, str]:
    """Return the symbol of each of the names of variables, also of ``adata.raw``, without version numbers of Ensembl ids."""
    tables = [adata.var] if adata.raw is None else [adata.raw.var, adata.var]
    if gene_symbols is None:
        known = GeneVocabulary.load().symbol_of
        names = [str(name) for table in tables for name in table.index]
        return {name: known.get(name.partition(".")[0], name) for name in names}
    if gene_symbols not in adata.var:
        hint = "Omit it to use var_names."
        msg = missing_column("adata.var", gene_symbols, adata.var.columns, "gene_symbols", hint)
        raise NotFoundError(msg)
    return {
        str(name): str(symbol)
        for table in tables
        if gene_symbols in table
        for name, symbol in zip(table.index, table[gene_symbols])
    }
