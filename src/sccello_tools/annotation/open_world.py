"""Annotation with known and open terms: scores of single cells, the first of two passes; see :class:`Decisions` for the second."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy import sparse

from sccello_tools._threads import in_threads, single_threaded_blas
from sccello_tools.errors import LabelError

from .backoff import Lineages
from .coverage import assigned_types, utilities
from .decisions import Decisions
from .evidence import EvidenceModel, log_sum_exp
from .evidence_fit import MARKER_SHARE, label_scores
from .group_sums import GroupSums
from .head import softmax
from .marker_scores import MarkerScorer
from .result import PartialAnnotation, TermNames
from .term_space import TermSpace
from .tissues import log_factors
from .zero_shot import Candidates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .decisions import Level
    from .evidence import CellEvidence, SharedScores
    from .evidence_fit import EvidenceFit
    from .marker_scores import BoundScorer
    from .markers import CellMarkers
    from .result import OpenAnnotation
    from .zero_shot import ZeroShotMethod

Source = Literal["embedding", "ontology", "markers"]
ALL_SOURCES: Final = ("embedding", "ontology", "markers")
CONTRIBUTIONS: Final = (*ALL_SOURCES, "prior")
"""Columns of the contributions of sources to a decision."""
_LEAST = np.float32(-1e9)
_BLOCK = 512


class _Block(NamedTuple):
    """Result of a block of cells, and the arguments of :meth:`GroupSums.add` if there are groups."""

    partial: PartialAnnotation
    for_sums: tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)
class OpenWorldAnnotator:
    """Assigns known types, and open terms to cells that are unlike all known types."""

    fit: EvidenceFit
    model: EvidenceModel
    decisions: Decisions
    marker_scorer: MarkerScorer | None
    """``None`` if markers are not a source of evidence."""
    scorer: BoundScorer | None
    """The marker scorer for the columns of the counts."""
    utility: NDArray[np.float32] | None
    """(n_known, n_known) of predicting the column type for cells of the row type; ``None`` to assign the most probable type."""
    log_weight: NDArray[np.float32] | None
    """(n_known,) added to log probabilities of known types, such as for a tissue, if any."""
    published: Candidates | None = None
    """The candidates with their PageRank rows, for the published method."""
    candidate_rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    uses_embedding: bool = True
    """Whether the embedding is a source of evidence; otherwise all known types are equally probable without the other sources."""

    @property
    def _open_rows(self) -> slice:
        n_known = len(self.model.space.known)
        return slice(n_known, n_known + len(self.model.space.open))

    @property
    def candidates(self) -> tuple[str, ...]:
        """Terms to choose from; none if all may be assigned."""
        return self.decisions.candidates

    @property
    def columns(self) -> tuple[str, ...]:
        """Terms of the columns of scores."""
        return self.candidates or self.model.space.known

    @property
    def term_names(self) -> TermNames:
        """Names of the terms in the ontology."""
        return TermNames(self.decisions.ontology, {}, self.fit.parents)

    @classmethod
    def of(
        cls,
        fit: EvidenceFit,
        ontology: CellOntology,
        markers: CellMarkers,
        *,
        tokens: NDArray[np.integer] | None = None,
        candidates: Sequence[str] | None = None,
        type_weights: NDArray[np.floating] | None = None,
        parents: Mapping[str, str] | None = None,
        evidence: Sequence[Source] = ALL_SOURCES,
        method: ZeroShotMethod = "combined",
        level: Level = "auto",
        alpha: float = 0.1,
    ) -> OpenWorldAnnotator:
        """Prepare for matrices with given columns.

        Parameters
        ----------
        fit
            Fitted parameters of the model.
        ontology
            Cell Ontology.
        markers
            Marker genes.
        tokens
            (n_columns,) token of each column of the counts; without it there is no marker evidence until :meth:`for_columns`.
        candidates
            Terms to choose from, known types or others. Novelty does not depend on them.
        type_weights
            (n_known,) factors on the probabilities of known types; 0 rules a type out.
        parents
            Parent term of each user-defined type; those of the fit if not given.
        evidence
            Sources to use.
        method
            How candidates are scored: by all evidence, or by the rank correlation of scCello.
        level
            ``"auto"`` backs off to a broader term; ``"type"`` assigns the most probable term.
        alpha
            Fraction of known cells whose term may be incorrect.

        Raises
        ------
        LabelError
            If there are fewer than two candidates, or no open terms: human terms with markers that are not above a known type.
        """
        known = fit.known.types
        own = dict(fit.parents if parents is None else parents)
        chosen = tuple(dict.fromkeys(candidates or ()))
        if candidates is not None and len(chosen) < 2:
            msg = f"{len(chosen)} candidates; a choice needs at least two of each candidates and known types. Pass more candidates, or an ancestor that has descendants."
            raise LabelError(msg)
        space = TermSpace.of(
            known,
            ontology,
            markers,
            parents=own,
            extra=chosen if method == "combined" else (),
        )
        if not space.open:
            msg = "No term of the ontology is an open term: all human terms with markers are known types or above one. Pass another ontology, or markers of other terms."
            raise LabelError(msg)
        published = None
        if method == "published":
            placed = [own.get(t, t) for t, ok in zip(known, space.placed) if ok]
            published = Candidates.of(chosen, placed, ontology)
        marker_scorer = MarkerScorer.of(markers, ontology)
        model = EvidenceModel.of(
            space, marker_scorer, fit.weights.only(evidence), ontology, parents=own
        )
        decisions = Decisions(
            fit,
            ontology,
            Lineages.of(known, ontology, parents=own, broader_types=True),
            Lineages.of(space.open, ontology),
            chosen,
            level,
            alpha,
        )
        place = {t: i for i, t in enumerate(space.rows)}
        made = cls(
            fit,
            model,
            decisions,
            marker_scorer if "markers" in evidence else None,
            None,
            utilities(known, ontology, parents=own) if fit.prefers_subtypes else None,
            None if type_weights is None else log_factors(type_weights),
            published,
            np.array([place[t] for t in chosen if published is None], dtype=np.intp),
            "embedding" in evidence,
        )
        return made if tokens is None else made.for_columns(tokens)

    def for_columns(self, tokens: NDArray[np.integer]) -> OpenWorldAnnotator:
        """Return an annotator for counts with given columns, (n_columns,) token of each, negative for other variables."""
        if self.marker_scorer is None:
            return self
        return replace(self, scorer=self.marker_scorer.bind(tokens))

    def in_tissue(self, type_weights: NDArray[np.floating]) -> OpenWorldAnnotator:
        """Return an annotator with other factors on the probabilities of known types."""
        return replace(self, log_weight=log_factors(type_weights))

    def known_probabilities(
        self, hidden: NDArray[np.float32], cells: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the classifier's probabilities of known types; cells without embedding are left out."""
        usable = np.isfinite(hidden).all(axis=1)
        evidence = self.fit.known.evidence(
            hidden[usable], cells[usable], None, log_weight=self.log_weight
        )
        found: NDArray[np.float32] = np.exp(evidence.log_probabilities)
        return found

    def group_sums(self, n_groups: int) -> GroupSums:
        """Return empty sums for :meth:`partial`."""
        space = self.model.space
        return GroupSums.empty(n_groups, len(space.known), len(space), len(self.candidates))

    def partial(
        self,
        hidden: NDArray[np.float32],
        cells: NDArray[np.float32],
        counts: sparse.csr_matrix | sparse.csr_array | None = None,
        *,
        groups: NDArray[np.integer] | None = None,
        sums: GroupSums | None = None,
        return_scores: bool = False,
    ) -> PartialAnnotation:
        """Score one chunk of cells; the result of a cell does not depend on the other cells.

        Parameters
        ----------
        hidden, cells
            (n, d) of ``representation="cls"`` and ``"cell"``; rows with NaN get no term.
        counts
            (n, n_columns) raw counts, if the annotator has a scorer.
        groups
            (n,) group of each cell, whose evidence is added to ``sums``.
        sums
            See :meth:`group_sums`.
        return_scores
            Keep the scores of :attr:`columns`.
        """
        n, keeps_parts = len(hidden), sums is not None and groups is not None
        if counts is not None:
            counts = sparse.csr_array(counts)

        def block(first: int, last: int) -> _Block:
            rows = slice(first, last)
            raw = None if counts is None else counts[rows]
            return self._block(
                hidden[rows], cells[rows], raw, return_scores=return_scores, keeps_parts=keeps_parts
            )

        # small enough for the caches; with its own threads, BLAS would process one block at a time
        with single_threaded_blas():
            blocks = in_threads(n, block, block=_BLOCK) if n else [block(0, 0)]
        if sums is not None and groups is not None:
            for number, found in enumerate(blocks):
                if found.for_sums is not None:
                    sums.add(groups[number * _BLOCK : (number + 1) * _BLOCK], *found.for_sums)
        return PartialAnnotation(
            *(np.concatenate(column) for column in zip(*(found.partial for found in blocks)))
        )

    def _block(
        self,
        hidden: NDArray[np.float32],
        cells: NDArray[np.float32],
        counts: sparse.csr_array | None,
        *,
        return_scores: bool,
        keeps_parts: bool,
    ) -> _Block:
        usable = _usable(hidden, cells)
        evidence = self._evidence(hidden, cells, counts, usable)
        parts = self.model.shared_parts(evidence)
        shared = parts.total
        n_known = self._open_rows.start
        by_cell, prior = self.model.open_scores(evidence)
        opened = shared[:, self._open_rows] + prior[self._open_rows]
        for_novelty = self.model.known_scores(evidence) + shared[:, :n_known]
        for_novelty = np.where(np.isfinite(evidence.log_probabilities), for_novelty, _LEAST)
        novelty = log_sum_exp(opened) + by_cell - log_sum_exp(for_novelty)
        choices = self._choice_scores(evidence, parts) if self.candidates else None
        for_sums = (usable, evidence.log_probabilities, parts, novelty, choices)
        found = self._summarised(
            evidence.log_probabilities,
            parts,
            opened,
            np.where(usable, novelty, np.nan).astype(np.float32),
            choices,
            return_scores=return_scores,
        )
        return _Block(found, for_sums if keeps_parts else None)

    def finish(self, parts: Sequence[PartialAnnotation]) -> OpenAnnotation:
        """Decide for all cells of a data set; see :class:`Decisions`."""
        return self.decisions.of_data_set(parts)

    def finish_groups(self, sums: GroupSums, cells: OpenAnnotation) -> OpenAnnotation:
        """Decide for groups by the mean evidence of their cells, with the shift and threshold of the data set."""
        log_p, parts, novelty, choices = sums.means()
        opened = parts.total[:, self._open_rows] + self.model.prior[self._open_rows]
        p = self._summarised(
            log_p, parts, opened, novelty, choices if self.candidates else None, return_scores=True
        )
        return self.decisions.decide(p, cells.shift, cells.threshold)

    def _evidence(
        self,
        hidden: NDArray[np.float32],
        cells: NDArray[np.float32],
        counts: sparse.csr_matrix | sparse.csr_array | None,
        usable: NDArray[np.bool_],
    ) -> CellEvidence:
        hidden, cells = np.where(usable[:, None], hidden, 0), np.where(usable[:, None], cells, 0)
        markers = None if self.scorer is None or counts is None else self.scorer(counts)
        found = self.fit.known.evidence(hidden, cells, markers, log_weight=self.log_weight)
        if self.uses_embedding:
            return found
        uniform = np.zeros_like(found.log_probabilities)
        if self.log_weight is not None:
            uniform += self.log_weight
        return found._replace(log_probabilities=uniform - log_sum_exp(uniform)[:, None])

    def _for_known(self, parts: SharedScores) -> NDArray[np.float32]:
        """Return scores that are added to the log probabilities of known types, see :func:`label_scores`."""
        return parts.markers if self.uses_embedding else parts.markers + parts.ontology

    def _assigned(
        self, markers: NDArray[np.float32], log_p: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return probabilities of the known types and the type assigned to each cell."""
        probabilities = softmax(
            label_scores(markers, log_p) / np.float32(self.fit.known_temperature)
        )
        return probabilities, assigned_types(probabilities, self.utility)

    def _scores_of_rows(
        self, evidence: CellEvidence, parts: SharedScores, rows: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        shared = parts.total
        by_cell, prior = self.model.open_scores(evidence)
        assigned = self._assigned(self._for_known(parts), evidence.log_probabilities)[1]
        correction = self.fit.novelty.offset_of(assigned) + np.float32(self.fit.novelty.threshold)
        opened = (by_cell - correction)[:, None] + prior[rows]
        below = self.model.space.below[rows]
        summed = np.log(np.exp(evidence.log_probabilities) @ below.T + np.float32(1e-6))
        known = np.float32(self.model.weights.log_probability) * np.maximum(summed, -12)
        found: NDArray[np.float32] = shared[:, rows] + np.where(below.any(axis=1), known, opened)
        return found

    def _choice_scores(self, evidence: CellEvidence, parts: SharedScores) -> NDArray[np.float32]:
        if self.published is None:
            return self._scores_of_rows(evidence, parts, self.candidate_rows)
        scores = self.published.scores(
            np.ascontiguousarray(evidence.cosines[:, self.model.space.placed])
        )
        found: NDArray[np.float32] = np.nan_to_num(scores)
        return found

    def _summarised(
        self,
        log_p: NDArray[np.float32],
        parts: SharedScores,
        opened: NDArray[np.float32],
        novelty: NDArray[np.float32],
        choices: NDArray[np.float32] | None,
        *,
        return_scores: bool,
    ) -> PartialAnnotation:
        """Keep the two best terms of each type of decision."""
        first_open, n = self._open_rows.start, len(log_p)
        known_p, assigned = self._assigned(self._for_known(parts), log_p)
        open_p = softmax(opened / np.float32(self.fit.open_temperature))
        runner_up = _best_other(known_p, assigned)
        best, second = _two_best(open_p)
        at = np.arange(n)
        known_parts = _differences(parts, at, assigned, runner_up)
        known_parts[:, 0] = 0
        known_parts[:, 1] *= 0 if self.uses_embedding else MARKER_SHARE
        known_parts[:, 2] *= MARKER_SHARE
        # a type that is ruled out, for instance by a tissue, has a log probability of -inf
        floored = np.maximum(log_p, -100)
        known_parts[:, 0] += floored[at, assigned] - floored[at, runner_up]
        prior = self.model.prior
        open_parts = _differences(parts, at, best + first_open, second + first_open)
        open_parts[:, 3] = prior[best + first_open] - prior[second + first_open]
        choice = choice_second = np.zeros(n, dtype=np.int32)
        choice_confidence = np.full(n, np.nan, dtype=np.float32)
        choice_parts = np.zeros((n, len(CONTRIBUTIONS)), dtype=np.float32)
        scores = known_p
        if choices is not None:
            scores = choices
            choice_p = softmax(choices / np.float32(self.fit.open_temperature))
            choice, choice_second = _two_best(choice_p)
            difference = choices[at, choice] - choices[at, choice_second]
            if self.published is None:
                choice_confidence = choice_p[at, choice]
                rows = self.candidate_rows
                choice_parts = _differences(parts, at, rows[choice], rows[choice_second])
                choice_parts[:, 3] = difference - choice_parts[:, :3].sum(axis=1)
            else:
                choice_parts[:, 1] = difference
        return PartialAnnotation(
            novelty,
            assigned,
            runner_up,
            self.decisions.known.sums(known_p, assigned),
            known_parts,
            best,
            second,
            self.decisions.open.sums(open_p, best),
            open_parts,
            choice,
            choice_second,
            choice_confidence,
            choice_parts,
            scores.astype(np.float32) if return_scores else np.empty((n, 0), dtype=np.float32),
        )


def _usable(hidden: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which cells have both representations, shape (n,)."""
    return np.asarray(np.isfinite(hidden).all(axis=1) & np.isfinite(cells).all(axis=1), dtype=bool)


def _best_other(p: NDArray[np.float32], best: NDArray[np.int32]) -> NDArray[np.int32]:
    from ._decision_kernel import best_other

    found = np.empty(len(p), dtype=np.int32)
    best_other(p, best, found)
    return found


def _two_best(p: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    best = p.argmax(axis=1).astype(np.int32)
    return best, _best_other(p, best)


def _differences(
    parts: SharedScores,
    at: NDArray[np.intp],
    first: NDArray[np.integer],
    second: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Return the difference of the scores of two rows per cell by source, shape (n, 4); that of the prior is 0."""
    out = np.zeros((len(at), len(CONTRIBUTIONS)), dtype=np.float32)
    for k, values in enumerate(parts):
        out[:, k] = values[at, first] - values[at, second]
    return out
