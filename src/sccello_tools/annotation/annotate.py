"""From embeddings to terms, confidence and novelty, a chunk of cells at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sccello_tools import _keys

from .backoff import Lineages, conformal_threshold
from .head import softmax
from .tissues import allowed_types
from .zero_shot import Candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .statistics import AnnotationStatistics
    from .zero_shot import ZeroShotMethod

Level = Literal["auto", "type"]

_SPECIFIC = 3  # depth below which a term says little more than "cell"


class Annotation(NamedTuple):
    """Answers for some cells."""

    terms: NDArray[np.str_]
    """(n_cells,) CL ids; "" for rows with NaN."""
    confidence: NDArray[np.float32]
    """(n_cells,) probability that the cell is of that term or below it; NaN for rows with NaN."""
    novelty: NDArray[np.float32]
    """(n_cells,) log2 of the distance to known cells over what is usual; NaN for rows with NaN."""
    status: NDArray[np.str_]
    """(n_cells,) one of ``_keys.STATUSES``; "" for rows with NaN."""
    scores: NDArray[np.float32]
    """(n_cells, n_columns) probabilities of the known types, or scores of the candidates."""


@dataclass(frozen=True, eq=False)
class Annotator:
    """Everything that turns embeddings into annotations, ready for many chunks."""

    statistics: AnnotationStatistics
    ontology: CellOntology
    lineages: Lineages
    threshold: float
    """Summed probability that an answer must reach."""
    novel_from: float
    """Novelty above which a cell is called novel."""
    candidates: Candidates | None
    level: Level
    method: ZeroShotMethod
    placed: NDArray[np.bool_]
    """(n_types,) whether the known type has a place in the ontology, which candidates are compared by."""
    allowed: NDArray[np.bool_] | None = None
    """(n_types,) which known types may be at all; None for every one."""

    @classmethod
    def of(
        cls,
        statistics: AnnotationStatistics,
        ontology: CellOntology,
        *,
        candidates: tuple[str, ...] | None = None,
        level: Level = "auto",
        alpha: float = 0.1,
        novel_share: float = 0.05,
        method: ZeroShotMethod = "combined",
        tissue: str | Sequence[str] | None = None,
    ) -> Annotator:
        """Prepare thresholds and candidates.

        Parameters
        ----------
        statistics
            Of the model that embeds the cells.
        ontology
            Cell Ontology.
        candidates
            Terms to choose from instead of the known types and what they are kinds of.
        level
            ``"auto"`` backs off to a broader term where a type is not sure; ``"type"`` always names a known type.
        alpha
            Share of wrong answers that is allowed.
        novel_share
            Share of known cells that may be called novel.
        method
            How candidates are scored.
        tissue
            Where the cells are from; known types that were never recorded there are ruled out.
        """
        terms = [statistics.parents.get(kind, kind) for kind in statistics.types]
        placed = np.array([term in ontology for term in terms])
        in_ontology = [term for term in terms if term in ontology]
        return cls(
            statistics,
            ontology,
            Lineages.of(statistics.types, ontology, parents=statistics.parents),
            conformal_threshold(statistics.conformal_scores, alpha) if level == "auto" else 0.0,
            float(np.quantile(statistics.novelty_scores, 1 - novel_share)),
            None if candidates is None else Candidates.of(candidates, in_ontology, ontology),
            level,
            method,
            placed,
            None
            if tissue is None
            else allowed_types(tissue, statistics.types, ontology, parents=statistics.parents),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Terms of the columns of :attr:`Annotation.scores`."""
        return self.statistics.types if self.candidates is None else self.candidates.terms

    def __call__(self, hidden: NDArray[np.float32], cells: NDArray[np.float32]) -> Annotation:
        """Annotate (n_cells, d) ``cls`` rows with their (n_cells, d) ``cell`` rows; each cell's answer is its own."""
        known = self.statistics
        usable = np.isfinite(hidden).all(axis=1) & np.isfinite(cells).all(axis=1)
        probabilities = known.head.probabilities(known.scale.features(hidden, cells))
        if self.allowed is not None:
            probabilities = _restricted(probabilities, self.allowed)
        probabilities[~usable] = np.nan
        novelty = known.reference.novelty((hidden - known.scale.mean) / known.scale.spread)
        answer = self.lineages.back_off(probabilities, threshold=self.threshold)
        status = self._status(answer.terms, novelty)
        if self.candidates is None:
            return Annotation(answer.terms, answer.probability, novelty, status, probabilities)
        scores = self.candidates.scores(
            cells @ known.prototypes[self.placed].T,
            probabilities[:, self.placed],
            method=self.method,
        )
        chances = softmax(scores / np.float32(known.zero_shot_temperature))
        best = np.where(usable, np.nan_to_num(scores, nan=-np.inf).argmax(axis=1), 0)
        terms = np.where(usable, np.array(self.candidates.terms)[best], "")
        confidence = np.where(usable, chances[np.arange(len(best)), best], np.nan)
        return Annotation(terms, confidence.astype(np.float32), novelty, status, scores)

    def _status(self, terms: NDArray[np.str_], novelty: NDArray[np.float32]) -> NDArray[np.str_]:
        novel = novelty > self.novel_from
        distinct, member = np.unique(terms, return_inverse=True)
        deep = np.array(
            [bool(term) and self.lineages.hierarchy.depth(term) >= _SPECIFIC for term in distinct],
            dtype=bool,
        )[member]
        status = np.where(
            novel,
            np.where(deep, _keys.STATUS_NOVEL_SUBTYPE, _keys.STATUS_UNKNOWN),
            _keys.STATUS_KNOWN,
        )
        return np.where(np.isfinite(novelty), status, "")


def _restricted(
    probabilities: NDArray[np.float32], allowed: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Share the probability out among the types that may be."""
    kept = probabilities * allowed
    found: NDArray[np.float32] = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-30)
    return found
