"""The panels of `drug_response`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from sccello_tools.metrics import response_score

from ._figures import figure_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_BLUE = "#4477aa"
# Paul Tol's bright colours, which colour-blind people tell apart
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
_UNIT = "ln IC$_{50}$ (µM)"
_MANY_BARS = 60  # more than that are drawn without names and gaps
_MANY_PAIRS = 3000  # more than that are drawn as a density


def heatmap(groups: pd.DataFrame, n_drugs: int, ax: Axes | None) -> Figure:
    """Drugs by groups: (n_groups, n_drugs) predictions, as differences from the drug's mean."""
    kept = groups.dropna(axis=0, how="all")
    spread = kept.std(axis=0).to_numpy()
    chosen = np.sort(np.argsort(-spread, kind="stable")[: max(1, n_drugs)])
    table = (kept - kept.mean(axis=0)).iloc[:, chosen].T
    table = table.iloc[_clustered(table.to_numpy()), _clustered(table.to_numpy().T)]
    ax, figure = _axes(ax, (2.9 + 0.34 * table.shape[1], 1.5 + 0.19 * len(table)))
    most = float(np.abs(table.to_numpy()).max()) or 1.0
    image = ax.imshow(table, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    ax.set_xticks(range(table.shape[1]), table.columns.tolist(), rotation=45, ha="right")
    ax.set_yticks(range(len(table)), table.index.tolist())
    ax.tick_params(length=0, labelsize=8)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(str(groups.index.name or "group"))
    bar = figure.colorbar(image, ax=ax, shrink=0.6, aspect=18)
    bar.set_label(f"{_UNIT}, less the drug's mean\n← more sensitive", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return figure


def waterfall(
    values: pd.Series[float],
    std: pd.Series[float],
    colours: pd.Series[str] | None,
    drug: str,
    label: str,
    ax: Axes | None,
) -> Figure:
    """Bars from the most to the least sensitive, around their mean."""
    order = np.argsort(values.to_numpy(), kind="stable")
    heights, names = values.to_numpy()[order], values.index.to_numpy()[order]
    few = len(heights) <= _MANY_BARS
    ax, figure = _axes(ax, (max(3.2, 1.4 + 0.3 * len(heights)) if few else 6.4, 3.4))
    middle = float(heights.mean())
    fills = [_BLUE] * len(heights)
    if colours is not None:
        kinds = sorted(colours.unique())
        colour_of = {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds)}
        fills = [colour_of[kind] for kind in colours.to_numpy()[order]]
    ax.bar(
        range(len(heights)),
        heights - middle,
        bottom=middle,
        width=0.75 if few else 1.0,
        color=fills,
        yerr=std.to_numpy()[order] if few else None,
        error_kw={"ecolor": "0.3", "elinewidth": 1, "capsize": 2},
    )
    ax.axhline(middle, color="0.3", lw=0.8)
    if few:
        ax.set_xticks(range(len(heights)), names.tolist(), rotation=45, ha="right")
    else:
        ax.set_xticks([])
        ax.set_xlim(-0.5, len(heights) - 0.5)
    ax.set(ylabel=f"predicted {_UNIT}", title=drug)
    ax.set_xlabel(label if few else f"{len(heights):,} {label}, most sensitive first")
    ax.spines[["top", "right"]].set_visible(False)
    if colours is not None:
        from matplotlib.patches import Patch

        patches = [Patch(color=colour, label=kind) for kind, colour in colour_of.items()]
        ax.legend(handles=patches, frameon=False, fontsize=7, loc="upper left")
    return figure


def measured(table: pd.DataFrame, drug: str | None, ax: Axes | None) -> Figure:
    """Predicted against measured responses of held-out pairs."""
    x, y = (table[name].to_numpy(dtype=np.float64) for name in ("measured", "predicted"))
    ax, figure = _axes(ax, (4.2, 3.9))
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    room = 0.03 * (high - low)
    if len(x) > _MANY_PAIRS:
        density = ax.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0)
        bar = figure.colorbar(density, ax=ax, shrink=0.6, aspect=18)
        bar.set_label("pairs", fontsize=8)
        bar.outline.set_visible(False)
    else:
        ax.scatter(x, y, s=9, color=_BLUE, alpha=0.5, lw=0)
    ax.plot([low, high], [low, high], color="0.4", lw=0.8)
    wide = table.pivot_table(index="cell_line", columns="drug", values=["measured", "predicted"])
    score = response_score(wide["measured"].to_numpy(), wide["predicted"].to_numpy())
    text = f"r = {score.pearson:.3f}"
    if drug is None and np.isfinite(score.pearson_by_drug):
        text += f"\nmean r by drug = {score.pearson_by_drug:.3f}"
    text += f"\nRMSE = {score.rmse:.2f}\n{score.n_pairs:,} pairs"
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8)
    ax.set(
        xlabel=f"measured {_UNIT}",
        ylabel=f"predicted {_UNIT}",
        title=drug or "Held-out pairs",
        xlim=(low - room, high + room),
        ylim=(low - room, high + room),
    )
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Axes, Figure]:
    if ax is not None:
        return ax, figure_of(ax)
    import matplotlib.pyplot as plt

    figure, own = plt.subplots(figsize=size, layout="constrained")
    return own, figure


def _clustered(rows: NDArray[np.floating]) -> NDArray[np.intp]:
    """Put like rows side by side."""
    if len(rows) < 3:
        return np.arange(len(rows))
    return leaves_list(linkage(rows, "average", optimal_ordering=True)).astype(np.intp)
