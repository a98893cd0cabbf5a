"""The UMAP of an embedding, with the Cell Ontology drawn through it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError
from sccello_tools.ontology import CellOntology

from ._cells_on_map import centres_of, draw_cells, map_of, novel_cells
from ._figures import figure_of, finish
from ._label_layout import spread_labels
from ._rolled_up import rolled_up
from ._term_tree import TermTree
from ._tree_legend import draw_tree, tree_size
from ._type_colours import type_colours

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sccello_tools._anndata.terms import TypeColumn

_MAP = 5.2  # inches, of a map of few types
_MANY = 25  # types; lines between more of them are drawn thinner
_LEGEND_ROW = 0.19  # inches a type takes in the plain legend


@shared_docs
def ontology_umap(
    adata: AnnData,
    color: str = _keys.CELL_TYPE,
    *,
    basis: str = "X_umap",
    edges: bool = True,
    level: int | None = None,
    label: Literal["on data", "legend", "tree"] = "on data",
    palette: Mapping[str, str] | Literal["uns"] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
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
    level
        Draw types as their ancestors so many partings below the top of the ontology's part that they span: 0 is the broadest.
    label
        ``"on data"``: names beside the cells; ``"legend"``: a list; ``"tree"``: the part of the ontology that the types span.
    palette
        Colours of your own: by name of the type (others keep theirs), or ``"uns"`` for those in ``adata.uns[color + "_colors"]``.
    title
        Title of the panel.
    ax
        Where to draw; a figure of its own if not given. Not for ``label="tree"``, which takes two panels.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown. Field written: `adata.uns[color + "_colors"]`, one colour a category, as scanpy keeps
    them. Cells that :func:`sccello_tools.tl.annotate_novel` called novel are hollow; darker,
    above 5,000 cells.

    Raises
    ------
    GroupError
        If ``color`` is no column of cell types.
    KeyError
        If there is no basis to draw and no embedding to compute it from.
    ValueError
        If ``label`` or ``level`` is none of the choices, or does not go with ``ax``.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.embed(adata)
    >>> figure = sccello.pl.ontology_umap(adata, "cell_type", show=False)
    """
    if label not in {"on data", "legend", "tree"}:
        msg = f"label is {label!r}; expected is 'on data', 'legend' or 'tree'."
        raise ArgumentError(msg)
    if label == "tree" and ax is not None:
        msg = "label='tree' draws two panels and cannot go into ax. Leave ax out, or take label='on data' or 'legend'."
        raise ArgumentError(msg)
    ontology = CellOntology.load()
    column, part_of = rolled_up(type_column(adata, color, ontology), level, ontology)
    points = map_of(adata, basis)
    tree = TermTree.of([term for term in column.terms if term], ontology)
    colours = type_colours(adata, color, column, tree, palette, part_of)
    by_term = {term: colour for term, colour in zip(column.terms, colours) if term}
    adata.uns[f"{color}_colors"] = np.array([colours[i] for i in part_of], dtype=object)

    panel = None
    own = ax is None
    if ax is not None:
        figure = figure_of(ax)
    else:
        figure, ax, panel = _figure(label, column, tree, ontology)
    draw_cells(ax, points, column.codes, colours, novel_cells(adata, color))
    centres = centres_of(points, column)
    if edges:
        _tie(ax, tree, centres, by_term)
    ax.set_title(title if title is not None else "", loc="left", fontsize=11)
    if panel is not None:
        counts = dict(zip(column.terms, column.counts.tolist()))
        room = (tree_size(tree, ontology)[0], figure.get_figheight())
        draw_tree(panel, tree, by_term, ontology, counts=counts, room=room)
    elif label == "legend":
        _legend(ax, column, colours)
    else:
        _label(ax, centres, ontology)
    return finish(figure, show=show, save=save, return_fig=return_fig, own=own)


def _figure(
    label: str, column: TypeColumn, tree: TermTree, ontology: CellOntology
) -> tuple[Figure, Axes, Axes | None]:
    """Make a figure that grows with the types: names need room, beside the cells or in the legend."""
    from matplotlib import pyplot as plt

    side = _MAP + 0.06 * max(0, len(column.names) - 15)
    if label == "tree":
        width, height = tree_size(tree, ontology)
        wide = min(side, 7.5)
        tall = max(wide + 0.3, height)  # the map is square; its labels want room, too
        figure = plt.figure(figsize=(wide + width, tall), layout="constrained")
        grid = figure.add_gridspec(1, 2, width_ratios=(wide, width))
        ax = figure.add_subplot(grid[0])
        ax.set_box_aspect(1)  # the tree may be much taller
        return figure, ax, figure.add_subplot(grid[1])
    if label == "legend":
        longest = max(map(len, column.names), default=0)
        beside = _legend_columns(column, side) * (0.8 + 0.062 * longest)
        figure = plt.figure(figsize=(side + beside, side), layout="constrained")
    else:
        figure = plt.figure(figsize=(side + 0.4, side), layout="constrained")
    return figure, figure.add_subplot(), None


def _legend_columns(column: TypeColumn, height: float) -> int:
    return -(-len(column.names) // max(1, int(height / _LEGEND_ROW) - 1))


def _tie(
    ax: Axes,
    tree: TermTree,
    centres: Mapping[str, NDArray[np.floating]],
    by_term: Mapping[str, str],
) -> None:
    """Draw a line between relatives and a dot at each centre."""
    import matplotlib.patheffects as effects

    halo = [effects.Stroke(linewidth=2.6, foreground="white", alpha=0.8), effects.Normal()]
    colour, width = ("0.35", 0.6) if len(centres) > _MANY else ("0.2", 1.0)
    for a, b in tree.links(centres):
        if a in centres and b in centres:
            ax.plot(
                *zip(centres[a], centres[b]), zorder=3, path_effects=halo, color=colour, lw=width
            )
    for term, centre in centres.items():
        ax.plot(*centre, "o", ms=5.5, mfc=by_term[term], mec="black", mew=0.9, zorder=4)


def _label(ax: Axes, centres: Mapping[str, NDArray[np.floating]], ontology: CellOntology) -> None:
    import matplotlib.patheffects as effects

    halo = [effects.withStroke(linewidth=3, foreground="white")]
    size = float(np.clip(10 - len(centres) / 12, 6, 9))
    texts = [
        ax.text(
            centre[0],
            centre[1],
            "\n".join(
                textwrap.wrap(
                    ontology.name(term), width=22, break_long_words=False, break_on_hyphens=False
                )
            ),
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


def _legend(ax: Axes, column: TypeColumn, colours: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", ms=6, mfc=colour, mec="none", label=f"{name} ({count:,})")
        for name, colour, count in zip(column.names, colours, column.counts)
    ]
    legend = ax.figure.legend(
        handles=handles,
        loc="outside right center",
        ncols=_legend_columns(column, figure_of(ax).get_figheight()),
        frameon=False,
        fontsize=8,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is a dollar
