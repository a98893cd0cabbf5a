"""Enriched Gene Ontology terms as a dot plot."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError

from ._figures import figure_of, finish

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = 46  # letters of a name before it is wrapped
_NEEDED = ("group", "go_id", "name", "study_count", "study_n", "fdr", "folded_into")


@shared_docs
def go_enrichment(
    table: pd.DataFrame,
    *,
    n_terms: int = 5,
    folded: bool = False,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw the most significant terms of each group: dots sized by the share of genes, shaded by significance.

    Parameters
    ----------
    table
        What :func:`sccello_tools.tl.enrich_go` returned.
    n_terms
        Terms of each group; one that several groups have is drawn in each where it is in the table.
    folded
        Also draw terms that a more significant relative stands for.
    ax
        Where to draw; a figure of its own if not given.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown.

    Raises
    ------
    ValueError
        If the table is not one of enrichment, or empty.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> table = sccello.tl.enrich_go(["CD3D", "CD3E", "CD3G", "LCK", "ZAP70", "LAT", "ITK", "CD2"])
    >>> figure = sccello.pl.go_enrichment(table, show=False)
    """
    import matplotlib.pyplot as plt

    if missing := [name for name in _NEEDED if name not in table]:
        msg = f"The table has no column {missing[0]!r} (columns: {list(table.columns)}). Pass what tl.enrich_go returned."
        raise ArgumentError(msg)
    shown = table if folded else table[table["folded_into"] == ""]
    top = shown.groupby("group", observed=True, sort=False).head(n_terms)
    if not len(top):
        msg = "The table holds no enriched term. Raise max_fdr or n_genes of tl.enrich_go."
        raise ArgumentError(msg)
    terms = list(dict.fromkeys(top["go_id"]))
    groups = [
        g for g in table["group"].astype("category").cat.categories if (top["group"] == g).any()
    ]
    dots = table[table["go_id"].isin(terms) & table["group"].isin(groups)]
    x = np.array([groups.index(g) for g in dots["group"]])
    y = np.array([terms.index(t) for t in dots["go_id"]])
    share = dots["study_count"].to_numpy(dtype=float) / dots["study_n"].to_numpy(dtype=float)
    strength = -np.log10(np.maximum(dots["fdr"].to_numpy(dtype=float), 1e-300))
    names = dict(zip(table["go_id"], table["name"]))
    labels = [textwrap.fill(str(names[term]), _LINE) for term in terms]
    lines = sum(label.count("\n") + 1 for label in labels)
    own = ax is None
    if ax is None:
        size = (4.6 + 0.5 * len(groups), 1.4 + 0.22 * max(lines, len(terms)))
        figure, ax = plt.subplots(figsize=size, layout="constrained")
    else:
        figure = figure_of(ax)
    biggest = float(share.max())
    points = ax.scatter(
        x,
        y,
        s=20 + 180 * share / biggest,
        c=strength,
        cmap="viridis_r",
        edgecolors="0.3",
        linewidths=0.4,
    )
    ax.set_xticks(range(len(groups)), [str(g) for g in groups], rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(terms)), labels, fontsize=8)
    ax.set(xlim=(-0.6, len(groups) - 0.4), ylim=(len(terms) - 0.4, -0.6))
    ax.grid(color="0.93")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.colorbar(points, ax=ax, label="$-\\log_{10}$ FDR", shrink=0.6, pad=0.02)
    for level in (0.5, 1.0):
        ax.scatter(
            [],
            [],
            s=20 + 180 * level,
            c="0.7",
            edgecolors="0.3",
            linewidths=0.4,
            label=f"{level * biggest:.0%} of genes",
        )
    figure.legend(loc="outside lower right", frameon=False, fontsize=7, ncols=2)
    return finish(figure, show=show, save=save, return_fig=return_fig, own=own)
