"""Known against predicted cell types, in the order of the Cell Ontology."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import GroupError
from sccello_tools.ontology import CellOntology

from ._figure import axes_of, blues, check_legend, draw_legend, finish, save_path, shade
from .colors import category_colors, lineage_colors
from .term_tree import TermTree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sccello_tools._anndata.terms import TypeColumn

    from .colors import Palette

_MIN_WRITTEN = 0.05  # smaller fractions are not written
_CORRECT = "#e08214"  # frames: visible on white, black and blue


@shared_docs
def confusion(
    adata: AnnData,
    truth: str,
    prediction: str = _keys.CELL_TYPE,
    *,
    legend_loc: str | None = "top margin",
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Confusion matrix of known and predicted cell types in the order of the Cell Ontology, normalised by row.

    A solid frame marks correct predictions, the true type or a subtype of it; a dotted frame marks ancestors of the true type.

    Parameters
    ----------
    adata
        Annotated data with both columns.
    truth
        Column of ``adata.obs`` with known cell types.
    prediction
        Column of ``adata.obs`` with predicted cell types.
    legend_loc
        %(legend_loc)s ``"top margin"`` is above the axes.
    palette
        %(palette)s They are shown beside the types; by default they follow the ontology.
    ax
        %(ax)s
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown. Nothing is written to ``adata``.

    Raises
    ------
    GroupError
        If a column does not exist or has no cell types, or no cell has both.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> figure = sccello.pl.confusion(adata, "cell_type", show=False)
    """
    loc = check_legend(legend_loc)
    path = save_path(save, "confusion")
    ontology = CellOntology.load()
    true, predicted = (type_column(adata, key, ontology) for key in (truth, prediction))
    both = (true.codes >= 0) & (predicted.codes >= 0)
    if not both.any():
        msg = f"No cell has a value in both adata.obs[{truth!r}] and adata.obs[{prediction!r}]. Call tl.annotate_novel(adata) first."
        raise GroupError(msg)
    counts = np.zeros((len(true.names), len(predicted.names)))
    np.add.at(counts, (true.codes[both], predicted.codes[both]), 1)
    tree = TermTree.of([t for t in (*true.terms, *predicted.terms) if t], ontology)
    rows = [i for i in _in_order(true, tree) if counts[i].any()]
    columns = [i for i in _in_order(predicted, tree) if counts[:, i].any()]
    counts = counts[np.ix_(rows, columns)]
    fractions = counts / counts.sum(axis=1, keepdims=True)
    by_term = lineage_colors(tree)
    row_colors, column_colors = (
        category_colors(
            adata, key, side.names, "lineage" if palette is None else palette,
            [by_term.get(t, "#bdbdbd") for t in side.terms],
        )
        for key, side in ((truth, true), (prediction, predicted))
    )  # fmt: skip
    size = figsize or (2.6 + 0.42 * len(columns), 2.0 + 0.38 * len(rows))
    figure, drawn = axes_of(ax, size)
    cmap = blues(drawn)
    drawn.imshow(fractions, cmap=cmap, vmin=0, vmax=1, aspect="auto")
    _draw_grid(drawn, fractions.shape)
    row_terms, column_terms = [true.terms[i] for i in rows], [predicted.terms[i] for i in columns]
    for (i, j), fraction in np.ndenumerate(fractions):
        if fraction >= _MIN_WRITTEN:
            text = f"{fraction:.2f}"[1:] if fraction < 0.995 else "1"
            light = sum(cmap(fraction)[:3]) > 1.5
            look: dict[str, Any] = {"color": "black" if light else "white", "fontsize": 7}
            drawn.text(j, i, text, ha="center", va="center", **look)
        _draw_frame(drawn, i, j, row_terms[i], column_terms[j], ontology)
    totals = counts.sum(axis=1)
    drawn.set_yticks(
        range(len(rows)), [f"{true.names[i]}  ({n:,.0f})" for i, n in zip(rows, totals)]
    )
    names = [predicted.names[i] for i in columns]
    drawn.set_xticks(range(len(columns)), names, rotation=45, ha="right")
    for label in (*drawn.get_xticklabels(), *drawn.get_yticklabels()):
        label.set_parse_math(False)  # names may contain dollar signs
    drawn.tick_params(length=0, labelsize=8, pad=8)
    drawn.set_xlabel(prediction, loc="right")
    drawn.set_ylabel(truth)
    drawn.spines[:].set_visible(False)
    _draw_lineages(
        drawn, *([tree.lineage(t) if t else "" for t in s] for s in (row_terms, column_terms))
    )
    for place, i in enumerate(rows):
        _rectangle(drawn, (-0.75, place - 0.5), 0.14, 1, fc=row_colors[i], ec=shade(drawn, 0))
    for place, j in enumerate(columns):
        corner = (place - 0.5, len(rows) - 0.39)
        _rectangle(drawn, corner, 1, 0.14, fc=column_colors[j], ec=shade(drawn, 0))
    drawn.set(xlim=(-0.75, len(columns) - 0.5), ylim=(len(rows) - 0.25, -0.5))
    _draw_key(drawn, loc)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _in_order(column: TypeColumn, tree: TermTree) -> list[int]:
    """Categories in the order of the tree, names without a term at the end."""
    place = {term: i for i, term in enumerate(tree.order)}
    order: NDArray[np.intp] = np.argsort(
        [place.get(term, len(place)) for term in column.terms], kind="stable"
    )
    return [int(i) for i in order]


def _rectangle(
    ax: Axes, corner: tuple[float, float], width: float, height: float, **look: Any
) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle(corner, width, height, **{"lw": 0.5, "clip_on": False} | look))


def _draw_frame(
    ax: Axes, i: int, j: int, true: str, predicted: str, ontology: CellOntology
) -> None:
    if not true or not predicted:
        return
    correct = true in ontology.ancestors(predicted, include_self=True)
    if correct or predicted in ontology.ancestors(true):
        look = {
            "fill": False,
            "ec": _CORRECT,
            "lw": 1.8,
            "ls": "-" if correct else ":",
            "zorder": 3,
        }
        _rectangle(ax, (j - 0.46, i - 0.46), 0.92, 0.92, **look)


def _draw_grid(ax: Axes, shape: tuple[int, ...]) -> None:
    """Thin lines between the squares."""
    look: dict[str, Any] = {"color": shade(ax, 0.1), "lw": 0.6, "zorder": 1}
    ax.hlines(np.arange(shape[0] + 1) - 0.5, -0.5, shape[1] - 0.5, **look)
    ax.vlines(np.arange(shape[1] + 1) - 0.5, -0.5, shape[0] - 0.5, **look)


def _draw_lineages(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Lines between lineages."""
    look: dict[str, Any] = {"color": shade(ax, 0.75), "lw": 0.9, "zorder": 2}
    across = [i + 0.5 for i, (a, b) in enumerate(pairwise(rows)) if a != b]
    down = [j + 0.5 for j, (a, b) in enumerate(pairwise(columns)) if a != b]
    ax.hlines(across, -0.75, len(columns) - 0.5, **look)
    ax.vlines(down, -0.5, len(rows) - 0.25, **look)


def _draw_key(ax: Axes, loc: str) -> None:
    from matplotlib.patches import Patch

    look: dict[str, Any] = {"fc": "none", "ec": _CORRECT, "lw": 1.6}
    handles = [
        Patch(label="correct", **look),
        Patch(label="ancestor of the true type", ls=":", **look),
    ]
    draw_legend(ax, handles, loc, fontsize=7.5, handlelength=1.2, handleheight=1.0)
