"""UMAPs of several embeddings of the same cells, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._anndata.columns import require_obs
from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, NotFoundError

from ._figure import (
    check_legend,
    draw_legend,
    figure_of,
    finish,
    legend_width,
    named_keys,
    save_path,
)
from ._umap import (
    MAP,
    category_handles,
    centers,
    compute_umap,
    draw_cells,
    label_centers,
    label_width,
    rgba,
)
from .colors import UNKNOWN, category_colors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sccello_tools._random import RNGLike

    from .colors import Palette


@shared_docs
def compare_embeddings(
    adata: AnnData,
    keys: Sequence[str] | Mapping[str, str],
    *,
    color: str,
    n_neighbors: int = 15,
    rng: RNGLike = 0,
    legend_loc: str | None = "right margin",
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """UMAP of several embeddings of the same cells, coloured by the same column.

    The UMAPs are computed for the figure; nothing is written to ``adata``.

    Parameters
    ----------
    adata
        Annotated data with the embeddings in ``obsm``.
    keys
        Keys of ``adata.obsm``, one panel each; a mapping gives their titles. Cells with NaN are omitted from a panel.
    color
        Column of ``adata.obs`` with groups, such as cell types or batches.
    n_neighbors
        Number of neighbours of UMAP.
    rng
        Seed or random generator of UMAP.
    legend_loc
        %(legend_loc)s ``"on data"`` writes the names beside the cells.
    palette
        %(palette)s
    ax
        %(ax)s Only with one key.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown.

    Raises
    ------
    NotFoundError
        If an embedding or the column does not exist.
    ArgumentError
        If an argument is invalid.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    >>> sccello.tl.embed(adata)
    >>> figure = sccello.pl.compare_embeddings(adata, ["X_sccello"], color="cell_type", show=False)
    """
    import matplotlib.pyplot as plt

    loc = check_legend(legend_loc, "on data")
    path = save_path(save, "compare_embeddings")
    titles = named_keys(adata, keys)
    if np.ndim(color):
        msg = f"color must be one column of adata.obs, because the panels are the embeddings; got {color!r}"
        raise ArgumentError(msg)
    if ax is not None and len(titles) > 1:
        msg = f"ax has room for one embedding, keys has {len(titles)}. Omit ax, or pass one key."
        raise ArgumentError(msg)
    column = pd.Categorical(require_obs(adata, color, argument="color", error=NotFoundError))
    names, codes = [str(name) for name in column.categories], np.asarray(column.codes)
    colors = category_colors(adata, color, names, palette)
    # computed before a figure is created, which an error would leave open
    maps = {
        key: compute_umap(np.asarray(adata.obsm[key]), n_neighbors=n_neighbors, rng=rng)
        for key in titles
    }
    if ax is None:
        extra = {"on data": len(maps) * label_width(names)}
        extra["right margin"] = legend_width(names, MAP)
        size = figsize or (MAP * len(maps) + extra.get(loc, 0), MAP)
        figure, axes = plt.subplots(1, len(maps), figsize=size, layout="constrained", squeeze=False)
        panels = list(axes[0])
    else:
        figure, panels = figure_of(ax), [ax]
    for (key, points), panel in zip(maps.items(), panels):
        draw_cells(panel, points, rgba(codes, colors, UNKNOWN))
        panel.set_title(titles[key], fontsize=11)
        if loc == "on data":
            label_centers(panel, dict(enumerate(names)), centers(points, codes, len(names)))
    if loc != "on data":
        draw_legend(panels[-1], category_handles(codes, names, colors, UNKNOWN), loc)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)
