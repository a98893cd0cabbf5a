"""Predicted drug response: drugs by groups, groups or cells of one drug, predicted against measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import missing_column, require_obs
from sccello_tools._docs import shared_docs
from sccello_tools._messages import quoted
from sccello_tools._validation import check_choice
from sccello_tools.errors import ArgumentError, DrugError, NotFoundError
from sccello_tools.get import drug_response_df
from sccello_tools.metrics import response_score

from ._figure import BLUE, axes_of, check_legend, despine, draw_legend, finish, save_path, shade
from .colors import category_colors

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Literal

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .colors import Palette

_KINDS = ("auto", "heatmap", "waterfall", "measured")
_MEASURED = ("drug", "measured", "predicted")
_UNIT = "ln IC$_{50}$ (µM)"
_MAX_BARS = 60  # more bars are drawn without names and gaps
_MAX_POINTS = 3000  # more pairs are drawn as a density
_TABLE = "Pass model.validation, as tl.train_drug_response(data, split=...) returns it."


class _Bars(NamedTuple):
    """Predictions of one drug."""

    mean: pd.Series[float]
    std: pd.Series[float]
    label: str


@shared_docs
def drug_response(
    adata: AnnData | pd.DataFrame,
    drug: str | None = None,
    *,
    kind: Literal["auto", "heatmap", "waterfall", "measured"] = "auto",
    key: str = _keys.DRUG_RESPONSE,
    color: str | None = None,
    n_drugs: int = 30,
    cmap: str = "RdBu",
    legend_loc: str | None = "upper left",
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Predicted drug response as a heat map of groups, a waterfall plot of one drug, or predicted against measured values.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.drug_response`; or the table ``validation`` of a trained model, to compare
        predicted with measured values.
    drug
        One drug, in upper or lower case: required for a waterfall plot; with measured values only its pairs are shown.
    kind
        ``"heatmap"``: drugs by groups, relative to the mean of each drug. ``"waterfall"``: groups or cells in ascending order of
        their ln IC50. ``"measured"``: predicted against measured values. ``"auto"`` follows from ``adata`` and ``drug``.
    key
        ``key_added`` of the prediction.
    color
        Column of ``adata.obs`` that colours the cells of a waterfall plot.
    n_drugs
        Number of drugs in a heat map, those whose predictions differ most between groups.
    cmap
        Colormap of the heat map.
    legend_loc
        %(legend_loc)s
    palette
        %(palette)s
    ax
        %(ax)s
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown. Nothing is written to ``adata``.

    Raises
    ------
    NotFoundError
        If there is no prediction, or no column ``color``.
    DrugError
        If ``drug`` is required or unknown.
    ArgumentError
        If an argument is invalid or does not fit the data.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.drug_response(adata, groupby="cell_type")
    >>> figure = sccello.pl.drug_response(adata, show=False)
    >>> figure = sccello.pl.drug_response(adata, "bortezomib", show=False)
    """
    loc = check_legend(legend_loc)
    path = save_path(save, "drug_response")
    check_choice("kind", kind, _KINDS)
    if isinstance(adata, pd.DataFrame):
        if kind not in {"auto", "measured"}:
            msg = f"kind={kind!r} needs an AnnData with predictions; a table of held-out pairs is drawn with kind='measured'"
            raise ArgumentError(msg)
        figure = _draw_measured(_pairs(adata, drug), ax, figsize)
    elif kind == "measured":
        msg = f"kind='measured' needs measured values. {_TABLE}"
        raise ArgumentError(msg)
    elif kind == "waterfall" or (kind == "auto" and drug is not None):
        bars = _of_one_drug(adata, drug, key)
        groups = None if color is None else _groups(adata, bars, color)
        if groups is None:
            colors: list[str] = []
        else:
            names = [str(name) for name in groups.categories]
            colors = category_colors(adata, str(color), names, palette)
        figure = _draw_waterfall(bars, groups, colors, loc, ax, figsize)
    else:
        table = drug_response_df(adata, key=key)
        if len(table) < 2:
            msg = f"A heat map compares at least 2 groups, got {len(table)}. Pass a drug for a waterfall plot."
            raise ArgumentError(msg)
        figure = _draw_heatmap(table, n_drugs, cmap, ax, figsize)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _pairs(table: pd.DataFrame, drug: str | None) -> pd.DataFrame:
    """Measured and predicted values, of one drug or all."""
    if missing := [name for name in _MEASURED if name not in table]:
        raise NotFoundError(missing_column("The table", missing[0], table.columns, "adata", _TABLE))
    if drug is None:
        return table
    return table[table["drug"] == _drug_name(drug, table["drug"].unique().tolist())]


def _drug_name(drug: str | None, known: list[str]) -> str:
    """Return a drug as it is spelt in the prediction, whatever its case."""
    if drug in known and drug is not None:
        return drug
    alike = [name for name in known if drug is not None and name.lower() == drug.lower()]
    if len(alike) == 1:
        return alike[0]
    shown = quoted(known)
    asked = (
        "A waterfall plot needs a drug" if drug is None else f"There is no prediction for {drug!r}"
    )
    msg = f"{asked}. Pass one of the {len(known)} drugs: {shown}."
    raise DrugError(msg)


def _of_one_drug(adata: AnnData, drug: str | None, key: str) -> _Bars:
    """Predictions and standard deviations of groups or, without groups, of cells."""
    if "ln_ic50" in adata.uns.get(key, {}):
        mean, std = (drug_response_df(adata, key=key, std=s) for s in (False, True))
        label = str(mean.index.name)
    elif key in adata.obsm:
        mean, std = (cast(pd.DataFrame, adata.obsm[k]) for k in (key, key + _keys.STD_SUFFIX))
        label = "cells"
    else:
        msg = f"adata has no drug response {key!r}. Call tl.drug_response(adata) first."
        raise NotFoundError(msg)
    name = _drug_name(drug, [str(column) for column in mean.columns])
    kept = np.isfinite(mean[name])
    if not kept.any():
        msg = f"All predictions for {name!r} are NaN: no cell has counts in the genes of the model."
        raise NotFoundError(msg)
    return _Bars(mean.loc[kept, name], std.loc[kept, name], label)


def _groups(adata: AnnData, bars: _Bars, color: str) -> pd.Categorical[Any]:
    column = require_obs(adata, color, argument="color", error=NotFoundError)
    if not bars.mean.index.isin(adata.obs_names).all():
        msg = f"color={color!r} applies to cells, but the predictions are of groups. Omit color, or call tl.drug_response(adata) without groupby."
        raise ArgumentError(msg)
    return pd.Categorical(column.loc[bars.mean.index]).remove_unused_categories()


def _draw_heatmap(
    groups: pd.DataFrame, n_drugs: int, cmap: str, ax: Axes | None, figsize: Any
) -> Figure:
    """Drugs by groups, as differences from the mean of the drug."""
    kept = groups.dropna(axis=0, how="all")
    spread = kept.std(axis=0).to_numpy()
    chosen = np.sort(np.argsort(-spread, kind="stable")[: max(1, n_drugs)])
    table = (kept - kept.mean(axis=0)).iloc[:, chosen].T
    table = table.iloc[_clustered(table.to_numpy()), _clustered(table.to_numpy().T)]
    size = figsize or (2.9 + 0.34 * table.shape[1], 1.5 + 0.19 * len(table))
    figure, ax = axes_of(ax, size)
    limit = float(np.abs(table.to_numpy()).max()) or 1.0
    image = ax.imshow(table, cmap=cmap, vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(range(table.shape[1]), table.columns.tolist(), rotation=45, ha="right")
    ax.set_yticks(range(len(table)), table.index.tolist())
    ax.tick_params(length=0, labelsize=8)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(str(groups.index.name or "group"))
    bar = figure.colorbar(image, ax=ax, shrink=0.6, aspect=18)
    bar.set_label(f"{_UNIT} - mean of the drug\n← more sensitive", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return figure


def _clustered(rows: NDArray[np.floating]) -> NDArray[np.intp]:
    """Order of the leaves of average-linkage clustering."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(rows) < 3:
        return np.arange(len(rows))
    return leaves_list(linkage(rows, "average", optimal_ordering=True)).astype(np.intp)


def _draw_waterfall(
    bars: _Bars,
    groups: pd.Categorical[Any] | None,
    colors: list[str],
    loc: str,
    ax: Axes | None,
    figsize: Any,
) -> Figure:
    """Bars in ascending order, around their mean."""
    order = np.argsort(bars.mean.to_numpy(), kind="stable")
    heights, names = bars.mean.to_numpy()[order], bars.mean.index.to_numpy()[order]
    few = len(heights) <= _MAX_BARS
    size = figsize or (max(3.2, 1.4 + 0.3 * len(heights)) if few else 6.4, 3.4)
    figure, ax = axes_of(ax, size)
    middle = float(heights.mean())
    fills = [BLUE] * len(heights)
    if groups is not None:
        fills = [[*colors, shade(ax, 0.3)][code] for code in groups.codes[order]]
    ax.bar(
        range(len(heights)),
        heights - middle,
        bottom=middle,
        width=0.75 if few else 1.0,
        color=fills,
        yerr=bars.std.to_numpy()[order] if few else None,
        error_kw={"ecolor": shade(ax, 0.7), "elinewidth": 1, "capsize": 2},
    )
    ax.axhline(middle, color=shade(ax, 0.7), lw=0.8)
    if few:
        ax.set_xticks(range(len(heights)), names.tolist(), rotation=45, ha="right")
    else:
        ax.set_xticks([])
        ax.set_xlim(-0.5, len(heights) - 0.5)
    ax.set(ylabel=f"predicted {_UNIT}", title=bars.mean.name)
    ax.set_xlabel(bars.label if few else f"{len(heights):,} {bars.label}, most sensitive first")
    despine(ax)
    if groups is not None:
        from matplotlib.patches import Patch

        handles = [Patch(color=c, label=str(g)) for c, g in zip(colors, groups.categories)]
        draw_legend(ax, handles, loc, fontsize=7)
    return figure


def _draw_measured(table: pd.DataFrame, ax: Axes | None, figsize: Any) -> Figure:
    """Predicted against measured values of held-out pairs."""
    x, y = (table[name].to_numpy(dtype=np.float64) for name in ("measured", "predicted"))
    figure, ax = axes_of(ax, figsize or (4.2, 3.9))
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.03 * (high - low)
    if len(x) > _MAX_POINTS:
        density = ax.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0)
        bar = figure.colorbar(density, ax=ax, shrink=0.6, aspect=18)
        bar.set_label("pairs", fontsize=8)
        bar.outline.set_visible(False)
    else:
        ax.scatter(x, y, s=9, color=BLUE, alpha=0.7, lw=0)
    ax.plot([low, high], [low, high], color=shade(ax, 0.6), lw=0.8)
    wide = table.pivot_table(index="cell_line", columns="drug", values=["measured", "predicted"])
    score = response_score(wide["measured"].to_numpy(), wide["predicted"].to_numpy())
    drugs = table["drug"].unique()
    lines = [f"Pearson r = {score.pearson:.3f}"]
    if len(drugs) > 1 and np.isfinite(score.pearson_by_drug):
        lines.append(f"mean r per drug = {score.pearson_by_drug:.3f}")
    lines += [f"RMSE = {score.rmse:.2f}", f"{score.n_pairs:,} pairs"]
    ax.text(0.03, 0.97, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=8)
    ax.set(
        xlabel=f"measured {_UNIT}",
        ylabel=f"predicted {_UNIT}",
        title=str(drugs[0]) if len(drugs) == 1 else "Held-out pairs",
        xlim=(low - margin, high + margin),
        ylim=(low - margin, high + margin),
    )
    despine(ax)
    return figure
