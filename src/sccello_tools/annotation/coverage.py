"""Back-off along the ontology: the most specific term of which a data set's cells are right often enough."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .backoff import TypeHierarchy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_N_THRESHOLDS = 200
_SUBTYPE = 0.75  # utility of a subtype of the true type, relative to the type itself
_FEWEST = 50
"""Known cells that a data set needs for a threshold of its own."""


class TermChain(NamedTuple):
    """A term and its ancestors, deepest first."""

    terms: tuple[str, ...]
    right: NDArray[np.float32]
    """(n_columns, n_terms): 1 where the term is right if the column's type is true."""


@dataclass(frozen=True, eq=False)
class TermChains:
    """Chains of ancestors of the terms that cells are assigned to."""

    chains: tuple[TermChain, ...]
    width: int
    """Terms of the longest chain."""

    @classmethod
    def of(
        cls,
        terms: Sequence[str],
        columns: Sequence[str],
        ontology: CellOntology,
        *,
        parents: Mapping[str, str] | None = None,
        broader_is_right: bool = True,
    ) -> TermChains:
        """Look up the ancestors of terms.

        Parameters
        ----------
        terms
            Terms, or names of a user's own, to build a chain for.
        columns
            Types whose probabilities are summed.
        ontology
            Cell Ontology.
        parents
            Term of each name of a user's own.
        broader_is_right
            Whether a term is right, too, for cells whose type is one of its ancestors: cells labelled T cell may be CD4 T cells.
        """
        return _chains(
            tuple(terms),
            tuple(columns),
            ontology,
            tuple(sorted((parents or {}).items())),
            broader_is_right=broader_is_right,
        )

    def sums(
        self, probabilities: NDArray[np.float32], assigned: NDArray[np.integer]
    ) -> NDArray[np.float16]:
        """Probability that each term of the assigned chain is right, shape (n_cells, width); 1 beyond the end of a chain."""
        from ._decision_kernel import chain_sums

        out = np.empty((len(assigned), self.width), dtype=np.float32)
        chain_sums(
            np.ascontiguousarray(probabilities, dtype=np.float32),
            assigned.astype(np.int32),
            *self._stacked,
            out,
        )
        return out.astype(np.float16)

    @cached_property
    def _stacked(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """First term of each chain, and where the terms of all chains are right; see :func:`chain_sums`."""
        lengths = [len(chain.terms) for chain in self.chains]
        rows = [chain.right.T for chain in self.chains]
        return np.cumsum([0, *lengths]).astype(np.int32), np.ascontiguousarray(np.concatenate(rows))


@lru_cache(maxsize=8)  # the same for all data sets that a model annotates
def _chains(
    terms: tuple[str, ...],
    columns: tuple[str, ...],
    ontology: CellOntology,
    parents: tuple[tuple[str, str], ...],
    *,
    broader_is_right: bool,
) -> TermChains:
    hierarchy = TypeHierarchy(ontology, dict(parents))
    of_column = [hierarchy.ancestors(c) for c in columns]

    @cache
    def right(term: str) -> NDArray[np.float32]:
        above = hierarchy.ancestors(term) if broader_is_right else frozenset()
        return np.array([term in own or c in above for c, own in zip(columns, of_column)], np.float32)  # fmt: skip

    @cache
    def key(term: str) -> tuple[int, str]:
        return -hierarchy.depth(term), term

    chains = []
    for term in terms:
        chain = tuple(sorted(hierarchy.ancestors(term), key=key))
        chains.append(TermChain(chain, np.stack([right(t) for t in chain], axis=1)))
    return TermChains(tuple(chains), max((len(c.terms) for c in chains), default=1))


def utilities(
    types: Sequence[str], ontology: CellOntology, *, parents: Mapping[str, str] | None = None
) -> NDArray[np.float32]:
    """Return the utility of predicting the column type for a cell of the row type, (n_types, n_types).

    It is the hierarchical F1 of both, plus 1 for the true type itself or 0.75 for a subtype of it: a T cell may be a CD4 T cell, but if
    subtypes counted as much as the type itself, the type would never be assigned.

    Examples
    --------
    >>> from sccello_tools.annotation.coverage import utilities
    >>> from sccello_tools.ontology import CellOntology
    >>> utilities(["CL:0000084", "CL:0000624"], CellOntology.load()).astype(float).round(2).tolist()  # T, CD4 T
    [[2.0, 1.58], [0.83, 2.0]]
    """
    hierarchy = TypeHierarchy(ontology, parents or {})
    ancestors = [hierarchy.ancestors(name) for name in types]
    terms = {term: i for i, term in enumerate(sorted(set().union(*ancestors)))}
    member = np.zeros((len(types), len(terms)), dtype=np.float32)
    for row, own in zip(member, ancestors):
        row[[terms[term] for term in own]] = 1
    n_terms = member.sum(axis=1)
    f1 = 2 * (member @ member.T) / (n_terms[:, None] + n_terms)
    recall = member[:, [terms[name] for name in types]].T * _SUBTYPE
    np.fill_diagonal(recall, 1)
    found: NDArray[np.float32] = (recall + f1).astype(np.float32)
    return found


def assigned_types(
    probabilities: NDArray[np.floating], utility: NDArray[np.floating] | None = None
) -> NDArray[np.int32]:
    """Return the most probable type of each cell, or the one with the highest expected utility among those that are possible."""
    expected = probabilities
    if utility is not None:
        expected = np.where(probabilities > 0, probabilities @ utility, -1)
    found: NDArray[np.int32] = expected.argmax(axis=1).astype(np.int32)
    return found


def choose_level(sums: NDArray[np.floating], threshold: float) -> NDArray[np.intp]:
    """Place in the chain of the first term whose confidence reaches a threshold; shape (n_cells,)."""
    enough = sums >= threshold
    enough[:, -1] = True
    found: NDArray[np.intp] = enough.argmax(axis=1)
    return found


def coverage_threshold(
    sums: NDArray[np.floating],
    alpha: float,
    *,
    weight: NDArray[np.floating] | None = None,
    fallback: float | None = None,
) -> float:
    """Lowest threshold at which the terms of a data set are right for an expected 1 - alpha of its cells.

    Parameters
    ----------
    sums
        (n_cells, width) of :meth:`TermChains.sums`; rows with NaN are left out.
    alpha
        Share of wrong terms to allow, in (0, 1).
    weight
        (n_cells,) how much each cell counts; all alike if not given.
    fallback
        Returned for fewer than 50 cells, whose mean says little: the threshold of the held-out studies together.

    Returns
    -------
    A threshold in [0, 1]; 0 if the most specific terms are right often enough.
    """
    usable = np.isfinite(sums).all(axis=1)
    values = sums[usable].astype(np.float32)
    if fallback is not None and len(values) < _FEWEST:
        return fallback
    w = np.ones(len(values)) if weight is None else weight[usable]
    rows = np.arange(len(values))
    for threshold in np.linspace(0, 1, _N_THRESHOLDS + 1):
        if np.average(values[rows, choose_level(values, threshold)], weights=w) >= 1 - alpha:
            return float(threshold)
    return 1.0


def pooled_threshold(
    sums: NDArray[np.floating], right: NDArray[np.bool_], weight: NDArray[np.floating], alpha: float
) -> float:
    """Lowest threshold at which 1 - alpha of calibration cells have a right term."""
    rows = np.arange(len(sums))
    for threshold in np.linspace(0, 1, _N_THRESHOLDS + 1):
        if np.average(right[rows, choose_level(sums, threshold)], weights=weight) >= 1 - alpha:
            return float(threshold)
    return 1.0


def is_right(
    chains: TermChains,
    assigned: NDArray[np.integer],
    truth: NDArray[np.str_],
    ontology: CellOntology,
) -> NDArray[np.bool_]:
    """Whether each term of the assigned chain is the true type, above or below it; shape (n_cells, width)."""
    hierarchy = TypeHierarchy(ontology, {})
    out = np.ones((len(assigned), chains.width), dtype=bool)
    for i, (k, label) in enumerate(zip(assigned.tolist(), truth.tolist())):
        terms = chains.chains[k].terms
        out[i, : len(terms)] = [hierarchy.compatible(t, label) for t in terms]
    return out
