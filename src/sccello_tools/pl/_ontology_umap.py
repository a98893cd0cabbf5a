"""The UMAP of an embedding, with the Cell Ontology drawn through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools.ontology import CellOntology
from sccello_tools.tl._type_columns import type_column

from ._figures import figure_of, finish
from ._label_layout import spread_labels
from ._lineage_colours import lineage_colours
from ._term_tree import TermTree
from ._tree_legend import draw_tree

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sccello_tools.tl._type_columns import TypeColumn

_UNKNOWN = "#d9d9d9"


def ontology_umap(
    adata: AnnData,
    color: str = _keys.CELL_TYPE,
    *,
    basis: str = "X_umap",
    edges: bool = True,
    label: Literal["on data", "legend", "tree"] = "on data",
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Figure:
    """Draw cells by type, types in the colours of their lineage, and tie each to its nearest relative in the Cell Ontology.

    Parameters
    ----------
    adata
        Annotated data with an embedding.
    color
        Column of ``adata.obs`` with cell types. Their terms are taken from ``adata.obs[color + "_ontology_term_id"]`` where it is
        there, else names are looked up.
    basis
        Key of ``adata.obsm`` with two dimensions. ``"X_umap"`` is computed by scanpy from ``"X_sccello"`` if it is not there, and kept.
    edges
        Tie types to their nearest ancestor, or else relative, among those drawn.
    label
        ``"on data"``: names beside the cells; ``"legend"``: a list; ``"tree"``: the part of the ontology that the types span.
    title
        Title of the panel.
    ax
        Where to draw; a figure of its own if not given. Not for ``label="tree"``, which takes two panels.
    show
        Show the figure; by default only if it is not saved.
    save
        File to write the figure to; the ending decides the format.

    Returns
    -------
    The figure. Field written: `adata.uns[color + "_colors"]`, one colour a category, as scanpy keeps them.

    Raises
    ------
    GroupError
        If ``color`` is no column of cell types.
    KeyError
        If there is no basis to draw and no embedding to compute it from.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.embed(adata)
    >>> figure = sccello.pl.ontology_umap(adata, "cell_type", show=False)
    """
    import matplotlib.pyplot as plt

    ontology = CellOntology.load()
    column = type_column(adata, color, ontology)
    points = _points(adata, basis)
    tree = TermTree.of([term for term in column.terms if term], ontology)
    by_term = lineage_colours(tree)
    colours = [by_term.get(term, _UNKNOWN) for term in column.terms]
    adata.uns[f"{color}_colors"] = np.array(colours, dtype=object)
    if label == "tree" and ax is not None:
        msg = "label='tree' draws two panels and cannot go into ax. Leave ax out, or take label='on data' or 'legend'."
        raise ValueError(msg)
    if ax is not None:
        figure = figure_of(ax)
    else:
        figure = plt.figure(figsize=(8.4 if label != "on data" else 5.6, 5.2), layout="constrained")
        ax = figure.add_subplot(1, 2, 1) if label == "tree" else figure.add_subplot()
    _draw_cells(ax, adata, points, column, colours)
    centres = {term: centre for term, centre in _centres(points, column).items() if term}
    if edges:
        for a, b in tree.links():
            if a in centres and b in centres:
                ax.plot(*zip(centres[a], centres[b]), color="0.35", lw=0.7, alpha=0.7, zorder=3)
        for term, centre in centres.items():
            ax.plot(*centre, "o", ms=4.5, mfc=by_term[term], mec="0.15", mew=0.8, zorder=4)
    ax.set_title(title if title is not None else "")
    if label == "tree":
        counts = dict(zip(column.terms, column.counts))
        draw_tree(figure.add_subplot(1, 2, 2), tree, by_term, ontology, counts=counts)
    elif label == "legend":
        _legend(ax, column, colours)
    else:
        _label(ax, centres, ontology)
    return finish(figure, show=show, save=save)


def _points(adata: AnnData, basis: str) -> NDArray[np.floating]:
    if basis not in adata.obsm and basis == "X_umap" and _keys.EMBEDDING in adata.obsm:
        import scanpy as sc

        logger.info("ontology_umap: no 'X_umap' yet; scanpy computes neighbours and UMAP")
        sc.pp.neighbors(adata, use_rep=_keys.EMBEDDING, key_added="sccello_neighbors")
        sc.tl.umap(adata, neighbors_key="sccello_neighbors")
    if basis not in adata.obsm:
        msg = f"adata.obsm has no {basis!r} (keys: {list(adata.obsm)}). Call tl.embed(adata) first, or name a key with two dimensions in basis=."
        raise KeyError(msg)
    return np.asarray(adata.obsm[basis])[:, :2]


def _draw_cells(
    ax: Axes,
    adata: AnnData,
    points: NDArray[np.floating],
    column: TypeColumn,
    colours: list[str],
) -> None:
    import matplotlib as mpl

    size = float(np.clip(9_000 / max(1, len(points)), 0.3, 22))
    # in an order of chance, or the last type would cover all others
    order = np.random.default_rng(0).permutation(len(points))
    rgba = mpl.colors.to_rgba_array([*colours, _UNKNOWN])  # code -1 takes the last
    ax.scatter(
        points[order, 0],
        points[order, 1],
        s=size,
        c=rgba[column.codes[order]],
        linewidths=0,
        rasterized=True,
        zorder=1,
    )
    status = adata.obs.get(_keys.CELL_TYPE + _keys.STATUS_SUFFIX)
    if status is not None:
        novel = (
            status.astype(str).isin(["novel, of a known kind", "unlike anything known"]).to_numpy()
        )
        if novel.any():
            ax.scatter(
                points[novel, 0],
                points[novel, 1],
                s=1.6 * size + 4,
                facecolors="none",
                edgecolors="black",
                linewidths=0.5,
                rasterized=True,
                zorder=2,
                label=f"novel ({int(novel.sum()):,})",
            )
            ax.legend(loc="upper right", frameon=False, fontsize=8, handletextpad=0.2)
    ax.margins(0.06)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.spines[["top", "right"]].set_visible(False)


def _centres(points: NDArray[np.floating], column: TypeColumn) -> dict[str, NDArray[np.floating]]:
    """Cell nearest to the median of each type, so that a centre lies on cells, not between two islands."""
    found = {}
    for code, term in enumerate(column.terms):
        own = points[(column.codes == code) & np.isfinite(points).all(axis=1)]
        if len(own):
            away = np.linalg.norm(own - np.median(own, axis=0), axis=1)
            found[term] = own[away.argmin()]
    return found


def _label(ax: Axes, centres: dict[str, NDArray[np.floating]], ontology: CellOntology) -> None:
    import matplotlib.patheffects as effects

    halo = [effects.withStroke(linewidth=2.5, foreground="white")]
    size = float(np.clip(10 - len(centres) / 10, 5.5, 9))
    texts = [
        ax.text(
            centre[0],
            centre[1],
            _wrapped(ontology.name(term)),
            ha="center",
            va="center",
            fontsize=size,
            linespacing=0.95,
            path_effects=halo,
            zorder=6,
        )
        for term, centre in centres.items()
    ]
    spread_labels(ax, texts, np.array(list(centres.values())))


def _wrapped(name: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(name, width=22, break_long_words=False))


def _legend(ax: Axes, column: TypeColumn, colours: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", ms=6, mfc=colour, mec="none", label=f"{name} ({count:,})")
        for name, colour, count in zip(column.names, colours, column.counts)
    ]
    ax.figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
