"""Distribution of confidence and novelty and, with known labels, calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.columns import require_obs
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import GroupError
from sccello_tools.metrics import reliability, risk_coverage
from sccello_tools.ontology import CellOntology

from ._figure import (
    BLUE,
    STATUS_COLORS,
    check_legend,
    despine,
    draw_legend,
    finish,
    panel_grid,
    save_path,
    shade,
)
from .colors import category_colors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .colors import Palette


@shared_docs
def confidence(
    adata: AnnData,
    truth: str | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    ncols: int = 4,
    legend_loc: str | None = "upper right",
    palette: Palette | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Histograms of confidence and novelty and, with known labels, calibration and risk-coverage curves.

    A predicted term is correct if it is the true type, a subtype of it, or one of its ancestors.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.annotate_novel` or :func:`sccello_tools.tl.annotate`.
    truth
        Column of ``adata.obs`` with known cell types. If None, only the histograms are drawn.
    key
        ``key_added`` of the annotation.
    ncols
        Number of panels per row.
    legend_loc
        Location of the legend of the novelty histogram in matplotlib's terms, such as ``"upper right"``; None for no legend.
    palette
        %(palette)s Categories are the statuses ``"known"``, ``"novel_subtype"`` and ``"unknown"``.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown.

    Raises
    ------
    GroupError
        If the annotation or the known types do not exist.

    Notes
    -----
    Calibration error is the mean of abs(confidence - accuracy) over ten bins, weighted by their cells; the risk-coverage curve shows
    the error rate among the most confident cells. See :func:`sccello_tools.metrics.reliability` and
    :func:`sccello_tools.metrics.risk_coverage`.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> figure = sccello.pl.confidence(adata, "cell_type", show=False)
    """
    loc = check_legend(legend_loc)
    path = save_path(save, "confidence")
    remedy = "Call tl.annotate_novel(adata) first."
    column = require_obs(adata, key + _keys.CONFIDENCE_SUFFIX, argument="key", remedy=remedy)
    values = np.asarray(column, dtype=float)
    has_novelty = _keys.NOVELTY in adata.obs and key + _keys.STATUS_SUFFIX in adata.obs
    colors = category_colors(
        None, key, _keys.STATUSES, palette, [STATUS_COLORS[status] for status in _keys.STATUSES]
    )
    judged = None if truth is None else _judge(adata, truth, key, values)
    n_panels = 1 + has_novelty + 2 * (judged is not None)
    figure, axes = panel_grid(n_panels, ncols, (3.2, 3.1), figsize)
    for ax in axes.flat[n_panels:]:
        ax.remove()
    panels = iter(axes.flat)
    _draw_confidence(next(panels), values)
    if has_novelty:
        _draw_novelty(next(panels), adata, key, colors, loc)
    if judged is not None:
        is_judged, correct = judged
        _draw_calibration(next(panels), values[is_judged], correct)
        _draw_risk(next(panels), values[is_judged], correct)
    for ax in figure.axes:
        despine(ax)
    return finish(figure, show=show, save=path, return_fig=return_fig)


def _judge(
    adata: AnnData, truth: str, key: str, values: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which cells have a confidence and a known term, and whether the prediction is correct for each of them."""
    ontology = CellOntology.load()
    true, predicted = (type_column(adata, name, ontology) for name in (truth, key))
    table = np.zeros((len(true.terms), len(predicted.terms)), dtype=bool)
    for i, t in enumerate(true.terms):
        for j, p in enumerate(predicted.terms):
            table[i, j] = bool(t and p) and (
                t in ontology.ancestors(p, include_self=True) or p in ontology.ancestors(t)
            )
    judged = (true.codes >= 0) & (predicted.codes >= 0) & np.isfinite(values)
    judged &= np.isin(true.codes, [i for i, term in enumerate(true.terms) if term])
    if not judged.any():
        msg = (
            f"No cell has a confidence and a Cell Ontology term in both adata.obs[{truth!r}] and adata.obs[{key!r}]. Omit truth, or "
            "map the labels with pp.map_cell_types first."
        )
        raise GroupError(msg)
    return judged, table[true.codes[judged], predicted.codes[judged]]


def _draw_confidence(ax: Axes, values: NDArray[np.floating]) -> None:
    ax.hist(values[np.isfinite(values)], bins=np.linspace(0, 1, 21).tolist(), color=BLUE)
    ax.set(xlabel="Confidence", ylabel="Number of cells", title="Confidence", xlim=(0, 1))


def _draw_novelty(ax: Axes, adata: AnnData, key: str, colors: Sequence[str], loc: str) -> None:
    novelty = np.asarray(adata.obs[_keys.NOVELTY], dtype=float)
    status = np.asarray(adata.obs[key + _keys.STATUS_SUFFIX], dtype=str)
    parts = [novelty[np.isfinite(novelty) & (status == name)] for name in _keys.STATUSES]
    drawn = [(own, c, name) for own, c, name in zip(parts, colors, _keys.STATUSES) if len(own)]
    if not drawn:
        text: dict[str, Any] = {"ha": "center", "transform": ax.transAxes, "color": shade(ax, 0.6)}
        ax.text(0.5, 0.5, "no cell has a novelty", **text)
        ax.set(xticks=[], yticks=[], title="Novelty")
        return
    values, own_colors, names = zip(*drawn)
    ax.hist(values, bins=24, stacked=True, color=own_colors, label=names)
    ax.set(xlabel="Novelty (log odds)", ylabel="Number of cells", title="Novelty")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    draw_legend(ax, ax.get_legend_handles_labels()[0], loc)


def _draw_calibration(ax: Axes, values: NDArray[np.floating], correct: NDArray[np.bool_]) -> None:
    found = reliability(values, correct, n_bins=10)
    ax.plot([0, 1], [0, 1], color=shade(ax, 0.3), lw=1, zorder=1)
    sizes = 10 + 90 * found.n_cells / found.n_cells.max()
    ax.plot(found.confidence, found.accuracy, color=BLUE, lw=1.2, zorder=2)
    ax.scatter(found.confidence, found.accuracy, s=sizes, color=BLUE, zorder=3)
    ax.set(
        xlabel="Confidence",
        ylabel="Accuracy",
        title=f"Calibration error {found.error:.3f}",
        xlim=(0, 1.02),
        ylim=(0, 1.05),
    )


def _draw_risk(ax: Axes, values: NDArray[np.floating], correct: NDArray[np.bool_]) -> None:
    found = risk_coverage(values, correct)
    ax.plot(found.coverage, found.risk, color=BLUE)
    ax.set(
        xlabel="Coverage (most confident first)",
        ylabel="Error rate",
        title=f"AURC {found.area:.3f}",
        xlim=(0, 1.02),
        ylim=(0, max(0.05, 1.1 * float(found.risk.max()))),
    )
