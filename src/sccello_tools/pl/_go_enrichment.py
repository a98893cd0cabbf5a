"""Enriched Gene Ontology terms as a dot plot."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.columns import missing_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError

from ._figure import axes_of, check_legend, despine, draw_legend, finish, is_dark, save_path, shade

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WRAP = 46  # characters per line of a name
_COLUMNS = ("group", "go_id", "name", "study_count", "study_n", "fdr", "folded_into")


@shared_docs
def go_enrichment(
    table: pd.DataFrame,
    *,
    n_terms: int = 5,
    folded: bool = False,
    cmap: str | None = None,
    legend_loc: str | None = "top margin",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Dot plot of the most significant Gene Ontology terms of each group: size is the fraction of genes, colour the FDR.

    Parameters
    ----------
    table
        Result of :func:`sccello_tools.tl.enrich_go`.
    n_terms
        Number of terms per group. A term of several groups is drawn in each group where it is significant.
    folded
        Also draw terms that are represented by a more significant relative.
    cmap
        Colormap of the significance; if None, viridis from light to dark, or the reverse on a dark background.
    legend_loc
        %(legend_loc)s ``"top margin"`` is above the axes.
    ax
        %(ax)s
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown.

    Raises
    ------
    ArgumentError
        If the table is not a result of enrichment, or empty.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> table = sccello.tl.enrich_go(["CD3D", "CD3E", "CD3G", "LCK", "ZAP70", "LAT", "ITK", "CD2"])
    >>> figure = sccello.pl.go_enrichment(table, show=False)
    """
    loc = check_legend(legend_loc)
    path = save_path(save, "go_enrichment")
    if missing := [name for name in _COLUMNS if name not in table]:
        hint = "Pass the result of tl.enrich_go."
        raise ArgumentError(missing_column("The table", missing[0], table.columns, "table", hint))
    shown = table if folded else table[table["folded_into"] == ""]
    top = shown.groupby("group", observed=True, sort=False).head(n_terms)
    if not len(top):
        msg = "The table has no enriched term. Increase max_fdr or n_genes of tl.enrich_go."
        raise ArgumentError(msg)
    terms = list(dict.fromkeys(top["go_id"]))
    groups = [
        g for g in table["group"].astype("category").cat.categories if (top["group"] == g).any()
    ]
    dots = table[table["go_id"].isin(terms) & table["group"].isin(groups)]
    x = np.array([groups.index(g) for g in dots["group"]])
    y = np.array([terms.index(t) for t in dots["go_id"]])
    fraction = dots["study_count"].to_numpy(dtype=float) / dots["study_n"].to_numpy(dtype=float)
    significance = -np.log10(np.maximum(dots["fdr"].to_numpy(dtype=float), 1e-300))
    names = dict(zip(table["go_id"], table["name"]))
    labels = [textwrap.fill(str(names[term]), _WRAP) for term in terms]
    lines = sum(label.count("\n") + 1 for label in labels)
    size = figsize or (4.6 + 0.5 * len(groups), 1.4 + 0.22 * max(lines, len(terms)))
    figure, drawn = axes_of(ax, size)
    cmap = cmap or ("viridis" if is_dark(drawn) else "viridis_r")
    largest = float(fraction.max())
    edge: dict[str, Any] = {"edgecolors": shade(drawn, 0.7), "linewidths": 0.4}
    points = drawn.scatter(
        x, y, s=20 + 180 * fraction / largest, c=significance, cmap=cmap, zorder=2, **edge
    )
    drawn.set_xticks(
        range(len(groups)), [str(g) for g in groups], rotation=45, ha="right", fontsize=8
    )
    drawn.set_yticks(range(len(terms)), labels, fontsize=8)
    drawn.set(xlim=(-0.6, len(groups) - 0.4), ylim=(len(terms) - 0.4, -0.6))
    drawn.grid(color=shade(drawn, 0.1))
    drawn.set_axisbelow(True)
    despine(drawn)
    figure.colorbar(points, ax=drawn, label="$-\\log_{10}$ FDR", shrink=0.6, pad=0.02)
    handles = [
        drawn.scatter(
            [], [], s=20 + 180 * x, c=shade(drawn, 0.3), label=f"{x * largest:.0%} of genes", **edge
        )
        for x in (0.5, 1.0)
    ]
    draw_legend(drawn, handles, loc, fontsize=7)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)
