"""Back-off: the most specific Cell Ontology term that is sure enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


class Chain(NamedTuple):
    """A known type and all that it is a kind of."""

    terms: tuple[str, ...]
    """The type itself, then its ancestors, deepest first."""
    below: NDArray[np.float32]
    """(n_types, n_terms): 1 where the known type is the term or below it."""


class Answer(NamedTuple):
    """Terms that a back-off chose."""

    terms: NDArray[np.str_]
    """(n_cells,) CL ids, or names of no term; "" for cells without probabilities."""
    probability: NDArray[np.float32]
    """(n_cells,): that the cell is of this type or one below; NaN for cells without probabilities."""
    nearest: NDArray[np.intp]
    """(n_cells,) index of the most probable known type; -1 for cells without probabilities."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where terms, and names of a user's own, stand in the ontology."""

    ontology: CellOntology
    parents: Mapping[str, str]

    def above(self, name: str) -> frozenset[str]:
        """Return all that it is a kind of, itself included."""
        if name in self.ontology:
            return self.ontology.ancestors(name, include_self=True)
        if name in self.parents:
            return self.ontology.ancestors(self.parents[name], include_self=True) | {name}
        return frozenset((name,))

    def depth(self, name: str) -> int:
        """Count the steps below the root; names without a parent are at the top."""
        if name in self.ontology:
            return self.ontology.depth(name)
        return self.ontology.depth(self.parents[name]) + 1 if name in self.parents else 0


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
    >>> unsure = np.array([[0.55, 0.45, 0.0]], dtype=np.float32)
    >>> lineages.answer(unsure, at_least=0.5).terms.tolist(), lineages.answer(unsure, at_least=0.9).terms.tolist()
    (['CL:0000624'], ['CL:0000791'])
    """

    types: tuple[str, ...]
    chains: tuple[Chain, ...]
    """One for each of :attr:`types`."""
    place: Place
    """Where each stands."""

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
            Current terms, or names of a user's own.
        ontology
            Cell Ontology.
        parents
            The term that a name of a user's own belongs under; without one it stands alone.
        """
        place = Place(ontology, parents or {})
        above = [place.above(t) for t in types]
        chains = []
        for own in above:
            terms = tuple(sorted(own, key=lambda term: (-place.depth(term), term)))
            below = np.array([[term in other for term in terms] for other in above])
            chains.append(Chain(terms, below.astype(np.float32)))
        return cls(tuple(types), tuple(chains), place)

    def answer(self, probabilities: NDArray[np.float32], *, at_least: float) -> Answer:
        """For each cell, climb from its most probable type to the first term whose summed probability is high enough.

        Parameters
        ----------
        probabilities
            (n_cells, n_types); rows with NaN get no answer.
        at_least
            Probability to reach; 0 never climbs. The topmost term is taken where none reaches it.
        """
        n_cells = len(probabilities)
        widest = max(len(term) for chain in self.chains for term in chain.terms)
        terms = np.full(n_cells, "", dtype=f"U{widest}")
        found = np.full(n_cells, np.nan, dtype=np.float32)
        nearest = self._nearest(probabilities)
        for index, chain in enumerate(self.chains):
            rows = np.flatnonzero(nearest == index)
            if not len(rows):
                continue
            sums = probabilities[rows] @ chain.below  # (n_rows, n_terms)
            enough = sums >= at_least
            enough[:, -1] = True
            first = enough.argmax(axis=1)
            terms[rows] = np.array(chain.terms)[first]
            found[rows] = np.minimum(sums[np.arange(len(rows)), first], 1)
        return Answer(terms, found, nearest)

    def least_sure(
        self, probabilities: NDArray[np.float32], truth: NDArray[np.str_]
    ) -> NDArray[np.float64]:
        """For each cell of known truth, the threshold above which :meth:`answer` is right.

        An answer is right if the truth is that term or below it, or the answer is a subtype of the truth. These are the scores
        whose quantile split-conformal prediction takes as threshold.

        Returns
        -------
        (n_cells,) in [0, 1]; any ``at_least`` above it gives a right answer.
        """
        scores = np.ones(len(truth))
        nearest = self._nearest(probabilities)
        for index, chain in enumerate(self.chains):
            for cell_type in np.unique(truth[nearest == index]):
                rows = np.flatnonzero((nearest == index) & (truth == cell_type))
                own = self.place.above(str(cell_type))
                right = np.array(
                    [term in own or cell_type in self.place.above(term) for term in chain.terms]
                )
                highest = np.maximum.accumulate(probabilities[rows] @ chain.below, axis=1)
                # climbing stops at a wrong term up to the highest sum seen there
                wrong = np.where(right, 0, highest)
                scores[rows] = np.minimum(wrong.max(axis=1), 1)
        return scores

    @staticmethod
    def _nearest(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
        filled = np.where(usable[:, None], probabilities, 0)
        return np.where(usable, filled.argmax(axis=1), -1)


def conformal_threshold(scores: NDArray[np.floating], alpha: float) -> float:
    """Threshold whose answers are right for at least 1 - alpha of cells exchangeable with the calibration cells.

    Parameters
    ----------
    scores
        What :meth:`Lineages.least_sure` gives for the calibration cells.
    alpha
        Share of wrong answers to allow, in (0, 1).

    Returns
    -------
    The ceil((n + 1)(1 - alpha))-th smallest score, just above; 1 if there are too few cells to promise that.

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
