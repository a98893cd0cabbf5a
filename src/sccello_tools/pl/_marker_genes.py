"""Marker genes of each group, by rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._docs import shared_docs
from sccello_tools.get import marker_genes_df

from ._figures import finish
from ._gene_labels import gene_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_KNOWN, _OTHER = "#aa3377", "#4477aa"


@shared_docs
def marker_genes(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = _keys.MARKER_GENES,
    n_genes: int = 30,
    known: Mapping[str, Collection[str]] | None = None,
    symbols: str | None = None,
    n_names: int = 10,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw the scores of each group's highest ranked genes, by rank, with their names.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.marker_genes`.
    group
        Groups to draw; all if not given.
    key
        Key of ``adata.uns`` with the marker genes.
    n_genes
        Ranks to draw.
    known
        Known markers of each group, as they are named in the plot: these are named and coloured wherever they rank.
    symbols
        Column of ``adata.var`` with the names to write; ``var_names`` if not given, with symbols in place of Ensembl ids.
    n_names
        Genes that are named from the top, besides the known ones.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown: a panel a group.

    Raises
    ------
    KeyError
        If there are no marker genes of that key or group, or no such column of symbols.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.marker_genes(adata, method="fast", n_cells_per_group=2, max_length=64)
    >>> figure = sccello.pl.marker_genes(adata, show=False)
    """
    import matplotlib.pyplot as plt

    table = marker_genes_df(adata, group, key=key)
    called = gene_labels(adata, symbols)
    groups = table["group"].cat.categories.tolist()
    n_rows = -(-len(groups) // _COLUMNS)
    n_columns = min(_COLUMNS, len(groups))
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4.2 * n_columns, 3.1 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for name, ax in zip(groups, axes.flat):
        rows = table[table["group"] == name].head(n_genes)
        names = [called.get(gene, gene) for gene in rows["names"]]
        _panel(ax, rows, names, set((known or {}).get(name, ())), n_names)
        ax.set_title(str(name), fontsize=10)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("score")
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _panel(ax: Axes, rows: pd.DataFrame, names: list[str], known: set[str], n_names: int) -> None:
    scores = rows["scores"].to_numpy(dtype=float)
    ranks = np.arange(1, len(scores) + 1)
    is_known = np.array([name in known for name in names], dtype=bool)
    ax.plot(ranks, scores, color="0.8", lw=1, zorder=1)
    ax.scatter(ranks, scores, s=12, c=np.where(is_known, _KNOWN, _OTHER), zorder=2)
    top = float(scores.max()) if len(scores) and scores.max() > 0 else 1.0
    for rank, score, name, marked in zip(ranks, scores, names, is_known):
        if rank <= n_names or marked:
            # upright, above its point: as many fit as there are ranks
            ax.annotate(
                name,
                (rank, score),
                xytext=(0, 5),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=7,
                color=_KNOWN if marked else "0.2",
                fontweight="bold" if marked else "normal",
            )
    ax.set(
        xlabel="rank",
        xlim=(0, len(scores) + 1),
        ylim=(min(0.0, float(scores.min(initial=0))), 1.45 * top),
    )
    ax.spines[["top", "right"]].set_visible(False)
