"""UMAP coloured by cell type, with relations of the Cell Ontology."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.terms import TypeColumn, type_column
from sccello_tools._docs import shared_docs
from sccello_tools._validation import check_at_least
from sccello_tools.errors import ArgumentError
from sccello_tools.ontology import CellOntology

from ._figure import check_legend, draw_legend, figure_of, finish, legend_width, save_path, shade
from ._umap import (
    MAP,
    category_handles,
    centers,
    coordinates,
    draw_cells,
    label_centers,
    label_width,
    rgba,
)
from .colors import UNKNOWN, category_colors, keep_colors, lineage_colors
from .term_tree import TermTree, draw_tree, tree_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .colors import Palette

_MAX_CONNECTED = 25  # types; lines between more of them are hard to follow


class _Types(NamedTuple):
    """A column of cell types, ready to draw."""

    column: TypeColumn
    labels: list[str]
    """Names to write: those of the column, or of the ontology where the column has ids."""
    tree: TermTree
    colors: list[str]

    @property
    def by_term(self) -> dict[str, str]:
        return {term: color for term, color in zip(self.column.terms, self.colors) if term}


@shared_docs
def ontology_umap(
    adata: AnnData,
    color: str | Sequence[str] = _keys.CELL_TYPE,
    *,
    basis: str = "X_umap",
    edges: bool | None = None,
    level: int | None = None,
    legend_loc: str | None = "on data",
    palette: Palette | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """UMAP coloured by cell type: related types have related colours, and lines connect relatives in the Cell Ontology.

    Cells that :func:`sccello_tools.tl.annotate_novel` did not assign to a known type are hollow, or darker in plots of more than
    5,000 cells.

    Parameters
    ----------
    adata
        Annotated data with an embedding.
    color
        Column of ``adata.obs`` with cell types, or several for one panel each. Terms are read from
        ``adata.obs[color + "_ontology_term_id"]`` if it exists, otherwise names are looked up.
    basis
        Key of ``adata.obsm`` with two dimensions. ``"X_umap"`` is computed from ``"X_sccello"`` if it does not exist.
    edges
        Connect each type with its closest ancestor or, without one, its closest relative among the types shown; by default if there
        are at most 25.
    level
        Show the ancestor of each type that is this many steps below the root of the tree of all types; 0 is the broadest.
    legend_loc
        ``"on data"`` writes names beside the cells, ``"tree"`` draws the part of the ontology that the types span,
        ``"right margin"`` and locations of matplotlib draw a list, None or ``"none"`` no legend.
    palette
        %(palette)s ``"lineage"`` selects the colours that follow the ontology, which are also the default.
    title
        Title of the panel; the column if several are drawn.
    ax
        %(ax)s Not possible with ``legend_loc="tree"`` or several columns.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown. Fields written if they do not exist, except to views: `adata.uns[color + "_colors"]`
    (without ``level``) and `adata.obsm["X_umap"]`.

    Raises
    ------
    GroupError
        If ``color`` is not a column of cell types.
    NotFoundError
        If there is neither a basis nor an embedding to compute it from.
    ArgumentError
        If ``legend_loc``, ``level``, ``palette`` or ``save`` is invalid, or cannot be combined with ``ax``.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.embed(adata)
    >>> figure = sccello.pl.ontology_umap(adata, "cell_type", show=False)
    """
    loc = check_legend(legend_loc, "on data", "tree")
    path = save_path(save, "ontology_umap")
    columns = [color] if isinstance(color, str) else list(color)
    if not columns:
        msg = "color is empty. Pass at least one column of adata.obs."
        raise ArgumentError(msg)
    if ax is not None and (loc == "tree" or len(columns) > 1):
        what = (
            "legend_loc='tree' draws two panels" if loc == "tree" else "color has several columns"
        )
        msg = (
            f"{what}, which do not fit into ax. Omit ax, or pass one column and another legend_loc."
        )
        raise ArgumentError(msg)
    ontology = CellOntology.load()
    types = [_read(adata, key, level, palette, ontology) for key in columns]
    points = coordinates(adata, basis)
    if ax is not None:
        figure = figure_of(ax)
        axes: list[tuple[Axes, Axes | None]] = [(ax, None)]
    else:
        figure, axes = _panels(types, loc, figsize, ontology)
    for key, shown, (panel, tree_panel) in zip(columns, types, axes):
        if level is None:
            keep_colors(adata, key, shown.colors)
        novel = _not_known(adata, key)
        colors = rgba(shown.column.codes, shown.colors, UNKNOWN)
        handle = draw_cells(panel, points, colors, basis=basis, marked=novel)
        at = centers(points, shown.column.codes, len(shown.colors))
        if len(at) <= _MAX_CONNECTED if edges is None else edges:
            _draw_edges(panel, shown, at)
        heading = title if title is not None else key if len(columns) > 1 else ""
        panel.set_title(heading, loc="left", fontsize=11)
        _draw_names(panel, shown, at, loc, handle)
        if tree_panel is not None:
            counts = dict(zip(shown.column.terms, shown.column.counts.tolist()))
            room = (tree_size(shown.tree, ontology)[0], figure.get_figheight())
            draw_tree(tree_panel, shown.tree, shown.by_term, ontology, counts=counts, room=room)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _read(
    adata: AnnData, key: str, level: int | None, palette: Any, ontology: CellOntology
) -> _Types:
    column = type_column(adata, key, ontology)
    if level is not None:
        column = _rolled_up(column, level, ontology)
    tree = TermTree.of([term for term in column.terms if term], ontology)
    by_term = lineage_colors(tree)
    default = [by_term.get(term, UNKNOWN) for term in column.terms]
    # stored colours belong to the categories of the column
    stored = adata if level is None else None
    colors = category_colors(stored, key, column.names, palette, default)
    labels = [
        ontology.name(term) if term and name.startswith("CL:") else name
        for name, term in zip(column.names, column.terms)
    ]
    return _Types(column, labels, tree, colors)


def _rolled_up(column: TypeColumn, level: int, ontology: CellOntology) -> TypeColumn:
    """Replace types by their ancestors at a level of the tree; names without a term stay."""
    check_at_least("level", level, 0)
    tree = TermTree.of([term for term in column.terms if term], ontology)
    names: dict[tuple[str, str], int] = {}  # (term, name) -> new category
    part_of = []
    for name, term in zip(column.names, column.terms):
        above = tree.ancestor_at(term, level) if term else ""
        pair = (above, ontology.name(above) if above else name)
        part_of.append(names.setdefault(pair, len(names)))
    codes = np.array([*part_of, -1], dtype=np.intp)[column.codes]  # -1 selects the last
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    terms, shown = zip(*names) if names else ((), ())
    return TypeColumn(tuple(shown), tuple(terms), codes, counts)


def _not_known(adata: AnnData, key: str) -> NDArray[np.bool_] | None:
    """Cells whose status is not "known", shape (n_obs,); None if there is no status."""
    for name in (key, _keys.CELL_TYPE):
        if name + _keys.STATUS_SUFFIX in adata.obs:
            status = adata.obs[name + _keys.STATUS_SUFFIX]
            return np.asarray(
                status.isin((_keys.STATUS_NOVEL_SUBTYPE, _keys.STATUS_UNKNOWN)), dtype=bool
            )
    return None


def _panels(
    types: Sequence[_Types], loc: str, figsize: tuple[float, float] | None, ontology: CellOntology
) -> tuple[Figure, list[tuple[Axes, Axes | None]]]:
    """Create a figure with one map per column, its size by the number and length of the names."""
    from matplotlib import pyplot as plt

    most = max(len(t.colors) for t in types)
    side = MAP + 0.05 * max(0, most - 30)
    widths, heights = [], [side]
    for shown in types:
        width, height = tree_size(shown.tree, ontology)
        extra = {
            "on data": label_width(shown.labels),
            "right margin": legend_width(shown.labels, side),
        }
        widths += [side, width] if loc == "tree" else [side + extra.get(loc, 0)]
        heights += [height] if loc == "tree" else []
    figure = plt.figure(figsize=figsize or (sum(widths), max(heights)), layout="constrained")
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    axes = [figure.add_subplot(grid[i]) for i in range(len(widths))]
    if loc != "tree":
        return figure, [(ax, None) for ax in axes]
    for ax in axes[::2]:
        ax.set_box_aspect(1)  # the tree may be much taller than the map
    return figure, list(zip(axes[::2], axes[1::2]))


def _draw_edges(ax: Axes, shown: _Types, at: Mapping[int, NDArray[np.floating]]) -> None:
    """Draw a dot at the center of each type and lines between relatives."""
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=2.4, foreground=shade(ax, 0), alpha=0.8)]
    by_term = {shown.column.terms[code]: xy for code, xy in at.items() if shown.column.terms[code]}
    for a, b in shown.tree.links(by_term):
        if a in by_term and b in by_term:
            ends = np.stack([by_term[a], by_term[b]])
            ax.plot(*ends.T, zorder=3, path_effects=halo, color=shade(ax, 0.85), lw=1.1)


def _draw_names(
    ax: Axes, shown: _Types, at: Mapping[int, NDArray[np.floating]], loc: str, handle: Any
) -> None:
    """Draw the centers, their labels or the list of types, and the key to hollow cells."""
    for code, xy in at.items():
        if shown.column.terms[code]:
            edge = shade(ax, 1)
            ax.plot(*xy, "o", ms=5.5, mfc=shown.colors[code], mec=edge, mew=0.9, zorder=4)
    handles = [] if handle is None else [handle]
    if loc in {"none", "on data", "tree"}:
        if loc == "on data":
            label_centers(ax, dict(enumerate(shown.labels)), at)
        # below the axes, next to their label
        draw_legend(ax, handles, "upper right", bbox_to_anchor=(1.0, 0.0), borderaxespad=0.2)
        return
    order = {term: i for i, term in enumerate(shown.tree.order)}
    column = shown.column
    by_tree = np.argsort([order.get(term, len(order)) for term in column.terms], kind="stable")
    place = np.array([*np.argsort(by_tree), -1])  # -1 selects the last
    names, colors = ([values[i] for i in by_tree] for values in (shown.labels, shown.colors))
    handles = category_handles(place[column.codes], names, colors, UNKNOWN) + handles
    draw_legend(ax, handles, loc)
