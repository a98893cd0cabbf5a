"""Terms that can be assigned, and their relations to the known types in the Cell Ontology."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.ontology import pagerank_rows

from .zero_shot import resolve_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .markers import CellMarkers

ROOT: Final = "CL:0000000"
ABNORMAL: Final = "CL:0001061"
"""Abnormal cell, such as malignant cell: marker genes do not distinguish it from its cell of origin, so it is assigned on request only."""
_LEAST_SIMILARITY = 1e-7


@dataclass(frozen=True, eq=False)
class TermSpace:
    """Known types, followed by the open terms: terms without training cells that may be assigned as well."""

    known: tuple[str, ...]
    """Known types: Cell Ontology ids, or user-defined names."""
    open: tuple[str, ...]
    """Terms without a known type at or below them."""
    placed: NDArray[np.bool_]
    """(n_known,) whether a known type or its parent is in the ontology."""
    below: NDArray[np.float32]
    """(n_rows, n_known): 1 where the known type is the row's term or a descendant."""
    lin: NDArray[np.float32]
    """(n_rows, n_known) similarity by information content (Lin 1998)."""
    log_pagerank: NDArray[np.float32]
    """(n_rows, n_known) log of personalised PageRank, restarting at the row's term."""
    rank_rows: NDArray[np.float64]
    """(n_rows, n_placed) personalised PageRank of the placed known types, for rank correlation."""
    depth: NDArray[np.float32]
    """(n_rows,) longest path to the root."""
    n_sources: NDArray[np.float32]
    """(n_rows,) number of resources that list markers of the term, as a measure of how commonly it is used."""
    siblings: tuple[tuple[str, ...], ...]
    """Siblings of each row: terms that share a parent."""
    extra: tuple[str, ...] = ()
    """Further terms that are scored only if they are candidates."""

    @property
    def rows(self) -> tuple[str, ...]:
        """All terms."""
        return self.known + self.open + self.extra

    def __len__(self) -> int:
        """Count the terms."""
        return len(self.known) + len(self.open) + len(self.extra)

    @classmethod
    def of(
        cls,
        known: Sequence[str],
        ontology: CellOntology,
        markers: CellMarkers,
        *,
        parents: Mapping[str, str] | None = None,
        candidates: Sequence[str] | None = None,
        extra: Sequence[str] = (),
    ) -> TermSpace:
        """Collect the terms and compute their similarities.

        Parameters
        ----------
        known
            Known types.
        ontology
            Cell Ontology.
        markers
            Terms with markers may be assigned.
        parents
            Parent term of each user-defined type.
        candidates
            Terms to choose from besides the known types, instead of all terms with markers.
        extra
            Further terms to score.
        """
        return _space(
            tuple(known),
            ontology,
            markers,
            tuple(sorted((parents or {}).items())),
            None if candidates is None else tuple(candidates),
            tuple(extra),
        )

    def take_known(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which rows are neither masked known types nor above a kept one, if only ``kept`` were known."""
        above = (self.below @ kept.astype(np.float32)) > 0
        above[: len(self.known)] = kept
        return above


@lru_cache(maxsize=4)
def _space(
    known: tuple[str, ...],
    ontology: CellOntology,
    markers: CellMarkers,
    parents: tuple[tuple[str, str], ...],
    candidates: tuple[str, ...] | None,
    extra: tuple[str, ...],
) -> TermSpace:
    own_parents = dict(parents)
    place = [own_parents.get(name, name) for name in known]
    placed = np.array([term in ontology for term in place], dtype=bool)
    taken = {term for name in place if name in ontology for term in up(ontology, name)}
    if candidates is None:
        usable = human_terms(ontology)
        terms = [t for t in markers.terms if t in usable and t not in taken]
    else:
        terms = [t for t in dict.fromkeys(candidates) if t not in set(known)]
    there = {*known, *terms}
    further = [t for t in dict.fromkeys(extra) if t not in there]
    rows = [*place, *terms, *further]
    in_ontology = [t for t, ok in zip(place, placed) if ok]
    pagerank = np.zeros((len(rows), len(known)))
    real = np.flatnonzero([t in ontology for t in rows])
    pagerank[np.ix_(real, np.flatnonzero(placed))] = pagerank_rows(
        ontology, [rows[i] for i in real], columns=in_ontology
    )
    return TermSpace(
        tuple(known),
        tuple(terms),
        placed,
        _below(rows, place, ontology, n_known=len(known)),
        lin_similarity(rows, place, ontology),
        np.log(np.maximum(pagerank, _LEAST_SIMILARITY)).astype(np.float32),
        np.ascontiguousarray(pagerank[:, placed]),
        np.array([ontology.depth(t) if t in ontology else 0 for t in rows], dtype=np.float32),
        markers.n_sources(rows).astype(np.float32),
        tuple(tuple(siblings_of(t, ontology)) for t in rows),
        tuple(further),
    )


@lru_cache(maxsize=8)
def _human(ontology: CellOntology) -> frozenset[str]:
    abnormal = (
        ontology.descendants(ABNORMAL, include_self=True) if ABNORMAL in ontology else frozenset()
    )
    return frozenset(resolve_candidates(None, ontology)) - abnormal


def human_terms(ontology: CellOntology) -> frozenset[str]:
    """Return the terms of healthy human cells that are more specific than "cell"."""
    return _human(ontology)


def siblings_of(term: str, ontology: CellOntology) -> list[str]:
    """Return the terms that share a parent with a term, ascending."""
    if term not in ontology:
        return []
    return sorted(
        {child for parent in ontology.parents(term) for child in ontology.children(parent)} - {term}
    )


def up(ontology: CellOntology, term: str) -> frozenset[str]:
    """Return the ancestors of a term and the term itself; only itself for a name that is not a term."""
    return ontology.ancestors(term, include_self=True) if term in ontology else frozenset((term,))


def _below(
    rows: Sequence[str], place: Sequence[str], ontology: CellOntology, *, n_known: int
) -> NDArray[np.float32]:
    above = [up(ontology, term) for term in place]
    found = np.array([[row in own for own in above] for row in rows], dtype=np.float32).reshape(
        len(rows), len(place)
    )
    # two user-defined types of the same parent are not descendants of each other
    same = np.array(
        [[a == b and i != j for j, b in enumerate(place)] for i, a in enumerate(rows[:n_known])]
    )
    found[:n_known][same] = 0
    return found


def lin_similarity(
    rows: Sequence[str], place: Sequence[str], ontology: CellOntology
) -> NDArray[np.float32]:
    """Return 2 IC(most informative common ancestor) / (IC(a) + IC(b)), IC(t) = log(n_terms / (1 + descendants of t))."""
    content = _content(ontology)
    terms = sorted({a for t in {*rows, *place} for a in up(ontology, t)} - {ROOT})
    column = {t: i for i, t in enumerate(terms)}
    values = np.array([content.get(t, 0.0) for t in terms])

    def indicator(names: Sequence[str]) -> NDArray[np.bool_]:
        out = np.zeros((len(names), len(terms)), dtype=bool)
        for i, name in enumerate(names):
            out[i, [column[a] for a in up(ontology, name) if a in column]] = True
        return out

    a, b = indicator(rows), indicator(place)
    found = np.zeros((len(rows), len(place)), dtype=np.float32)
    own_a = np.array([content.get(t, 0.0) for t in rows])
    own_b = np.array([content.get(t, 0.0) for t in place])
    for j in range(len(place)):
        common = np.where(a & b[j], values, 0).max(axis=1, initial=0)
        found[:, j] = 2 * common / np.maximum(own_a + own_b[j], 1e-6)
    return found


@cache
def _content(ontology: CellOntology) -> dict[str, float]:
    n = len(ontology)
    return {t: float(np.log(n / (1 + len(ontology.descendants(t))))) for t in ontology.terms}
