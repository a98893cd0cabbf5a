"""UMAPs of several embeddings of the same cells, side by side."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, NotFoundError

from ._figures import finish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe and Ito's colours, which colour-blind readers tell apart; more groups than colours fall back to a longer list
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#000000")
_MARGIN = 0.04
_FEWEST_CELLS = 4
_SPECTRAL_CELLS = 10


@shared_docs
def compare_embeddings(
    adata: AnnData,
    keys: Sequence[str],
    *,
    color: str,
    titles: Mapping[str, str] | None = None,
    n_neighbors: int = 15,
    seed: int = 0,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw the UMAP of several embeddings side by side, coloured by the same column.

    The UMAPs are computed for the picture alone; nothing is written to ``adata``.

    Parameters
    ----------
    adata
        Annotated data with the embeddings in ``obsm``.
    keys
        Keys of ``adata.obsm``, one panel each. Cells with NaN are left out of that panel.
    color
        Column of ``adata.obs`` with groups, such as cell types.
    titles
        Title of a panel by key; the key itself if not given.
    n_neighbors
        Neighbours that UMAP looks at.
    seed
        Seed of UMAP.
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
    KeyError
        If an embedding or the column is missing. The message lists those there are.
    ValueError
        If no key is given, or an embedding has fewer than four cells without NaN.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    >>> sccello.tl.embed(adata)
    >>> figure = sccello.pl.compare_embeddings(adata, ["X_sccello"], color="cell_type", show=False)
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import PathCollection

    if isinstance(keys, str) or not keys:
        msg = f"keys is {keys!r}; expected is a list with at least one key of adata.obsm"
        raise ArgumentError(msg)
    for key in keys:
        if key not in adata.obsm:
            msg = f"adata.obsm has no {key!r} (keys: {list(adata.obsm)}). Call tl.embed first."
            raise NotFoundError(msg)
    if color not in adata.obs:
        msg = f"adata.obs has no column {color!r} (columns: {list(adata.obs.columns)})."
        raise NotFoundError(msg)
    groups = np.array(adata.obs[color].astype(str), dtype=str)
    names, counts = np.unique(groups, return_counts=True)
    order = [str(name) for name in names[np.argsort(-counts, kind="stable")]]

    # before a figure is made, which an error would leave open
    maps = [_umap(np.asarray(adata.obsm[key]), n_neighbors, seed, key) for key in keys]
    figure, axes = plt.subplots(
        1, len(keys), figsize=(5.2 * len(keys), 5.2), layout="constrained", squeeze=False
    )
    for key, points, ax in zip(keys, maps, axes[0]):
        _scatter(ax, points, groups, order)
        ax.set_title((titles or {}).get(key, key), fontsize=11)
    handles, labels = axes[0][0].get_legend_handles_labels()
    # as many columns as fit: a letter is about 0.08 inches wide, the mark and the gaps 0.6
    column = 0.08 * max(map(len, labels)) + 0.6
    n_columns = max(1, min(len(order), int(figure.get_figwidth() / column)))
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=n_columns, frameon=False
    )
    for mark in legend.legend_handles:
        if isinstance(mark, PathCollection):  # as all are: the handles come from `scatter`
            mark.set_sizes([30])  # points of many cells are too small to tell their colour
    return finish(figure, show=show, save=save, return_fig=return_fig, dpi=150)


def _umap(
    embedding: NDArray[np.floating], n_neighbors: int, seed: int, key: str
) -> NDArray[np.floating]:
    """UMAP of an embedding, shape (n_cells, 2); NaN where the embedding is."""
    import umap

    usable = np.isfinite(embedding).all(axis=1)
    n_cells = int(usable.sum())
    if n_cells < _FEWEST_CELLS:
        msg = f"adata.obsm[{key!r}] has {n_cells} cells without NaN; UMAP needs at least {_FEWEST_CELLS}"
        raise ArgumentError(msg)
    points = np.full((len(embedding), 2), np.nan)
    reducer = umap.UMAP(
        n_neighbors=min(n_neighbors, n_cells - 1),
        min_dist=0.3,
        random_state=seed,
        # the spectral start takes more cells than dimensions
        init="spectral" if n_cells > _SPECTRAL_CELLS else "random",
    )
    with warnings.catch_warnings():
        # UMAP says that a fixed seed runs on one core, which is what a reproducible picture wants
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        points[usable] = reducer.fit_transform(embedding[usable])
    return points


def _scatter(
    ax: Axes, points: NDArray[np.floating], groups: NDArray[np.str_], order: list[str]
) -> None:
    import matplotlib as mpl

    colours = (
        _COLOURS
        if len(order) <= len(_COLOURS)
        else mpl.colormaps["turbo"](np.linspace(0, 1, len(order)))
    )
    size = float(np.clip(6_000 / max(1, len(points)), 1, 20))
    for name, colour in zip(order, colours):
        chosen = groups == name
        x, y = points[chosen, 0], points[chosen, 1]
        # points as pixels even in a PDF: half a million of them must stay a small file
        ax.scatter(
            x,
            y,
            s=size,
            color=colour,
            label=f"{name} ({chosen.sum()})",
            linewidths=0,
            rasterized=True,
        )
    ax.margins(_MARGIN)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.spines[["top", "right"]].set_visible(False)
