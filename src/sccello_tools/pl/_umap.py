"""Cells as points in two dimensions, and labels of groups that never overlap."""

from __future__ import annotations

import textwrap
import warnings
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.counts import warn_user
from sccello_tools._logging import logger
from sccello_tools._random import seed_of
from sccello_tools.errors import ArgumentError, NotFoundError

from ._figure import figure_of, shade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike

MAP = 5.2
"""Width and height of a UMAP in inches."""
_MIN_CELLS = 4
_SPECTRAL_CELLS = 10
_HOLLOW_FROM = 3.0  # points²; smaller points cannot be drawn hollow
_DARKEN = 0.5  # factor on the colour of marked cells where points are small
_WRAP = 26  # characters per line of a label
_MIN_FONT = 5.0
_MIN_MAP = 0.35  # of the width of the axes, when labels are long


def coordinates(adata: AnnData, basis: str) -> NDArray[np.floating]:
    """Return two dimensions per cell, shape (n_obs, 2); ``X_umap`` is computed from ``X_sccello`` and stored if it does not exist.

    Raises
    ------
    NotFoundError
        If neither the basis nor an embedding to compute it from exists.
    ArgumentError
        If the basis has fewer than two dimensions.
    """
    if basis not in adata.obsm and basis == "X_umap" and _keys.EMBEDDING in adata.obsm:
        embedding = np.asarray(adata.obsm[_keys.EMBEDDING])
        logger.info("computing UMAP of adata.obsm[%r]", _keys.EMBEDDING)
        points = compute_umap(embedding).astype(np.float32)
        # nothing is written to a view; principal components are not stored as a UMAP
        if adata.is_view or np.isfinite(embedding).all(axis=1).sum() < _MIN_CELLS:
            return points
        adata.obsm["X_umap"] = points
    if basis not in adata.obsm:
        msg = f"adata.obsm has no {basis!r} (keys: {list(adata.obsm)}). Call tl.embed(adata) first, or pass a key with two dimensions as basis=."
        raise NotFoundError(msg)
    found: NDArray[np.floating] = np.asarray(adata.obsm[basis])
    if found.ndim != 2 or found.shape[1] < 2:
        msg = f"adata.obsm[{basis!r}] has shape {found.shape}; two dimensions per cell are required. Pass another key as basis=."
        raise ArgumentError(msg)
    return found[:, :2]


def compute_umap(
    embedding: NDArray[np.floating], *, n_neighbors: int = 15, rng: RNGLike = 0
) -> NDArray[np.floating]:
    """Return the UMAP of an embedding, shape (n_cells, 2), NaN where the embedding is NaN.

    Three cells or fewer, which UMAP cannot place, get their principal components.
    """
    usable = np.isfinite(embedding).all(axis=1)
    n_cells = int(usable.sum())
    points = np.full((len(embedding), 2), np.nan)
    if n_cells < _MIN_CELLS:
        warn_user(f"UMAP needs {_MIN_CELLS} cells, got {n_cells}: principal components are drawn.")
        centered = (
            embedding[usable] - embedding[usable].mean(axis=0) if n_cells else np.empty((0, 2))
        )
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        scores = (u * s)[:, :2]
        points[usable] = np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))
        return points
    with warnings.catch_warnings():
        # umap-learn warns on import that its optional Tensorflow is missing
        warnings.filterwarnings("ignore", category=ImportWarning)
        # a fixed seed makes UMAP run on one core, which is intended here
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=min(n_neighbors, n_cells - 1),
            min_dist=0.4,
            random_state=seed_of(rng),
            # spectral initialisation requires more cells than this
            init="spectral" if n_cells > _SPECTRAL_CELLS else "random",
        )
        points[usable] = reducer.fit_transform(embedding[usable])
    return points


def draw_cells(
    ax: Axes,
    points: NDArray[np.floating],
    colors: NDArray[np.floating],
    *,
    basis: str = "X_umap",
    marked: NDArray[np.bool_] | None = None,
    order: NDArray[np.intp] | None = None,
) -> Any | None:
    """Draw one point per cell, rasterised so that vector files remain small.

    Parameters
    ----------
    ax
        Axes to draw into.
    points
        Coordinates, shape (n_cells, 2).
    colors
        RGBA of each cell, shape (n_cells, 4).
    basis
        Name of the coordinates, for the axis labels.
    marked
        Cells to draw hollow or, where points are small, darker.
    order
        Order of drawing, last on top; random if None, so that no group hides another.

    Returns
    -------
    Legend handle of the marked cells, if there are any.
    """
    from matplotlib.lines import Line2D

    if order is None:
        order = np.random.default_rng(0).permutation(len(points))
    size = float(np.clip(15_000 / max(1, len(points)), 0.4, 20))
    points, colors = points[order], colors[order]
    is_marked = np.zeros(len(points), dtype=bool) if marked is None else marked[order]
    options: dict[str, Any] = {"s": size, "rasterized": True, "zorder": 1}
    x, y = points.T
    plain, own = ~is_marked, colors[is_marked]
    ax.scatter(x[plain], y[plain], c=colors[plain], linewidths=0, **options)
    handle = None
    if is_marked.any():
        label = f"not a known type ({int(is_marked.sum()):,})"
        look: dict[str, Any] = {"mfc": shade(ax, 0), "mec": shade(ax, 0.7)}
        if size >= _HOLLOW_FROM:
            options |= {"c": shade(ax, 0), "edgecolors": own, "linewidths": 0.2 * size**0.5}
        else:
            options |= {"c": own * (_DARKEN, _DARKEN, _DARKEN, 1), "linewidths": 0}
            look, label = {"mfc": shade(ax, 0.8), "mec": "none"}, f"{label}, darker"
        ax.scatter(x[is_marked], y[is_marked], **options)
        handle = Line2D([], [], marker="o", ls="", ms=5, label=label, **look)
    ax.margins(0.06)
    name = {"X_umap": "UMAP", "X_pca": "PC"}.get(basis, basis.removeprefix("X_"))
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2")
    ax.spines[["top", "right"]].set_visible(False)
    return handle


def rgba(codes: NDArray[np.integer], colors: Sequence[str], missing: str) -> NDArray[np.floating]:
    """Return the colour of each cell by its category, ``missing`` for -1; shape (n_cells, 4)."""
    import matplotlib as mpl

    table = mpl.colors.to_rgba_array([*colors, missing])
    return np.asarray(table[codes])  # -1 selects the last


def category_handles(
    codes: NDArray[np.integer], names: Sequence[str], colors: Sequence[str], missing: str
) -> list[Any]:
    """Return legend handles of the categories that have cells, with the number of cells, and of missing values."""
    from matplotlib.lines import Line2D

    counts = np.bincount(np.asarray(codes) + 1, minlength=len(names) + 1)
    rows = [*zip(names, colors, counts[1:]), ("missing", missing, counts[0])]
    return [
        Line2D([], [], marker="o", ls="", ms=6, mfc=color, mec="none", label=f"{name} ({n:,})")
        for name, color, n in rows
        if n
    ]


def centers(
    points: NDArray[np.floating], codes: NDArray[np.integer], n: int
) -> dict[int, NDArray[np.floating]]:
    """Return, for each of ``n`` categories with cells, the cell closest to their median, so that a center never falls between islands."""
    found = {}
    usable = np.isfinite(points).all(axis=1)
    for code in range(n):
        own = points[(codes == code) & usable]
        if len(own):
            distance = np.linalg.norm(own - np.median(own, axis=0), axis=1)
            found[code] = own[distance.argmin()]
    return found


def label_width(names: Sequence[str]) -> float:
    """Return the width in inches that the labels need on both sides of a map."""
    return 2 * min(_WRAP, max(map(len, names), default=0)) * 0.072 + 0.3


def label_centers(
    ax: Axes, labels: Mapping[int, str], at: Mapping[int, NDArray[np.floating]]
) -> None:
    """Write labels left and right of the cells, each with a line to its center.

    The labels of a side are stacked in the order of their centers, as close to them as possible without overlap. The x limits are
    widened to make room; in axes that are too low, the text is smaller.

    Parameters
    ----------
    ax
        Axes with the cells.
    labels
        Text by category.
    at
        Center by category, in data coordinates.
    """
    codes = [code for code in labels if code in at]
    if not codes:
        return
    figure_of(ax).draw_without_rendering()  # fixes the layout, which text sizes depend on
    frame = ax.get_window_extent()
    font = float(np.clip(10 - len(codes) / 12, 7, 9))
    wrapped = {code: textwrap.fill(labels[code], _WRAP, break_on_hyphens=False) for code in codes}
    texts = {
        code: ax.text(
            0, 0, text, va="center", fontsize=font, linespacing=0.95, zorder=6, parse_math=False
        )
        for code, text in wrapped.items()
    }
    sides = _sides(np.array([at[code] for code in codes]), _heights(texts.values()), frame.height)
    stacks = [[code for code, s in zip(codes, sides) if s == side] for side in (0, 1)]
    tallest = max(sum(_heights(texts[code] for code in stack)) for stack in stacks)
    if tallest > frame.height:
        for text in texts.values():
            text.set_fontsize(max(_MIN_FONT, font * frame.height / tallest))
    boxes = {code: text.get_window_extent() for code, text in texts.items()}
    gap = 0.015 * frame.width
    widths = [max((boxes[c].width + 2 * gap for c in stack), default=gap) for stack in stacks]
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    data = max(_MIN_MAP, 1 - sum(widths) / frame.width)  # fraction of the width left for the cells
    unit = (right - left) / data / frame.width  # data units per pixel after widening
    scale = (1 - data) * frame.width / sum(widths)
    ax.set_xlim(left - widths[0] * scale * unit, right + widths[1] * scale * unit)
    for stack, x, align in zip(stacks, (left, right), ("right", "left")):
        ordered = sorted(stack, key=lambda code: float(at[code][1]))
        wanted = np.array([(at[c][1] - bottom) / (top - bottom) * frame.height for c in ordered])
        heights = _heights(texts[c] for c in ordered)
        for code, y in zip(ordered, _stack(wanted, heights, frame.height)):
            place = (x, bottom + y / frame.height * (top - bottom))
            texts[code].set(position=place, ha=align)
            end = (x + (1 if align == "right" else -1) * gap * unit, place[1])
            ax.plot(*zip(end, at[code]), color=shade(ax, 0.55), lw=0.6, zorder=2)
    ax.spines[["left", "bottom"]].set_visible(False)
    name = ax.get_xlabel().removesuffix(" 1")
    ax.set(xlabel="", ylabel="")
    ax.text(0, 0, name, transform=ax.transAxes, color=shade(ax, 0.6), fontsize=9)


def _heights(texts: Any) -> NDArray[np.floating]:
    """Heights of labels in pixels, with the space between two of them."""
    return np.array([text.get_window_extent().height + 4 for text in texts])


def _sides(
    at: NDArray[np.floating], heights: NDArray[np.floating], room: float
) -> NDArray[np.intp]:
    """Assign labels to the left (0) or right (1): the nearer side, unless it would be crowded."""
    order = np.argsort(at[:, 0], kind="stable")
    middle = (at[:, 0].min() + at[:, 0].max()) / 2
    n_left = int((at[order, 0] < middle).sum())
    used = np.concatenate([[0.0], np.cumsum(heights[order])])
    limit = max(0.7 * room, 0.5 * used[-1] + heights.max())
    while used[n_left] > limit and n_left:
        n_left -= 1
    while used[-1] - used[n_left] > limit and n_left < len(order):
        n_left += 1
    sides = np.ones(len(at), dtype=np.intp)
    sides[order[:n_left]] = 0
    return sides


def _stack(
    wanted: NDArray[np.floating], heights: NDArray[np.floating], room: float
) -> NDArray[np.floating]:
    """Return ascending positions closest to ``wanted`` (least squares) at which boxes do not overlap: isotonic regression."""
    if not len(wanted):
        return wanted
    from scipy.optimize import isotonic_regression

    offsets = np.concatenate([[0.0], np.cumsum((heights[:-1] + heights[1:]) / 2)])
    low, high = heights[0] / 2, room - heights[-1] / 2 - offsets[-1]
    base = isotonic_regression(wanted - offsets).x
    return np.asarray(np.clip(base, low, max(low, high)) + offsets)
