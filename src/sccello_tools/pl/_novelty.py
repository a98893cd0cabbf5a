"""UMAP coloured by novelty and by status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import require_obs
from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, NotFoundError

from ._figure import STATUS_COLORS, check_legend, draw_legend, figure_of, finish, save_path
from ._umap import MAP, category_handles, coordinates, draw_cells, rgba
from .colors import UNKNOWN, category_colors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .colors import Palette

_PANELS = ("novelty", "status")


@shared_docs
def novelty(
    adata: AnnData,
    color: str | Sequence[str] = ("novelty", "status"),
    *,
    key: str = _keys.CELL_TYPE,
    basis: str = "X_umap",
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    legend_loc: str | None = "right margin",
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """UMAP coloured by novelty and by status, to find groups of cells that the model does not know.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.annotate_novel`.
    color
        What to show: ``"novelty"``, ``"status"`` or both, one panel each.
    key
        ``key_added`` of the annotation.
    basis
        Key of ``adata.obsm`` with two dimensions. ``"X_umap"`` is computed from ``"X_sccello"`` if it does not exist.
    cmap
        Colormap of novelty.
    vmin, vmax
        Limits of the colormap; the 1st and 99th percentile if None.
    legend_loc
        %(legend_loc)s
    palette
        %(palette)s Categories are ``"known"``, ``"novel_subtype"`` and ``"unknown"``.
    ax
        %(ax)s Only with one panel.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown. `adata.obsm["X_umap"]` is written if it does not exist.

    Raises
    ------
    NotFoundError
        If the annotation, or a basis and an embedding to compute it from, do not exist.
    ArgumentError
        If an argument is invalid.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> figure = sccello.pl.novelty(adata, show=False)
    """
    import matplotlib.pyplot as plt

    loc = check_legend(legend_loc)
    path = save_path(save, "novelty")
    shown = [color] if isinstance(color, str) else list(color)
    if not shown or set(shown) - set(_PANELS):
        msg = f"color must be 'novelty', 'status' or both, got {color!r}"
        raise ArgumentError(msg)
    if ax is not None and len(shown) > 1:
        msg = "ax has room for one panel. Omit ax, or pass color='novelty' or 'status'."
        raise ArgumentError(msg)
    values, status = (
        require_obs(
            adata,
            name,
            argument="key",
            error=NotFoundError,
            remedy="Call tl.annotate_novel(adata) first.",
        )
        for name in (_keys.NOVELTY, key + _keys.STATUS_SUFFIX)
    )
    points = coordinates(adata, basis)
    if ax is None:
        widths = [
            MAP + (0.9 if name == "novelty" else 1.9 * (loc == "right margin")) for name in shown
        ]
        figure, axes = plt.subplots(
            1,
            len(shown),
            figsize=figsize or (sum(widths), MAP),
            width_ratios=widths,
            layout="constrained",
            squeeze=False,
        )
        panels = list(axes[0])
    else:
        figure, panels = figure_of(ax), [ax]
    for name, panel in zip(shown, panels):
        if name == "novelty":
            _draw_novelty(panel, points, np.asarray(values, dtype=float), cmap, vmin, vmax, basis)
        else:
            names = list(_keys.STATUSES)
            codes = np.asarray(pd.Categorical(status, categories=names).codes)
            colors = category_colors(None, key, names, palette, list(STATUS_COLORS.values()))
            draw_cells(panel, points, rgba(codes, colors, UNKNOWN), basis=basis)
            panel.set_title("Status", fontsize=11)
            draw_legend(panel, category_handles(codes, names, colors, UNKNOWN), loc)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _draw_novelty(
    ax: Axes,
    points: NDArray[np.floating],
    values: NDArray[np.floating],
    cmap: str,
    vmin: float | None,
    vmax: float | None,
    basis: str,
) -> None:
    """Cells in ascending order of novelty, so that the most novel ones are on top; cells without a value are grey."""
    import matplotlib as mpl

    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1, 99)) if len(finite) else (0.0, 1.0)
    limits = mpl.colors.Normalize(low if vmin is None else vmin, high if vmax is None else vmax)
    scale = mpl.cm.ScalarMappable(limits, cmap)
    colors = scale.to_rgba(values)
    colors[~np.isfinite(values)] = mpl.colors.to_rgba(UNKNOWN)
    order = np.argsort(np.where(np.isfinite(values), values, -np.inf), kind="stable")
    draw_cells(ax, points, colors, basis=basis, order=order)
    ax.set_title("Novelty", fontsize=11)
    bar = figure_of(ax).colorbar(scale, ax=ax, shrink=0.6, aspect=20, pad=0.02)
    bar.set_label("Novelty (log odds)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
