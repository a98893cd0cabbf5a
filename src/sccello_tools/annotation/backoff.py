"""Back-off: the most specific Cell Ontology term whose probability reaches a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.ontology import is_uninformative
from sccello_tools.ontology.graph import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


class Lineage(NamedTuple):
    """A type with its ancestors."""

    terms: tuple[str, ...]
    """The type itself, then its ancestors, deepest first."""
    correct: NDArray[np.float32]
    """(n_types, n_terms): 1 where the term is correct for cells of the type."""


class BackOff(NamedTuple):
    """Terms chosen by back-off."""

    terms: NDArray[np.str_]
    """(n_cells,) Cell Ontology ids, or user-defined names; "" for cells without probabilities."""
    probability: NDArray[np.float32]
    """(n_cells,) probability of the term or its descendants; NaN for cells without probabilities."""


@dataclass(frozen=True, eq=False)
class TypeHierarchy:
    """Ancestors and depths of Cell Ontology terms and of user-defined types."""

    ontology: CellOntology
    parents: Mapping[str, str]
    """Term that each user-defined type is a subtype of."""

    def ancestors(self, name: str) -> frozenset[str]:
        """Return the ancestors of a type, itself included."""
        if name in self.ontology:
            return self.ontology.ancestors(name, include_self=True)
        if name in self.parents:
            return self.ontology.ancestors(self.parents[name], include_self=True) | {name}
        return frozenset((name,))

    def depth(self, name: str) -> int:
        """Return the number of steps below the root; 0 for a user-defined type without a parent."""
        if name in self.ontology:
            return self.ontology.depth(name)
        return self.ontology.depth(self.parents[name]) + 1 if name in self.parents else 0

    def compatible(self, predicted: str, truth: str) -> bool:
        """Whether a prediction is the true type, one of its ancestors or one of its descendants."""
        return predicted in self.ancestors(truth) or truth in self.ancestors(predicted)


@dataclass(frozen=True, eq=False)
class Lineages:
    """Types with their ancestors.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.annotation import Lineages
    >>> from sccello_tools.ontology import CellOntology
    >>> types = ["CL:0000624", "CL:0000625", "CL:0000236"]  # CD4 T, CD8 T, B
    >>> lineages = Lineages.of(types, CellOntology.load())
    >>> probabilities = np.array([[0.55, 0.45, 0.0]], dtype=np.float32)
    >>> lineages.back_off(probabilities, threshold=0.5).terms.tolist()
    ['CL:0000624']
    >>> lineages.back_off(probabilities, threshold=0.9).terms.tolist()  # a T cell
    ['CL:0000791']
    """

    types: tuple[str, ...]
    lineages: tuple[Lineage, ...]
    """One for each of :attr:`types`."""
    hierarchy: TypeHierarchy

    @classmethod
    def of(
        cls,
        types: Sequence[str],
        ontology: CellOntology,
        *,
        parents: Mapping[str, str] | None = None,
        broader_types: bool = False,
    ) -> Lineages:
        """Look up the ancestors of types.

        Parameters
        ----------
        types
            Current terms, or user-defined names.
        ontology
            Cell Ontology.
        parents
            Term that a user-defined name is a subtype of; without one it has no ancestors.
        broader_types
            Whether a term is also correct for types that are its ancestors: cells labelled T cell may be CD4 T cells. Otherwise it is
            correct for itself and its descendants.
        """
        own = tuple(sorted((parents or {}).items()))
        return _lineages(tuple(types), ontology, own, broader_types=broader_types)

    @property
    def width(self) -> int:
        """Number of terms of the longest lineage."""
        return max((len(lineage.terms) for lineage in self.lineages), default=1)

    @cached_property
    def _stacked(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """First row of each lineage and the rows of all of them; see :func:`chain_sums`."""
        lengths = [len(lineage.terms) for lineage in self.lineages]
        rows = [lineage.correct.T for lineage in self.lineages]
        return np.cumsum([0, *lengths]).astype(np.int32), np.ascontiguousarray(np.concatenate(rows))

    def sums(
        self, probabilities: NDArray[np.float32], assigned: NDArray[np.integer]
    ) -> NDArray[np.float16]:
        """Return the probability that each term of the lineage of the assigned type is correct.

        Returns
        -------
        Array of shape (n_cells, width); 1 beyond the end of a lineage.
        """
        from ._decision_kernel import chain_sums

        out = np.empty((len(assigned), self.width), dtype=np.float32)
        chain_sums(
            np.ascontiguousarray(probabilities, dtype=np.float32),
            assigned.astype(np.int32),
            *self._stacked,
            out,
        )
        return out.astype(np.float16)

    def is_correct(
        self, assigned: NDArray[np.integer], truth: NDArray[np.str_]
    ) -> NDArray[np.bool_]:
        """Return whether each term of the lineage of the assigned type is the true type, or above or below it; shape (n_cells, width)."""
        out = np.ones((len(assigned), self.width), dtype=bool)
        for i, (k, label) in enumerate(zip(assigned.tolist(), truth.tolist())):
            terms = self.lineages[k].terms
            out[i, : len(terms)] = [self.hierarchy.compatible(term, label) for term in terms]
        return out

    def back_off(self, probabilities: NDArray[np.float32], *, threshold: float) -> BackOff:
        r"""Climb from the most probable type to the first ancestor whose summed probability reaches a threshold.

        The probability of a term :math:`u` is the sum over the known types at or below it,
        :math:`P_u = \sum_{t \preceq u} p_t`.

        Parameters
        ----------
        probabilities
            (n_cells, n_types); rows with NaN get no term.
        threshold
            Probability to reach; 0 never climbs. If no ancestor reaches it, the topmost one is taken.
        """
        n_cells = len(probabilities)
        longest = max(len(term) for lineage in self.lineages for term in lineage.terms)
        terms = np.full(n_cells, "", dtype=f"U{longest}")
        probability = np.full(n_cells, np.nan, dtype=np.float32)
        best_type = _best_type(probabilities)
        for index, lineage in enumerate(self.lineages):
            rows = np.flatnonzero(best_type == index)
            if not len(rows):
                continue
            sums = probabilities[rows] @ lineage.correct  # (n_rows, n_terms)
            level = choose_level(sums, threshold)
            terms[rows] = np.array(lineage.terms)[level]
            probability[rows] = np.minimum(sums[np.arange(len(rows)), level], 1)
        return BackOff(terms, probability)

    def conformal_scores(
        self, probabilities: NDArray[np.float32], truth: NDArray[np.str_]
    ) -> NDArray[np.float64]:
        """Return, for cells of known type, the lowest threshold above which :meth:`back_off` is correct.

        A term is correct if it is the true type, one of its ancestors or one of its descendants. The quantile of these scores is
        the threshold of split-conformal prediction; see :func:`conformal_threshold`.

        Returns
        -------
        Array of shape (n_cells,), in [0, 1].
        """
        scores = np.ones(len(truth))
        best_type = _best_type(probabilities)
        for index, lineage in enumerate(self.lineages):
            for cell_type in np.unique(truth[best_type == index]):
                rows = np.flatnonzero((best_type == index) & (truth == cell_type))
                correct = np.array(
                    [self.hierarchy.compatible(term, str(cell_type)) for term in lineage.terms]
                )
                highest = np.maximum.accumulate(probabilities[rows] @ lineage.correct, axis=1)
                # back-off stops at an incorrect term for any threshold up to the highest sum reached there
                scores[rows] = np.minimum(np.where(correct, 0, highest).max(axis=1), 1)
        return scores


@lru_cache(maxsize=8)  # the same for all data sets annotated with a model
def _lineages(
    types: tuple[str, ...],
    ontology: CellOntology,
    parents: tuple[tuple[str, str], ...],
    *,
    broader_types: bool,
) -> Lineages:
    hierarchy = TypeHierarchy(ontology, dict(parents))
    ancestors = [hierarchy.ancestors(t) for t in types]

    @cache
    def correct(term: str) -> NDArray[np.float32]:
        above = hierarchy.ancestors(term) if broader_types else frozenset()
        return np.array([term in own or t in above for t, own in zip(types, ancestors)], np.float32)

    @cache
    def key(term: str) -> tuple[int, str]:
        return -hierarchy.depth(term), term

    lineages = []
    for name, own in zip(types, ancestors):
        # "eukaryotic cell" says no more than "cell", the root
        kept = {t for t in own if t in {name, ROOT} or not is_uninformative(t)}
        terms = tuple(sorted(kept, key=key))
        lineages.append(Lineage(terms, np.stack([correct(term) for term in terms], axis=1)))
    return Lineages(types, tuple(lineages), hierarchy)


def _best_type(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
    filled = np.where(usable[:, None], probabilities, 0)
    return np.where(usable, filled.argmax(axis=1), -1)


def choose_level(sums: NDArray[np.floating], threshold: float) -> NDArray[np.intp]:
    """Return the position in the lineage of the first term whose confidence reaches a threshold, shape (n_cells,)."""
    enough = sums >= threshold
    enough[:, -1] = True
    found: NDArray[np.intp] = enough.argmax(axis=1)
    return found


def conformal_threshold(scores: NDArray[np.floating], alpha: float) -> float:
    r"""Return the threshold of split-conformal prediction for a given error rate.

    With :math:`n` calibration cells this is the :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest score. Back-off with this
    threshold is correct for at least :math:`1 - \alpha` of the cells that are exchangeable with the calibration cells.

    Parameters
    ----------
    scores
        Result of :meth:`Lineages.conformal_scores` on calibration cells.
    alpha
        Error rate, in (0, 1).

    Returns
    -------
    The next float above that score; 1 if there are too few calibration cells for this error rate.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.annotation import conformal_threshold
    >>> round(conformal_threshold(np.linspace(0, 0.99, 100), 0.1), 2)
    0.9
    """
    n = len(scores)
    rank = int(np.ceil((n + 1) * (1 - alpha)))
    if rank > n:
        return 1.0
    return float(min(1.0, np.nextafter(np.float32(np.sort(scores)[rank - 1]), np.float32(2))))
