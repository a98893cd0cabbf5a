"""Scores of marker genes by rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._docs import shared_docs
from sccello_tools.get import marker_genes_df

from ._figure import BLUE, despine, finish, panel_grid, save_path, shade

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KNOWN = "#d6457f"  # visible on white and on black


@shared_docs
def marker_genes(
    adata: AnnData,
    groups: str | Sequence[str] | None = None,
    *,
    key: str = _keys.MARKER_GENES,
    n_genes: int = 30,
    n_labels: int = 10,
    known: Mapping[str, Collection[str]] | None = None,
    gene_symbols: str | None = None,
    ncols: int = 3,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Scores of the highest ranked marker genes of each group.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.marker_genes`.
    groups
        Groups to draw; all if None.
    key
        Key of ``adata.uns`` with the marker genes.
    n_genes
        Number of genes per group.
    n_labels
        Number of genes that are labelled, from the highest ranked one.
    known
        Known marker genes of each group, as they are labelled; these are labelled and coloured at every rank.
    gene_symbols
        Column of ``adata.var`` with the symbols to write. If None, Ensembl ids get the symbol of the vocabulary.
    ncols
        Number of panels per row.
    %(figure)s

    Returns
    -------
    The figure with one panel per group, or None if it was shown.

    Raises
    ------
    NotFoundError
        If there are no marker genes with that key, no such group or no such column of symbols.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.marker_genes(adata, method="fast", n_cells_per_group=2, max_length=64)
    >>> figure = sccello.pl.marker_genes(adata, show=False)
    """
    path = save_path(save, "marker_genes")
    table = marker_genes_df(adata, groups, key=key, gene_symbols=gene_symbols)
    names = table["group"].cat.categories.tolist()
    figure, axes = panel_grid(len(names), ncols, (4.2, 3.1), figsize)
    for name, ax in zip(names, axes.flat):
        rows = table[table["group"] == name].head(n_genes)
        _draw_group(ax, rows, set((known or {}).get(name, ())), n_labels)
        ax.set_title(str(name), fontsize=10).set_parse_math(False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("Score")
    for ax in axes[-1]:
        ax.set_xlabel("Rank")
    return finish(figure, show=show, save=path, return_fig=return_fig)


def _draw_group(ax: Axes, rows: pd.DataFrame, known: set[str], n_labels: int) -> None:
    scores = rows["scores"].to_numpy(dtype=float)
    ranks = np.arange(1, len(scores) + 1)
    is_known = rows["symbol"].isin(known).to_numpy()
    ax.plot(ranks, scores, color=shade(ax, 0.2), lw=1, zorder=1)
    ax.scatter(ranks, scores, s=12, c=np.where(is_known, _KNOWN, BLUE), zorder=2)
    for rank, score, name, marked in zip(ranks, scores, rows["symbol"], is_known):
        if rank <= n_labels or marked:
            # vertical, so that labels of neighbouring ranks do not overlap
            ax.annotate(
                name,
                (rank, score),
                xytext=(0, 5),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=7,
                color=_KNOWN if marked else shade(ax, 0.8),
                fontweight="bold" if marked else "normal",
            )
    top = max(float(scores.max(initial=0)), 0.0) or 1.0
    low = min(0.0, float(scores.min(initial=0)))
    ax.set(xlim=(0, len(scores) + 1), ylim=(low, 1.45 * top))
    despine(ax)
