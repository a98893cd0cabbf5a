"""Decisions: known and open terms for the cells of a data set, from the scores of single cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sccello_tools import _keys

from .backoff import choose_level
from .coverage import coverage_threshold
from .result import OpenAnnotation, PartialAnnotation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .backoff import Lineages
    from .evidence_fit import EvidenceFit

Level = Literal["auto", "type"]
_SPECIFIC_DEPTH = 3  # terms above this depth are hardly more informative than "cell"
# an open term is assigned if it and its descendants have half of the probability
_OPEN_CONFIDENCE = 0.5


@dataclass(frozen=True, eq=False)
class Decisions:
    """Known terms for cells below the novelty threshold, open terms for those above it.

    Both back off to broader terms if ``level`` is ``"auto"``. If there are candidates, one of them is assigned to every cell.
    """

    fit: EvidenceFit
    ontology: CellOntology
    known: Lineages
    open: Lineages
    candidates: tuple[str, ...]
    """Terms to choose from, if given."""
    level: Level
    alpha: float

    def of_data_set(self, parts: Sequence[PartialAnnotation]) -> OpenAnnotation:
        """Decide for all cells of a data set.

        Two numbers depend on the data set as a whole: the shift of its novelty and the confidence threshold at which its known cells
        are correct for an expected fraction 1 - alpha.
        """
        p = PartialAnnotation(*(np.concatenate(columns) for columns in zip(*parts)))
        calibration = self.fit.novelty
        usable = np.isfinite(p.novelty)
        corrected = calibration.corrected(p.novelty, p.assigned)
        shift = calibration.shift(corrected[usable], p.assigned[usable]) if usable.any() else 0.0
        known = usable & (self._final_novelty(p, shift) <= 0)
        threshold = 0.0
        if self.level == "auto" and known.any():
            fallback = self.fit.fallback_threshold if self.alpha == 0.1 else 1 - self.alpha
            confidence = p.known_sums[known].astype(np.float32)
            threshold = coverage_threshold(confidence, self.alpha, fallback=fallback)
        return self.decide(p, shift, threshold)

    def _final_novelty(self, p: PartialAnnotation, shift: float) -> NDArray[np.float32]:
        corrected = self.fit.novelty.corrected(p.novelty, p.assigned)
        return corrected - np.float32(shift) - np.float32(self.fit.novelty.threshold)

    def decide(self, p: PartialAnnotation, shift: float, threshold: float) -> OpenAnnotation:
        """Decide with a given novelty shift and confidence threshold."""
        novelty = self._final_novelty(p, shift)
        usable = np.isfinite(novelty)
        novel = usable & (novelty > 0)
        level = choose_level(p.known_sums.astype(np.float32), threshold)
        open_level = choose_level(p.open_sums, _OPEN_CONFIDENCE if self.level == "auto" else 0.0)
        names, index = self._term_table()
        rows = np.arange(len(novel))
        known_code = _codes(self.known, p.assigned, level, index)
        open_code = _codes(self.open, p.open_term, open_level, index)
        of_known = np.array([index[t] for t in self.known.types], dtype=np.int32)
        of_open = np.array([index[t] for t in self.open.types], dtype=np.int32)
        if self.candidates:
            of_choice = np.array([index[t] for t in self.candidates], dtype=np.int32)
            codes, second = of_choice[p.choice], of_choice[p.choice_runner_up]
            confidence, contributions = p.choice_confidence, p.choice_parts
        else:
            codes = np.where(novel, open_code, known_code)
            second = np.where(novel, of_open[p.open_runner_up], of_known[p.runner_up])
            of_novel = p.open_sums[rows, open_level].astype(np.float32)
            confidence = np.where(novel, of_novel, p.known_sums[rows, level].astype(np.float32))
            contributions = np.where(novel[:, None], p.open_parts, p.known_parts)
        depth = np.array([self.ontology.depth(t) if t in self.ontology else 99 for t in names])
        specific = np.where(
            depth[open_code] >= _SPECIFIC_DEPTH, _keys.STATUS_NOVEL_SUBTYPE, _keys.STATUS_UNKNOWN
        )
        return OpenAnnotation(
            names,
            np.where(usable, codes, -1).astype(np.int32),
            np.where(usable, confidence, np.nan).astype(np.float32),
            np.where(usable, second, -1).astype(np.int32),
            novelty,
            np.where(usable, np.where(novel, specific, _keys.STATUS_KNOWN), ""),
            np.where(usable[:, None], contributions, np.nan).astype(np.float32),
            np.where(usable[:, None], p.scores, np.nan).astype(np.float32),
            shift,
            threshold,
        )

    def _term_table(self) -> tuple[tuple[str, ...], dict[str, int]]:
        lineages = (*self.known.lineages, *self.open.lineages)
        names = sorted({t for lineage in lineages for t in lineage.terms} | set(self.candidates))
        return tuple(names), {t: i for i, t in enumerate(names)}


def _codes(
    lineages: Lineages,
    assigned: NDArray[np.int32],
    level: NDArray[np.intp],
    index: Mapping[str, int],
) -> NDArray[np.int32]:
    table = np.zeros((len(lineages.lineages), lineages.width), dtype=np.int32)
    for i, lineage in enumerate(lineages.lineages):
        codes = [index[t] for t in lineage.terms]
        table[i] = codes + [codes[-1]] * (lineages.width - len(codes))
    found: NDArray[np.int32] = table[assigned, level]
    return found
