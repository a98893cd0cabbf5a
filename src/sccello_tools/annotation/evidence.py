"""Log-linear combination of embedding, ontology and marker evidence over known and open terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.ontology import RankedRows

from .marker_scores import N_TOP, MarkerScores, over_rows
from .term_space import human_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .marker_scores import MarkerScorer
    from .term_space import TermSpace

PAIR_FEATURES: Final = (
    "specific",
    "specific_absolute",
    "sibling",
    "negative",
    "own",
    "log_pagerank",
    "lin",
    "rank",
)
MARKER_FEATURES: Final = PAIR_FEATURES[:5]
SOURCES: Final = {
    "markers": MARKER_FEATURES,
    "embedding": ("log_pagerank", "lin", "log_probability", "distance"),
    "ontology": ("rank",),
    "prior": ("depth", "log_sources", "bias"),
}
"""Weights of each source of evidence."""
_LEAST_LOG_PROBABILITY = -12.0


@dataclass(frozen=True)
class EvidenceWeights:
    r"""Weights of the log-linear model.

    The score of a term for a cell is :math:`\theta \cdot f(\mathrm{cell}, \mathrm{term})` over :data:`PAIR_FEATURES`, plus, for a known
    type, ``log_probability`` times its log probability under the classifier, or, for an open term, ``bias + depth * depth +
    log_sources * log(1 + sources) + distance * log(Mahalanobis distance to the nearest known type)``.
    """

    specific: float
    """Of the t-value of the markers that distinguish the term from its siblings, relative to the cell's highest; >= 0."""
    specific_absolute: float
    """Of the same t-value over 10; >= 0."""
    sibling: float
    """Of the highest relative t-value of a sibling; <= 0."""
    negative: float
    """Of the t-value of negative markers over 10; <= 0."""
    own: float
    """Of the t-value of all positive markers, relative to the cell's highest; >= 0."""
    log_pagerank: float
    """Of the expected log PageRank similarity to the cell's known type; >= 0."""
    lin: float
    """Of the expected Lin similarity to the cell's known type; >= 0."""
    rank: float
    """Of the Spearman correlation of cosines to prototypes with the term's PageRank (scCello, section 4.3); >= 0."""
    log_probability: float
    """Of the classifier's log probability of a known type; >= 0."""
    depth: float
    log_sources: float
    """>= 0"""
    distance: float
    """>= 0"""
    bias: float

    def array(self) -> NDArray[np.float32]:
        """Return the weights in the order of the fields."""
        return np.array([getattr(self, f.name) for f in fields(self)], dtype=np.float32)

    @classmethod
    def of(cls, values: Sequence[float] | NDArray[np.floating]) -> EvidenceWeights:
        """Make weights of values in the order of the fields."""
        return cls(*(float(value) for value in values))

    def only(self, sources: Sequence[str]) -> EvidenceWeights:
        """Return weights with all sources but the named ones (and the prior) at 0."""
        kept = {name for source in (*sources, "prior") for name in SOURCES[source]}
        return EvidenceWeights(
            **{name: value if name in kept else 0.0 for name, value in asdict(self).items()}
        )


class CellEvidence(NamedTuple):
    """Evidence of each source on some cells, one row per cell."""

    log_probabilities: NDArray[np.float32]
    """(n_cells, n_known) of the classifier; -inf for types that are ruled out."""
    cosines: NDArray[np.float32]
    """(n_cells, n_known) to the prototypes of the known types."""
    log_distance: NDArray[np.float32]
    """(n_cells,) log Mahalanobis distance to the nearest known type."""
    markers: MarkerScores | None
    """``None`` if there are no counts."""


class SharedScores(NamedTuple):
    """The part of the scores that known and open terms have in common, by source; each of shape (n_cells, n_rows)."""

    embedding: NDArray[np.float32]
    ontology: NDArray[np.float32]
    markers: NDArray[np.float32]

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum over sources."""
        found: NDArray[np.float32] = self.embedding + self.ontology + self.markers
        return found


@dataclass(frozen=True, eq=False)
class EvidenceModel:
    """The log-linear model for a term space."""

    space: TermSpace
    weights: EvidenceWeights
    marker_of_row: NDArray[np.int32]
    """(n_rows,) index of the row's term among the scored terms; -1 for terms without markers."""
    counted: NDArray[np.bool_]
    """(n_marker_terms,) terms whose t-values set the scale of a cell's marker evidence."""
    sibling_starts: NDArray[np.int32]
    sibling_markers: NDArray[np.int32]
    _ranked: dict[bytes, RankedRows] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        space: TermSpace,
        scorer: MarkerScorer,
        weights: EvidenceWeights,
        ontology: CellOntology,
        *,
        parents: Mapping[str, str] | None = None,
    ) -> EvidenceModel:
        """Look up the rows' terms among those of the scorer."""
        place = {term: index for index, term in enumerate(scorer.terms)}
        parents = parents or {}
        human = human_terms(ontology)
        siblings = [[place[t] for t in row if t in place and t in human] for row in space.siblings]
        has_markers = np.zeros(len(place), dtype=bool)
        positive = scorer.entry_weights[:, 0] > 0
        has_markers[np.unique(scorer.entry_terms[positive])] = True
        return cls(
            space,
            weights,
            np.array([place.get(parents.get(t, t), -1) for t in space.rows], dtype=np.int32),
            has_markers & np.array([t in human for t in scorer.terms]),
            np.cumsum([0, *map(len, siblings)]).astype(np.int32),
            np.array([m for row in siblings for m in row], dtype=np.int32),
        )

    def pair_features(self, cells: CellEvidence) -> NDArray[np.float32]:
        """Return :data:`PAIR_FEATURES` of each cell and row, shape (n_cells, n_features, n_rows)."""
        probabilities = np.exp(cells.log_probabilities)
        n_cells, n_rows = len(probabilities), len(self.space)
        out = np.zeros((n_cells, len(PAIR_FEATURES), n_rows), dtype=np.float32)
        if cells.markers is not None:
            from ._evidence_kernel import marker_features

            own, specific, negative = _filled(cells.markers)
            marker_features(
                own,
                specific,
                negative,
                self.counted,
                self.marker_of_row,
                self.sibling_starts,
                self.sibling_markers,
                N_TOP,
                out[:, :5],
            )
        out[:, 5] = probabilities @ self.space.log_pagerank.T
        out[:, 6] = probabilities @ self.space.lin.T
        out[:, 7] = self._rank_correlations(cells)
        return out

    def _rank_correlations(self, cells: CellEvidence) -> NDArray[np.float32]:
        """Spearman correlation of cosines to the known types with each row's PageRank, shape (n_cells, n_rows)."""
        kept = self.space.placed & np.isfinite(cells.log_probabilities).any(axis=0)
        key = kept.tobytes()
        ranked = self._ranked.get(key)
        if ranked is None:
            rows = self.space.rank_rows[:, kept[self.space.placed]]
            ranked = RankedRows(np.ascontiguousarray(rows))
            self._ranked.clear()  # while weights are fitted, each block masks other types
            self._ranked[key] = ranked
        found = ranked.correlations(np.ascontiguousarray(cells.cosines[:, kept]))
        # of constant cosines
        np.nan_to_num(found, copy=False)
        return found

    def shared_parts(self, cells: CellEvidence) -> SharedScores:
        """Return the part of the scores that known and open terms have in common, by source: weights times pair features."""
        w = self.weights
        probabilities = np.exp(cells.log_probabilities)
        similarity = (
            np.float32(w.log_pagerank) * self.space.log_pagerank
            + np.float32(w.lin) * self.space.lin
        )
        embedding = probabilities @ similarity.T
        ontology = np.zeros_like(embedding)
        if w.rank:
            ontology = self._rank_correlations(cells)
            ontology *= np.float32(w.rank)
        markers = np.zeros_like(embedding)
        marker_weights = w.array()[:5]
        if cells.markers is not None and marker_weights.any():
            from ._evidence_kernel import add_marker_scores

            own, specific, negative = _filled(cells.markers)

            def part(rows: slice) -> None:
                add_marker_scores(
                    own[rows],
                    specific[rows],
                    negative[rows],
                    self.counted,
                    self.marker_of_row,
                    self.sibling_starts,
                    self.sibling_markers,
                    N_TOP,
                    marker_weights,
                    markers[rows],
                )

            over_rows(len(markers), part)
        return SharedScores(embedding, ontology, markers)

    @property
    def prior(self) -> NDArray[np.float32]:
        """(n_rows,) terms of the scores of open terms that are the same for every cell."""
        sources = np.log1p(self.space.n_sources)
        found: NDArray[np.float32] = np.asarray(
            self.weights.depth * self.space.depth + self.weights.log_sources * sources,
            dtype=np.float32,
        )
        return found

    def open_scores(self, cells: CellEvidence) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the terms of the scores of open terms that depend on the cell, (n_cells,), and on the term, (n_rows,)."""
        by_cell = self.weights.bias + self.weights.distance * cells.log_distance
        return by_cell.astype(np.float32), self.prior

    def known_scores(self, cells: CellEvidence) -> NDArray[np.float32]:
        """Return the terms of the scores that only known types have, shape (n_cells, n_known)."""
        clipped = np.maximum(cells.log_probabilities, _LEAST_LOG_PROBABILITY)
        found: NDArray[np.float32] = np.float32(self.weights.log_probability) * clipped
        return found


def _filled(markers: MarkerScores) -> MarkerScores:
    """Replace the scores of cells without counts by 0."""
    if np.isnan(markers.own[:, :1]).any():
        return MarkerScores(*(np.nan_to_num(values) for values in markers))
    return markers


def log_sum_exp(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithm of the sum of exponentials of each row."""
    most = scores.max(axis=1, keepdims=True)
    found: NDArray[np.float32] = (np.log(np.exp(scores - most).sum(axis=1, keepdims=True)) + most)[
        :, 0
    ]
    return found
