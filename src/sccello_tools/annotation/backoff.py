"""Back-off: the most specific Cell Ontology term whose probability reaches a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


class Lineage(NamedTuple):
    """A known type with its ancestors."""

    terms: tuple[str, ...]
    """The type itself, then its ancestors, deepest first."""
    is_below: NDArray[np.float32]
    """(n_types, n_terms): 1 where the known type is the term or one of its descendants."""


class BackOff(NamedTuple):
    """Terms chosen by back-off."""

    terms: NDArray[np.str_]
    """(n_cells,) CL ids, or user-defined names; "" for cells without probabilities."""
    probability: NDArray[np.float32]
    """(n_cells,) probability of the term or its descendants; NaN for cells without probabilities."""
    best_type: NDArray[np.intp]
    """(n_cells,) index of the most probable known type; -1 for cells without probabilities."""


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
    """The known types with their ancestors.

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
        """
        hierarchy = TypeHierarchy(ontology, parents or {})
        ancestors = [hierarchy.ancestors(t) for t in types]
        lineages = []
        for own in ancestors:
            terms = tuple(sorted(own, key=lambda term: (-hierarchy.depth(term), term)))
            is_below = np.array([[term in other for term in terms] for other in ancestors])
            lineages.append(Lineage(terms, is_below.astype(np.float32)))
        return cls(tuple(types), tuple(lineages), hierarchy)

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
            sums = probabilities[rows] @ lineage.is_below  # (n_rows, n_terms)
            reached = sums >= threshold
            reached[:, -1] = True
            first = reached.argmax(axis=1)
            terms[rows] = np.array(lineage.terms)[first]
            probability[rows] = np.minimum(sums[np.arange(len(rows)), first], 1)
        return BackOff(terms, probability, best_type)

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
                highest = np.maximum.accumulate(probabilities[rows] @ lineage.is_below, axis=1)
                # climbing stops at an incorrect term for any threshold up to the highest sum seen there
                scores[rows] = np.minimum(np.where(correct, 0, highest).max(axis=1), 1)
        return scores


def _best_type(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
    filled = np.where(usable[:, None], probabilities, 0)
    return np.where(usable, filled.argmax(axis=1), -1)


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
