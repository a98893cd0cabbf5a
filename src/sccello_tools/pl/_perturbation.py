"""Perturbation effects: a volcano plot per group, or a matrix of perturbations by groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._docs import shared_docs
from sccello_tools._validation import check_choice
from sccello_tools.errors import ArgumentError
from sccello_tools.get import perturbation_df

from ._figure import (
    BLUE,
    axes_of,
    check_legend,
    despine,
    diverging,
    draw_legend,
    finish,
    panel_grid,
    save_path,
    shade,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Literal

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = ("auto", "volcano", "matrix")
_SIGNIFICANT = "#d6457f"  # visible on white and on black
_LABELS = {
    "log2_ratio": "$\\log_2$ (shift / median shift of random genes)",
    "toward": "Shift toward the target",
}
_MAX_LABEL = 30  # characters


@shared_docs
def perturbation(
    adata: AnnData,
    groups: str | Sequence[str] | None = None,
    *,
    key: str = _keys.PERTURBATION,
    kind: Literal["auto", "volcano", "matrix"] = "auto",
    value: Literal["auto", "log2_ratio", "toward"] = "auto",
    fdr: float = 0.05,
    n_labels: int = 10,
    n_perturbations: int = 40,
    gene_symbols: str | None = None,
    cmap: str | None = None,
    ncols: int = 3,
    legend_loc: str | None = "top margin",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Effects of perturbations on groups of cells.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.perturb`.
    groups
        Groups to draw; all if None.
    key
        Key of ``adata.uns`` with the result.
    kind
        ``"volcano"``: one panel per group, effect against significance. ``"matrix"``: perturbations by groups; colour is the effect,
        size the significance. ``"auto"``: a matrix for several groups, else a volcano plot.
    value
        Effect: the shift relative to random genes of similar rank (``"log2_ratio"``), or the shift in the direction of the target
        (``"toward"``). ``"auto"``: the latter if there is a target.
    fdr
        False discovery rate up to which perturbations are highlighted.
    n_labels
        Number of labelled perturbations per volcano plot, those with the largest effects.
    n_perturbations
        Maximum number of perturbations in a matrix, those with the largest effects.
    gene_symbols
        Column of ``adata.var`` with the symbols to write. If None, Ensembl ids get the symbol of the vocabulary.
    cmap
        Colormap of a matrix; if None, from blue by the background to red.
    ncols
        Number of volcano plots per row.
    legend_loc
        %(legend_loc)s ``"top margin"`` is above the axes of a matrix.
    ax
        %(ax)s For a matrix or a single group.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown.

    Raises
    ------
    ArgumentError
        If an option is unknown, ``ax`` is given for several volcano plots, or ``value="toward"`` without a target.
    NotFoundError
        If there is no result of that key, no such group or no such column of symbols.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> genes = ["ENSG00000254647", "ENSG00000115263"]  # INS, GCG
    >>> sccello.tl.perturb(adata, genes, groupby="donor", n_cells_per_group=3, max_length=64)
    >>> figure = sccello.pl.perturbation(adata, show=False)
    """
    loc = check_legend(legend_loc)
    path = save_path(save, "perturbation")
    check_choice("kind", kind, _KINDS)
    table = perturbation_df(adata, groups, key=key, gene_symbols=gene_symbols)
    check_choice("value", value, ("auto", *_LABELS))
    if value == "toward" and "toward" not in table:
        msg = "value='toward' requires a target. Call tl.perturb with toward=, or use value='log2_ratio'."
        raise ArgumentError(msg)
    column = ("toward" if "toward" in table else "log2_ratio") if value == "auto" else value
    pval, corrected = ("toward_pval", "toward_fdr") if column == "toward" else ("pval", "fdr")
    table = table.assign(
        effect=table[column].replace([np.inf, -np.inf], np.nan),
        significance=-np.log10(table[pval]),
        significant=table[corrected] <= fdr,
    )
    names = [str(name) for name in table["group"].cat.categories]
    if kind == "matrix" or (kind == "auto" and len(names) > 1):
        figure = _matrix(table, names, column, n_perturbations, cmap, loc, ax, figsize)
    else:
        figure = _volcanoes(table, names, column, n_labels, ncols, ax, figsize)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _volcanoes(
    table: pd.DataFrame,
    names: Sequence[str],
    column: str,
    n_labels: int,
    ncols: int,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
) -> Figure:
    if ax is not None and len(names) > 1:
        msg = f"ax holds one volcano plot, and there are {len(names)} groups. Pass one of groups=, or omit ax."
        raise ArgumentError(msg)
    if ax is not None or len(names) == 1:
        figure, one = axes_of(ax, figsize or (4.6, 3.8))
        axes = np.array([[one]])
    else:
        figure, axes = panel_grid(len(names), ncols, (3.6, 3.1), figsize)
    for name, drawn in zip(names, axes.flat):
        rows = table[(table["group"] == name) & table["effect"].notna()]
        _volcano(drawn, rows, n_labels)
        drawn.set_title(_short(name), fontsize=10).set_parse_math(False)
    for empty in axes.flat[len(names) :]:
        empty.set_axis_off()
    for first in axes[:, 0]:
        first.set_ylabel("$-\\log_{10}$ p")
    for last in axes[-1]:
        last.set_xlabel(_LABELS[column], fontsize=8)
    return figure


def _volcano(ax: Axes, rows: pd.DataFrame, n_labels: int) -> None:
    x = rows["effect"].to_numpy(dtype=float)
    y = np.nan_to_num(rows["significance"].to_numpy(dtype=float))
    colors = np.where(rows["significant"].to_numpy(), _SIGNIFICANT, BLUE)
    ax.axvline(0, color=shade(ax, 0.25), lw=0.8, zorder=0)
    ax.scatter(x, y, s=16, c=colors, linewidths=0, zorder=2)
    top = float(y.max(initial=0)) or 1.0
    low, high = min(0.0, float(x.min(initial=0))), max(0.0, float(x.max(initial=0)))
    margin = 0.08 * ((high - low) or 1.0)
    ax.set(xlim=(low - margin, high + margin), ylim=(-0.05 * top, 1.75 * top))
    # p-values have few distinct values, so labels are written side by side above the points and joined to them by lines
    chosen = np.argsort(-np.abs(x), kind="stable")[:n_labels]
    chosen = chosen[np.argsort(x[chosen], kind="stable")]
    for i, at in zip(chosen, np.linspace(low, high, 2 * len(chosen) + 1)[1::2]):
        ax.plot([x[i], x[i], at], [y[i], 1.08 * top, 1.18 * top], color=shade(ax, 0.35), lw=0.5, zorder=1)  # fmt: skip
        ax.text(
            at,
            1.2 * top,
            _short(rows["symbol"].iloc[i]),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            color=shade(ax, 0.85),
            parse_math=False,
        )
    despine(ax)


def _matrix(
    table: pd.DataFrame,
    names: Sequence[str],
    column: str,
    n_perturbations: int,
    cmap: str | None,
    loc: str,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
) -> Figure:
    largest = table.groupby("symbol", sort=False)["effect"].apply(
        lambda effects: effects.abs().max()
    )
    symbols = largest.sort_values(ascending=False, kind="stable").index[:n_perturbations].tolist()
    dots = table[table["symbol"].isin(symbols) & table["effect"].notna()]
    x = np.array([names.index(str(group)) for group in dots["group"]], dtype=float)
    y = np.array([symbols.index(symbol) for symbol in dots["symbol"]], dtype=float)
    effect = dots["effect"].to_numpy(dtype=float)
    limit = float(np.abs(effect).max(initial=0)) or 1.0
    significance = np.nan_to_num(dots["significance"].to_numpy(dtype=float))
    strongest = float(significance.max(initial=0)) or 1.0
    longest = max(map(len, map(_short, symbols)), default=0)
    width = 2.2 + 0.07 * longest + 0.32 * len(names)
    figure, drawn = axes_of(ax, figsize or (width, 1.6 + 0.24 * len(symbols)))
    edges = np.where(dots["significant"].to_numpy(), shade(drawn, 0.9), shade(drawn, 0.3))
    options: dict[str, Any] = {"cmap": cmap or diverging(drawn), "vmin": -limit, "vmax": limit}
    points = drawn.scatter(
        x,
        y,
        s=12 + 110 * significance / strongest,
        c=effect,
        edgecolors=edges.tolist(),
        linewidths=np.where(dots["significant"].to_numpy(), 1.0, 0.4).tolist(),
        zorder=2,
        **options,
    )
    drawn.set_xticks(range(len(names)), [_short(n) for n in names], rotation=90, fontsize=8)
    drawn.set_yticks(range(len(symbols)), [_short(s) for s in symbols], fontsize=8)
    for text in (*drawn.get_xticklabels(), *drawn.get_yticklabels()):
        text.set_parse_math(False)
    drawn.set(xlim=(-0.7, len(names) - 0.3), ylim=(len(symbols) - 0.3, -0.7))
    drawn.grid(color=shade(drawn, 0.1))
    drawn.set_axisbelow(True)
    despine(drawn)
    bar = figure.colorbar(points, ax=drawn, shrink=0.6, pad=0.02)
    bar.set_label(_LABELS[column], fontsize=8)
    handles = [
        drawn.scatter(
            [],
            [],
            s=12 + 110 * part,
            c=shade(drawn, 0.3),
            label=f"p = {10 ** (-part * strongest):.2g}",
        )
        for part in (0.5, 1.0)
    ]
    draw_legend(drawn, handles, loc, fontsize=7)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else name[: _MAX_LABEL - 1] + "…"
