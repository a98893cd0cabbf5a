"""The part of the Cell Ontology that some terms span, as a tree that can be drawn as an indented list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._figure import figure_of, shade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_UNINFORMATIVE_DEPTH = 2  # "cell" and "eukaryotic cell"
# sizes of a drawn tree in inches, and of its text in points
_FONT = 8.5
_ROW = 0.19
_INDENT = 0.17
_LETTER = 0.066
_DOT = 0.12
_MARGIN = 0.12


@dataclass(frozen=True)
class TermTree:
    """Selected terms and their deepest common ancestors. Each node has at most one parent, unlike in the ontology itself."""

    order: tuple[str, ...]
    """All nodes, parents before children, siblings by name."""
    parent: dict[str, str]
    """Parent of each node that has one."""
    level: dict[str, int]
    """Number of steps from the root."""
    terms: frozenset[str]
    """The selected terms; the other nodes are common ancestors."""
    uninformative: frozenset[str]
    """Nodes that nearly every cell type descends from."""

    @classmethod
    def of(cls, terms: Sequence[str], ontology: CellOntology) -> TermTree:
        """Build the tree of current Cell Ontology ids."""
        selected = sorted(set(terms))
        nodes = set(selected)
        for i, a in enumerate(selected):
            for b in selected[:i]:
                nodes.update(ontology.lca(a, b)[:1])
        parent = {}
        for node in sorted(nodes):
            above = ontology.ancestors(node) & nodes
            if above:
                parent[node] = min(above, key=lambda term: (-ontology.depth(term), term))
        _prune(nodes, parent, keep=set(selected))
        children = _children(parent)
        order: list[str] = []
        level: dict[str, int] = {}
        stack = [(node, 0) for node in sorted(nodes - set(parent), key=ontology.name, reverse=True)]
        while stack:
            node, depth = stack.pop()
            order.append(node)
            level[node] = depth
            own = sorted(children.get(node, []), key=ontology.name, reverse=True)
            stack += [(child, depth + 1) for child in own]
        uninformative = frozenset(n for n in nodes if ontology.depth(n) < _UNINFORMATIVE_DEPTH)
        return cls(tuple(order), parent, level, frozenset(selected), uninformative)

    @property
    def selected_in_order(self) -> tuple[str, ...]:
        """The selected terms in the order of the tree."""
        return tuple(node for node in self.order if node in self.terms)

    def distance(self, a: str, b: str) -> int:
        """Count the steps between two nodes; two extra steps if they have no common root."""
        up_a, up_b = self._path(a), self._path(b)
        shared = len(set(up_a) & set(up_b))
        steps = len(up_a) + len(up_b) - 2 * shared
        return steps if shared else steps + 2

    def ancestor_at(self, term: str, level: int) -> str:
        """Return the ancestor of ``term``, or the term itself, that is at most ``level`` steps from the root."""
        path = self._path(term)
        return path[max(0, len(path) - 1 - level)]

    def links(
        self, centers: Mapping[str, NDArray[np.floating]] | None = None
    ) -> list[tuple[str, str]]:
        """Pair each selected term with its closest selected ancestor or, without one, its closest selected relative.

        Among relatives at the same distance in the tree, the one closest in ``centers`` is chosen.
        """

        def gap(a: str, b: str) -> float:
            known = centers is not None and a in centers and b in centers
            return float(np.linalg.norm(centers[a] - centers[b])) if centers and known else 0.0

        found = set()
        for term in sorted(self.terms):
            above = [node for node in self._path(term)[1:] if node in self.terms]
            own = set(self._path(term)) - self.uninformative
            others = [o for o in self.selected_in_order if o != term and own & set(self._path(o))]
            if above or others:
                ranked = sorted((self.distance(term, o), gap(term, o), o) for o in others)
                near = above[0] if above else ranked[0][2]
                found.add((min(term, near), max(term, near)))
        return sorted(found)

    def lineage(self, term: str) -> str:
        """Return the broadest informative ancestor of a term."""
        path = self._path(term)
        return next((node for node in reversed(path) if node not in self.uninformative), term)

    def _path(self, node: str) -> list[str]:
        path = [node]
        while path[-1] in self.parent:
            path.append(self.parent[path[-1]])
        return path


def _children(parent: dict[str, str]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for node, above in parent.items():
        children.setdefault(above, []).append(node)
    return children


def _prune(nodes: set[str], parent: dict[str, str], *, keep: set[str]) -> None:
    """Remove, in place, common ancestors that have fewer than two children."""
    while single := [n for n in sorted(nodes - keep) if len(_children(parent).get(n, [])) < 2]:
        node = single[0]
        nodes.discard(node)
        above = parent.pop(node, None)
        for child in [c for c, its_parent in parent.items() if its_parent == node]:
            if above is None:
                parent.pop(child)
            else:
                parent[child] = above


def tree_size(tree: TermTree, ontology: CellOntology) -> tuple[float, float]:
    """Return the width and height in inches that the drawn tree needs."""
    ends = [
        _INDENT * tree.level[node] + _LETTER * (len(ontology.name(node)) + 8) for node in tree.order
    ]
    return _DOT + 2 * _MARGIN + max(ends, default=1.0), _ROW * len(tree.order) + 2 * _MARGIN


def draw_tree(
    ax: Axes,
    tree: TermTree,
    colors: Mapping[str, str],
    ontology: CellOntology,
    *,
    counts: Mapping[str, int] | None = None,
    notes: Mapping[str, str] | None = None,
    scale_dots: bool = False,
    room: tuple[float, float] | None = None,
) -> None:
    """Draw a tree from top to bottom, one line per term, indented below its parent.

    Parameters
    ----------
    ax
        Empty axes.
    tree
        Tree to draw.
    colors
        Colour of each selected term; common ancestors are small and grey.
    ontology
        Ontology with the names.
    counts
        Number of cells of each term, written after its name.
    notes
        Further text after the name.
    scale_dots
        Whether the area of a dot grows with the number of cells.
    room
        Width and height in inches that the axes will have once they are laid out; their current size if None. A tree that does
        not fit is drawn smaller.
    """
    width, height = tree_size(tree, ontology)
    if room is None:
        figure, box = figure_of(ax), ax.get_position()
        room = (figure.get_figwidth() * box.width, figure.get_figheight() * box.height)
    scale = min(1.0, room[1] / height, room[0] / width)
    most = max(counts.values(), default=1) if counts else 1
    at = {node: (_INDENT * tree.level[node], -_ROW * row) for row, node in enumerate(tree.order)}
    for node, (x, y) in at.items():
        if node in tree.parent:
            left, top = at[tree.parent[node]]
            line: dict[str, Any] = {"color": shade(ax, 0.3), "lw": 0.9 * scale, "zorder": 1}
            ax.plot([left, left, x], [top, y, y], **line)
        selected = node in tree.terms
        n_cells = counts.get(node, 0) if counts else 0
        size = 7.0 if selected else 2.5
        if scale_dots and selected:
            size = 3.5 + 7.5 * float(np.sqrt(n_cells / most))
        edge = shade(ax, 0.8) if selected else "none"
        color = colors.get(node, shade(ax, 0.3))
        ax.plot(x, y, "o", ms=size * scale, mfc=color, mec=edge, mew=0.6, zorder=2)
        name = ax.text(
            x + _DOT,
            y,
            ontology.name(node),
            va="center_baseline",
            fontsize=_FONT * scale,
            color=shade(ax, 1.0 if selected else 0.65),
            style="normal" if selected else "italic",
        )
        cells = f"{n_cells:,}" if counts and node in counts else ""
        if after := "  ".join(filter(None, (cells, (notes or {}).get(node, "")))):
            ax.annotate(
                after,
                xy=(1, 0),
                xycoords=name,
                xytext=(5, 0),
                textcoords="offset points",
                va="bottom",
                fontsize=0.88 * _FONT * scale,
                color=shade(ax, 0.65),
            )
    # one data unit is an inch times the scale; the tree is at the left, vertically centred
    wide, tall = room[0] / scale, room[1] / scale
    top = 0.5 * (_ROW + tall - height) + _MARGIN
    ax.set(xlim=(-_MARGIN, wide - _MARGIN), ylim=(top - tall, top))
    ax.set_axis_off()
