"""Calibrate the novelty threshold and the temperatures on cells of held-out studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .backoff import Lineages, choose_level
from .coverage import assigned_types, coverage_threshold, pooled_threshold
from .head import softmax
from .known_types import pair_index
from .novelty import (
    NoveltyCalibration,
    data_set_shift,
    lower_quartiles,
    usual_novelty,
    weighted_quantile,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .held_out import HeldOutCells
    from .known_types import KnownTypes
    from .term_space import TermSpace

# fraction of known cells of all held-out studies that are called novel; in one study of eight it exceeds 8 %
_NOVEL_SHARE = 0.04
_KNOWN_TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0)
_ALPHA = 0.1  # fraction of incorrect terms at which the temperature of known types is calibrated


@dataclass(frozen=True, eq=False)
class KnownNovelty:
    """Novelty of known cells: the first ``len(weight)`` are of held-out studies, the values of the others are estimates."""

    values: NDArray[np.float32]
    assigned: NDArray[np.int32]
    studies: NDArray[np.str_]
    types: NDArray[np.str_]
    weight: NDArray[np.float64]

    def completed(
        self, values: NDArray[np.float32], assigned: NDArray[np.int32], studies: NDArray[np.str_], types: NDArray[np.str_]
    ) -> KnownNovelty:  # fmt: skip
        """Add cells that the classifier was fitted to, of types without held-out cells; their values are corrected by a mean difference."""
        own, other = (
            np.char.add(np.char.add(self.studies, "|"), self.types),
            np.char.add(np.char.add(studies, "|"), types),
        )
        both = np.intersect1d(own, other)
        gap = (
            np.mean([self.values[own == key].mean() - values[other == key].mean() for key in both])
            if len(both)
            else 0.0
        )
        extra = ~np.isin(other, own)
        return KnownNovelty(
            np.concatenate([self.values, values[extra] + np.float32(gap)]),
            np.concatenate([self.assigned, assigned[extra]]),
            np.concatenate([self.studies, studies[extra]]),
            np.concatenate([self.types, types[extra]]),
            self.weight,
        )


def novelty_calibration(usual: KnownNovelty, space: TermSpace) -> NoveltyCalibration:
    """Estimate the typical novelty of the types, and the threshold over held-out studies with the offsets of the other studies."""
    similarity = space.lin[: len(space.known)]

    def offsets(rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        key = pair_index(usual.studies[rows], usual.assigned[rows].astype(str))
        return usual_novelty(
            usual.values[rows], usual.assigned[rows], np.bincount(key)[key] ** -0.5, similarity
        )

    n_held = len(usual.weight)
    values, assigned = usual.values[:n_held], usual.assigned[:n_held]
    study = usual.studies[:n_held]
    corrected = np.zeros(n_held, np.float32)
    quartiles, weights = [], []
    names = np.unique(study)
    for name in names:
        own = np.flatnonzero(study == name)
        one = NoveltyCalibration(offsets(usual.studies != name), 0.0, 0.0)
        corrected[own] = one.corrected(values[own], assigned[own])
        q, w = lower_quartiles(corrected[own], assigned[own])
        quartiles.append(q)
        weights.append(w)
    reference = float(np.average(np.concatenate(quartiles), weights=np.concatenate(weights)))
    for name in names:
        own = np.flatnonzero(study == name)
        corrected[own] -= data_set_shift(corrected[own], assigned[own], reference)
    threshold = weighted_quantile(corrected, 1 - _NOVEL_SHARE, usual.weight)
    everything = np.ones(len(usual.values), dtype=bool)
    return NoveltyCalibration(offsets(everything), reference, threshold)


def known_confidence(
    scores: NDArray[np.float32],
    cells: HeldOutCells,
    rows: NDArray[np.intp],
    known: KnownTypes,
    ontology: CellOntology,
    utility: NDArray[np.float32] | None,
) -> tuple[float, float]:
    """Choose the temperature at which back-off has nominal coverage in the median held-out study, and the threshold over all studies.

    The summed probability of a term is its confidence. Temperatures are compared by the resulting coverage: each held-out study
    gets its own threshold (see :func:`coverage_threshold`), and the median over studies of the fraction of correct terms is compared.
    """
    labels, studies = cells.types[rows], cells.studies[rows]
    weight = cells.natural_weights(rows)
    lineages = Lineages.of(known.types, ontology, broader_types=True)
    best: tuple[float, float, float] = (np.inf, 1.0, 1.0)
    for temperature in _KNOWN_TEMPERATURES:
        p = softmax(scores / np.float32(temperature))
        assigned = assigned_types(p, utility)
        sums = lineages.sums(p, assigned).astype(np.float32)
        right = lineages.is_correct(assigned, labels)
        covered = []
        for study in np.unique(studies):
            own = np.flatnonzero(studies == study)
            threshold = coverage_threshold(sums[own], _ALPHA, weight=weight[own])
            level = choose_level(sums[own], threshold)
            covered.append(np.average(right[own, level], weights=weight[own]))
        # the median, because in some studies no type related to the label is known
        error = abs(float(np.median(covered)) - (1 - _ALPHA))
        if error < best[0]:
            best = (error, temperature, pooled_threshold(sums, right, weight, _ALPHA))
    return best[1], best[2]


def open_temperature(scores: NDArray[np.float16], own: NDArray[np.intp]) -> float:
    """Return the temperature from a grid that maximises the likelihood of the true term of cells of unseen types."""
    if not len(own):
        return 1.0
    s = scores.astype(np.float32)
    losses = []
    grid = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
    for temperature in grid:
        p = softmax(s / np.float32(temperature))
        losses.append(float(-np.log(np.maximum(p[np.arange(len(own)), own], 1e-6)).mean()))
    return grid[int(np.argmin(losses))]
