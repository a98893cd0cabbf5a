"""Cells as points on a map, and where each type's cells are."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools.errors import ArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from sccello_tools._anndata.terms import TypeColumn

UNKNOWN = "#d9d9d9"
_NOVEL = (_keys.STATUS_NOVEL_SUBTYPE, _keys.STATUS_UNKNOWN)
_OPEN_FROM = 3.0  # square points; smaller points cannot be hollow
_DARKER = 0.5  # share of its light that the colour of a novel cell keeps where points are small


def map_of(adata: AnnData, basis: str) -> NDArray[np.floating]:
    """Return two dimensions of each cell, shape (n_obs, 2); computes, and keeps, ``X_umap`` if that is what is missing.

    Raises
    ------
    KeyError
        If there is no basis and no embedding to compute it from.
    ValueError
        If the basis has fewer than two dimensions.
    """
    if basis not in adata.obsm and basis == "X_umap" and _keys.EMBEDDING in adata.obsm:
        _compute(adata)
    if basis not in adata.obsm:
        msg = f"adata.obsm has no {basis!r} (keys: {list(adata.obsm)}). Call tl.embed(adata) first, or name a key with two dimensions in basis=."
        raise NotFoundError(msg)
    points: NDArray[np.floating] = np.asarray(adata.obsm[basis])
    if points.ndim != 2 or points.shape[1] < 2:
        msg = f"adata.obsm[{basis!r}] has shape {points.shape}; expected are two dimensions a cell."
        raise ArgumentError(msg)
    return points[:, :2]


def _compute(adata: AnnData) -> None:
    """Neighbours and UMAP by scanpy; cells without an embedding are set aside and have no place on the map."""
    import scanpy as sc

    usable = np.isfinite(np.asarray(adata.obsm[_keys.EMBEDDING])).all(axis=1)
    logger.info("ontology_umap: no 'X_umap' yet; scanpy computes neighbours and UMAP")
    if usable.all():
        sc.pp.neighbors(adata, use_rep=_keys.EMBEDDING, key_added="sccello_neighbors")
        sc.tl.umap(adata, neighbors_key="sccello_neighbors")
        return
    from anndata import AnnData as Cells

    part = Cells(obsm={_keys.EMBEDDING: np.asarray(adata.obsm[_keys.EMBEDDING])[usable]})
    sc.pp.neighbors(part, use_rep=_keys.EMBEDDING)
    sc.tl.umap(part)
    points = np.full((adata.n_obs, 2), np.nan, dtype=np.float32)
    points[usable] = np.asarray(part.obsm["X_umap"])
    adata.obsm["X_umap"] = points


def novel_cells(adata: AnnData, key: str) -> NDArray[np.bool_] | None:
    """Whether each cell was called novel, shape (n_obs,); ``None`` where nothing says."""
    column = key + _keys.STATUS_SUFFIX
    if column not in adata.obs:
        column = _keys.CELL_TYPE + _keys.STATUS_SUFFIX
    if column not in adata.obs:
        return None
    return np.asarray(adata.obs[column].astype(str).isin(_NOVEL), dtype=bool)


def draw_cells(
    ax: Axes,
    points: NDArray[np.floating],
    codes: NDArray[np.intp],
    colours: Sequence[str],
    novel: NDArray[np.bool_] | None = None,
) -> None:
    """Draw a point a cell, coloured by its code (-1: grey), novel ones hollow (darker where points are small); as pixels, also in a PDF.

    Parameters
    ----------
    ax
        Where to draw.
    points
        (n_cells, 2).
    codes
        (n_cells,) index into ``colours``.
    colours
        One a code.
    novel
        (n_cells,) cells to mark.
    """
    import matplotlib as mpl
    from matplotlib.lines import Line2D

    size = float(np.clip(15_000 / max(1, len(points)), 0.4, 20))
    # in an order of chance, or the last type would cover all others
    order = np.random.default_rng(0).permutation(len(points))
    points, codes = points[order], codes[order]
    marked = np.zeros(len(points), dtype=bool) if novel is None else novel[order]
    rgba = mpl.colors.to_rgba_array([*colours, UNKNOWN])  # code -1 takes the last
    options: dict[str, Any] = {"rasterized": True, "zorder": 1}
    ax.scatter(
        points[~marked, 0],
        points[~marked, 1],
        s=size,
        c=rgba[codes[~marked]],
        linewidths=0,
        **options,
    )
    if marked.any():
        own, (x, y) = rgba[codes[marked]], points[marked].T
        label = f"novel ({int(marked.sum()):,})"
        if size >= _OPEN_FROM:  # open circles: told from full ones in grey, too
            line = 0.2 * size**0.5
            ax.scatter(
                x, y, s=size, c="white", edgecolors=cast("Any", own), linewidths=line, **options
            )
            shown = Line2D([], [], marker="o", ls="", ms=5, mfc="white", mec="0.3", label=label)
        else:  # too small for that: darker
            own[:, :3] *= _DARKER
            ax.scatter(x, y, s=size, c=own, linewidths=0, **options)
            shown = Line2D(
                [], [], marker="o", ls="", ms=4, mfc="0.2", mec="none", label=label + ", darker"
            )
        ax.legend(
            handles=[shown],
            loc="upper right",  # below the axes, beside their label
            bbox_to_anchor=(1.0, 0.0),
            borderaxespad=0.2,
            frameon=False,
            fontsize=8,
            handletextpad=0.1,
        )
    ax.margins(0.06)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.spines[["top", "right"]].set_visible(False)


def centres_of(points: NDArray[np.floating], column: TypeColumn) -> dict[str, NDArray[np.floating]]:
    """Return the cell nearest to the median of each type by term, so that a centre lies on cells, not between two islands."""
    found = {}
    usable = np.isfinite(points).all(axis=1)
    for code, term in enumerate(column.terms):
        own = points[(column.codes == code) & usable]
        if term and len(own):
            away = np.linalg.norm(own - np.median(own, axis=0), axis=1)
            found[term] = own[away.argmin()]
    return found
