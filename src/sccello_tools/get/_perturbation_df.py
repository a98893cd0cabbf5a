"""Perturbation effects as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools.errors import NotFoundError

from ._marker_genes_df import chosen_groups, symbols_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

_COLUMNS = (
    *("group", "perturbation", "symbol", "genes", "n_genes", "n_cells", "n_changed"),
    *("shift", "control_shift", "log2_ratio", "interaction", "pval", "fdr"),
    *("toward", "control_toward", "toward_pval", "toward_fdr"),
)


def perturbation_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = _keys.PERTURBATION,
    max_fdr: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Return the result of :func:`sccello_tools.tl.perturb` as a tidy table, one row per group and perturbation.

    Parameters
    ----------
    adata
        Annotated data with the result of ``tl.perturb``.
    group
        One group or several; by default all.
    key
        Key of ``adata.uns``.
    max_fdr
        Maximum false discovery rate.
    gene_symbols
        Column of ``adata.var`` with gene symbols. If None, Ensembl ids get the symbol of the vocabulary.

    Returns
    -------
    DataFrame, largest shift first within each group, with columns

    - group, perturbation, symbol (the perturbation with symbols of its genes), genes (separated by commas), n_genes
    - n_cells, n_changed: sampled cells, and those whose tokens the perturbation changes
    - shift, control_shift: mean ``1 - cosine`` of the changed cells, and the median of this mean over random genes of similar rank
    - log2_ratio: log2 of shift over control_shift
    - interaction: shift of a set minus the sum of the shifts of its genes, if these were perturbed, too
    - pval, fdr: shift against random genes (one-sided), Benjamini-Hochberg correction within the group
    - toward, control_toward, toward_pval, toward_fdr: with ``toward=``, the component in the direction of the target (two-sided test)

    Raises
    ------
    NotFoundError
        If there is no result of that key, no such group or no such column of symbols.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> genes = ["ENSG00000254647", "ENSG00000115263"]  # INS, GCG
    >>> sccello.tl.perturb(adata, genes, n_cells_per_group=20, max_length=64)
    >>> sorted(sccello.get.perturbation_df(adata)["symbol"])
    ['GCG', 'INS']
    """
    record = adata.uns.get(key, {})
    if "table" not in record or "shift" not in record["table"]:
        msg = f"adata.uns[{key!r}] has no perturbation result. Call tl.perturb first, or pass its key_added as key=."
        raise NotFoundError(msg)
    table = pd.DataFrame({name: np.asarray(values) for name, values in record["table"].items()})
    for name in ("group", "perturbation", "genes"):
        table[name] = table[name].astype(str)
    chosen = chosen_groups(list(dict.fromkeys(table["group"])), group, key=key)
    symbol_of = symbols_of(adata, gene_symbols)
    table["symbol"] = [
        "+".join(symbol_of.get(gene, gene) for gene in genes.split(","))
        if name == genes.replace(",", "+")
        else name
        for name, genes in zip(table["perturbation"], table["genes"])
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        table["log2_ratio"] = np.log2(table["shift"] / table["control_shift"])
    # files return the columns in alphabetical order
    table = table.loc[table["group"].isin(chosen), [name for name in _COLUMNS if name in table]]
    if max_fdr is not None:
        table = table[table["fdr"] <= max_fdr]
    table = table.copy()
    table["group"] = pd.Categorical(table["group"], categories=chosen)
    return table.sort_values(
        ["group", "shift"], ascending=[True, False], kind="stable", ignore_index=True
    )
