"""The tree of some Cell Ontology terms, drawn as an indented list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._figures import figure_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from sccello_tools.ontology import CellOntology

    from ._term_tree import TermTree

_FONT = 8.5  # points
_ROW = 0.19  # inches a term takes
_INDENT = 0.17  # inches a level takes
_LETTER = 0.066  # inches a letter takes at _FONT, on average
_DOT = 0.12  # inches from a dot to its name
_MARGIN = 0.12  # inches


def tree_size(tree: TermTree, ontology: CellOntology) -> tuple[float, float]:
    """Width and height in inches that the tree takes to be read."""
    ends = [
        _INDENT * tree.level[node] + _LETTER * (len(ontology.name(node)) + 8) for node in tree.order
    ]
    return _DOT + 2 * _MARGIN + max(ends, default=1.0), _ROW * len(tree.order) + 2 * _MARGIN


def draw_tree(
    ax: Axes,
    tree: TermTree,
    colours: Mapping[str, str],
    ontology: CellOntology,
    *,
    counts: Mapping[str, int] | None = None,
    notes: Mapping[str, str] | None = None,
    sizes: bool = False,
    room: tuple[float, float] | None = None,
) -> None:
    """Draw a tree top down, a term a line, indented below its parent.

    Parameters
    ----------
    ax
        Empty axes.
    tree
        What to draw.
    colours
        Colour of each term that was asked for; joints are small and grey.
    ontology
        For the names.
    counts
        Cells of each term, written behind its name.
    notes
        What else to write there.
    sizes
        Dots grow with the number of cells.
    room
        Width and height in inches that the axes will have, if a layout is still to come; else as they are now. A tree that is
        larger is drawn smaller, letters and all.
    """
    rows = {node: row for row, node in enumerate(tree.order)}
    width, height = tree_size(tree, ontology)
    if room is None:
        figure, box = figure_of(ax), ax.get_position()
        room = (figure.get_figwidth() * box.width, figure.get_figheight() * box.height)
    scale = min(1.0, room[1] / height, room[0] / width)
    most = max(counts.values(), default=1) if counts else 1
    for node in tree.order:
        x, y = _INDENT * tree.level[node], -_ROW * rows[node]
        if node in tree.parent:
            above = tree.parent[node]
            left, top = _INDENT * tree.level[above], -_ROW * rows[above]
            ax.plot([left, left, x], [top, y, y], color="0.7", lw=0.9 * scale, zorder=1)
        asked = node in tree.terms
        n_cells = counts.get(node, 0) if counts else 0
        size = 7.0 if asked else 2.5
        if sizes and asked:
            size = 3.5 + 7.5 * float(np.sqrt(n_cells / most))
        ax.plot(
            *(x, y, "o"),
            ms=size * scale,
            mfc=colours.get(node, "0.7"),
            mec="0.2" if asked else "none",
            mew=0.6,
            zorder=2,
        )
        name = ax.text(
            x + _DOT,
            y,
            ontology.name(node),
            va="center_baseline",
            fontsize=_FONT * scale,
            color="black" if asked else "0.4",
            style="normal" if asked else "italic",
        )
        behind = "  ".join(
            part
            for part in (
                f"{n_cells:,}" if counts and node in counts else "",
                (notes or {}).get(node, ""),
            )
            if part
        )
        if behind:
            ax.annotate(
                behind,
                xy=(1, 0),
                xycoords=name,
                xytext=(5, 0),
                textcoords="offset points",
                va="bottom",
                fontsize=0.88 * _FONT * scale,
                color="0.4",
            )
    # one unit is an inch, or less if the tree is drawn smaller; what is to spare lies on the right, above and below
    wide, tall = room[0] / scale, room[1] / scale
    top = 0.5 * (_ROW + tall - height) + _MARGIN
    ax.set(xlim=(-_MARGIN, wide - _MARGIN), ylim=(top - tall, top))
    ax.set_axis_off()
