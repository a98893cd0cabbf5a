"""The part of the Cell Ontology that some terms span, made small enough to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_A_PAIR = 2
_VAGUE_ABOVE = 2  # depth: "cell" and "eukaryotic cell"


@dataclass(frozen=True)
class TermTree:
    """Terms and the ancestors where they part, as a forest; the ontology itself is no tree, so each node hangs from one parent."""

    order: tuple[str, ...]
    """All nodes, parents before children, relatives together."""
    parent: dict[str, str]
    """Parent of each node that has one."""
    level: dict[str, int]
    """Steps from the top of the drawn tree."""
    terms: frozenset[str]
    """The nodes that were asked for; the others only join them."""
    vague: frozenset[str]
    """Nodes that nearly every cell is below, so that sharing one makes no relatives."""

    @classmethod
    def of(cls, terms: Sequence[str], ontology: CellOntology) -> TermTree:
        """Span terms: keep them and their deepest common ancestors, leave out what lies between.

        Parameters
        ----------
        terms
            Current Cell Ontology ids.
        ontology
            Where they stand.
        """
        asked = sorted(set(terms))
        nodes = set(asked)
        for i, a in enumerate(asked):
            for b in asked[:i]:
                nodes.update(ontology.lca(a, b)[:1])
        parent = {}
        for node in sorted(nodes):
            above = ontology.ancestors(node) & nodes
            if above:
                parent[node] = min(above, key=lambda term: (-ontology.depth(term), term))
        _prune(nodes, parent, joints=nodes - set(asked))
        children = _children(parent)
        order: list[str] = []
        level: dict[str, int] = {}
        waiting = [
            (node, 0) for node in sorted(nodes - set(parent), key=ontology.name, reverse=True)
        ]
        while waiting:
            node, depth = waiting.pop()
            order.append(node)
            level[node] = depth
            own = sorted(children.get(node, []), key=ontology.name, reverse=True)
            waiting += [(child, depth + 1) for child in own]
        vague = frozenset(node for node in nodes if ontology.depth(node) < _VAGUE_ABOVE)
        return cls(tuple(order), parent, level, frozenset(asked), vague)

    @property
    def leaves_in_order(self) -> tuple[str, ...]:
        """The terms that were asked for, relatives together."""
        return tuple(node for node in self.order if node in self.terms)

    def distance(self, a: str, b: str) -> int:
        """Count the steps between two nodes; through a common root if they hang from different ones."""
        up_a, up_b = self._path(a), self._path(b)
        shared = len(set(up_a) & set(up_b))
        apart = len(up_a) + len(up_b) - 2 * shared
        return apart if shared else apart + 2

    def ancestor_at(self, term: str, level: int) -> str:
        """Return the node above ``term``, or itself, that is at most ``level`` steps from the top."""
        path = self._path(term)
        return path[max(0, len(path) - 1 - level)]

    def links(
        self, places: Mapping[str, NDArray[np.floating]] | None = None
    ) -> list[tuple[str, str]]:
        """Pairs of asked terms to tie: each with its nearest asked ancestor, else with its nearest relative, if it has one.

        Of relatives that are as near in the tree, that one is taken which is nearest in ``places``.
        """
        found = set()
        for term in sorted(self.terms):
            above = [node for node in self._path(term)[1:] if node in self.terms]
            own = set(self._path(term)) - self.vague
            others = [o for o in self.leaves_in_order if o != term and own & set(self._path(o))]
            if above or others:
                near = (
                    above[0]
                    if above
                    else min(
                        others, key=lambda o: (self.distance(term, o), _apart(term, o, places), o)
                    )
                )
                found.add((min(term, near), max(term, near)))
        return sorted(found)

    def lineage(self, term: str) -> str:
        """Return the broadest node above a term that says anything: below "cell" and its like."""
        path = self._path(term)
        return next((node for node in reversed(path) if node not in self.vague), term)

    def _path(self, node: str) -> list[str]:
        path = [node]
        while path[-1] in self.parent:
            path.append(self.parent[path[-1]])
        return path


def _apart(a: str, b: str, places: Mapping[str, NDArray[np.floating]] | None) -> float:
    if places is None or a not in places or b not in places:
        return 0.0
    return float(np.linalg.norm(places[a] - places[b]))


def _children(parent: dict[str, str]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for node, above in parent.items():
        children.setdefault(above, []).append(node)
    return children


def _prune(nodes: set[str], parent: dict[str, str], *, joints: set[str]) -> None:
    """Take out, in place, joints that join nothing: with one child, or none."""
    while idle := [
        j for j in sorted(joints & nodes) if len(_children(parent).get(j, [])) < _A_PAIR
    ]:
        node = idle[0]
        nodes.discard(node)
        above = parent.pop(node, None)
        for child in [c for c, its_parent in parent.items() if its_parent == node]:
            if above is None:
                parent.pop(child)
            else:
                parent[child] = above
