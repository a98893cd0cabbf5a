"""True against predicted cell types, in the order of the Cell Ontology."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import GroupError
from sccello_tools.ontology import CellOntology

from ._figures import figure_of, finish
from ._lineage_colours import lineage_colours
from ._term_tree import TermTree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sccello_tools._anndata.terms import TypeColumn

_WRITTEN_FROM = 0.05  # shares below are not written into their square
_DARK_FROM = 0.62  # shares above are written in white
_RIGHT = "#e08214"  # frames: seen on white and on blue


@shared_docs
def confusion(
    adata: AnnData,
    truth: str,
    prediction: str = _keys.CELL_TYPE,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw true against predicted cell types, relatives side by side, as shares of the true type's cells.

    A square is framed where the prediction is right: the true type or a subtype of it (solid), or a broader term that the true
    type is a kind of (dotted). The strips have the colours of lineages.

    Parameters
    ----------
    adata
        Annotated data with both columns.
    truth
        Column of ``adata.obs`` with true cell types.
    prediction
        Column of ``adata.obs`` with predicted ones.
    ax
        Where to draw; a figure of its own if not given.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown. Nothing is written to ``adata``.

    Raises
    ------
    GroupError
        If a column is missing, holds no cell types, or no cell has both.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> figure = sccello.pl.confusion(adata, "cell_type", show=False)
    """
    import matplotlib.pyplot as plt

    ontology = CellOntology.load()
    true, given = (type_column(adata, key, ontology) for key in (truth, prediction))
    both = (true.codes >= 0) & (given.codes >= 0)
    if not both.any():
        msg = f"No cell has a value in both adata.obs[{truth!r}] and adata.obs[{prediction!r}]. Call tl.annotate_novel(adata) first."
        raise GroupError(msg)
    table = np.zeros((len(true.names), len(given.names)))
    np.add.at(table, (true.codes[both], given.codes[both]), 1)
    tree = TermTree.of([t for t in (*true.terms, *given.terms) if t], ontology)
    rows = [i for i in _in_order(true, tree) if table[i].any()]
    columns = [i for i in _in_order(given, tree) if table[:, i].any()]
    table = table[np.ix_(rows, columns)]
    shares = table / table.sum(axis=1, keepdims=True)
    own = ax is None
    if ax is None:
        size = (2.6 + 0.42 * len(columns), 2.0 + 0.38 * len(rows))
        figure, ax = plt.subplots(figsize=size, layout="constrained")
    else:
        figure = figure_of(ax)
    import matplotlib as mpl

    shades = mpl.colors.LinearSegmentedColormap.from_list(
        "white to blue", ["white", "#9ecae1", "#08519c"]
    )
    ax.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto")
    _lines(ax, shares.shape)
    row_terms, column_terms = [true.terms[i] for i in rows], [given.terms[i] for i in columns]
    for (i, j), share in np.ndenumerate(shares):
        if share >= _WRITTEN_FROM:
            colour = "white" if share > _DARK_FROM else "black"
            ax.text(
                j,
                i,
                f"{share:.2f}"[1:] if share < 1 else "1",
                ha="center",
                va="center",
                color=colour,
                fontsize=7,
            )
        _frame(ax, i, j, row_terms[i], column_terms[j], ontology)
    counts = table.sum(axis=1)
    ax.set_yticks(range(len(rows)), [f"{true.names[i]}  ({n:,.0f})" for i, n in zip(rows, counts)])
    ax.set_xticks(range(len(columns)), [given.names[i] for i in columns], rotation=45, ha="right")
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set_parse_math(False)  # a dollar in a name is a dollar
    ax.tick_params(length=0, labelsize=8, pad=8)
    ax.set(xlabel=prediction, ylabel=truth)
    ax.spines[:].set_visible(False)
    _blocks(
        ax, *([tree.lineage(t) if t else "" for t in side] for side in (row_terms, column_terms))
    )
    _legend(ax)
    colours = lineage_colours(tree)
    for i, term in enumerate(row_terms):
        _strip(ax, (-0.75, i - 0.5), 0.14, 1, colours.get(term))
    for j, term in enumerate(column_terms):
        _strip(ax, (j - 0.5, len(rows) - 0.39), 1, 0.14, colours.get(term))
    ax.set(xlim=(-0.75, len(columns) - 0.5), ylim=(len(rows) - 0.25, -0.5))
    return finish(figure, show=show, save=save, return_fig=return_fig, own=own)


def _in_order(column: TypeColumn, tree: TermTree) -> Sequence[int]:
    """Categories with a term as the tree has them, then the others."""
    place = {term: i for i, term in enumerate(tree.order)}
    order: NDArray[np.intp] = np.argsort(
        [place.get(term, len(place)) for term in column.terms], kind="stable"
    )
    return [int(i) for i in order]


def _frame(ax: Axes, i: int, j: int, true: str, given: str, ontology: CellOntology) -> None:
    if not true or not given:
        return
    right = true in ontology.ancestors(given, include_self=True)
    broader = given in ontology.ancestors(true)
    if right or broader:
        from matplotlib.patches import Rectangle

        style = "-" if right else ":"
        ax.add_patch(
            Rectangle(
                (j - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec=_RIGHT, lw=1.8, ls=style, zorder=3
            )
        )


def _lines(ax: Axes, shape: tuple[int, ...]) -> None:
    """Thin lines between the squares."""
    for place in range(shape[0] + 1):
        ax.plot([-0.5, shape[1] - 0.5], [place - 0.5] * 2, color="0.9", lw=0.6, zorder=1)
    for place in range(shape[1] + 1):
        ax.plot([place - 0.5] * 2, [-0.5, shape[0] - 0.5], color="0.9", lw=0.6, zorder=1)


def _blocks(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a line where one lineage ends and the next begins."""
    from itertools import pairwise

    (left, right), (bottom, top) = (-0.75, len(columns) - 0.5), (len(rows) - 0.25, -0.5)
    for i, (above, below) in enumerate(pairwise(rows)):
        if above != below:
            ax.plot([left, right], [i + 0.5] * 2, color="0.25", lw=0.9, zorder=2)
    for j, (before, after) in enumerate(pairwise(columns)):
        if before != after:
            ax.plot([j + 0.5] * 2, [bottom, top], color="0.25", lw=0.9, zorder=2)


def _legend(ax: Axes) -> None:
    from matplotlib.patches import Patch

    options: dict[str, Any] = {"fc": "none", "ec": _RIGHT, "lw": 1.6}
    handles = [
        Patch(label="right, or a subtype", **options),
        Patch(label="right, but broader", ls=":", **options),
    ]
    ax.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=7.5,
        borderaxespad=0.3,
        handlelength=1.2,
        handleheight=1.0,
    )


def _strip(
    ax: Axes, corner: tuple[float, float], width: float, height: float, colour: str | None
) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(
        Rectangle(corner, width, height, fc=colour or "0.85", ec="white", lw=0.5, clip_on=False)
    )
