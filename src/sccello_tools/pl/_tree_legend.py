"""The tree of some Cell Ontology terms, drawn as an indented list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._figures import figure_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from sccello_tools.ontology import CellOntology

    from ._term_tree import TermTree

_INDENT = 0.055


def draw_tree(
    ax: Axes,
    tree: TermTree,
    colours: Mapping[str, str],
    ontology: CellOntology,
    *,
    counts: Mapping[str, int] | None = None,
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
    """
    rows = {node: -row for row, node in enumerate(tree.order)}
    height = figure_of(ax).get_figheight() * ax.get_position().height * 72  # points
    size = min(9.0, max(3.0, 0.66 * height / max(1, len(rows))))
    for node in tree.order:
        x, y = _INDENT * tree.level[node], rows[node]
        if node in tree.parent:
            above = tree.parent[node]
            left = _INDENT * tree.level[above]
            ax.plot([left, left, x], [rows[above], y, y], color="0.75", lw=0.8, zorder=1)
        asked = node in tree.terms
        ax.plot(
            x,
            y,
            "o",
            ms=size * 0.8 if asked else size * 0.3,
            mfc=colours.get(node, "0.75"),
            mec="0.3" if asked else "none",
            mew=0.5,
            zorder=2,
        )
        n_cells = f"  {counts[node]:,}" if counts and node in counts else ""
        ax.text(
            x + 0.03,
            y,
            ontology.name(node) + n_cells,
            va="center",
            fontsize=size,
            color="black" if asked else "0.45",
            style="normal" if asked else "italic",
        )
    ax.set(xlim=(-0.03, 1), ylim=(-len(rows) + 0.3, 0.7))
    ax.set_axis_off()
