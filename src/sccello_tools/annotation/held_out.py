"""Features of cells of held-out studies, with and without their own type among the known types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .evidence import CellEvidence
from .known_types import pair_index
from .marker_scores import MarkerScores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from .evidence import EvidenceModel
    from .known_types import KnownTypes, LabelledCells
    from .marker_scores import MarkerScorer


class HeldOut(NamedTuple):
    """Cells of held-out studies, in the embedding of a model or classifier that has not seen these studies."""

    cells: LabelledCells
    """A sample per study and type; the types are known to the final classifier."""
    known: KnownTypes
    """Types of the other studies, in the same embedding."""
    log_weight: NDArray[np.float32] | None = None
    """(n_cells, n_types of ``known``) added to log probabilities, such as for the tissue of each study."""


class FoldFeatures(NamedTuple):
    """Features of some cells under one held-out study, with or without their own type masked."""

    features: NDArray[np.float16]  # (n, n_features, n_rows)
    log_p: NDArray[np.float32]  # (n, n_known), -inf where masked
    distance: NDArray[np.float32]
    is_open: NDArray[np.bool_]  # (n, n_rows)
    rows: NDArray[np.intp]
    novel: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HeldOutCells:
    """Labels of the cells of all folds."""

    types: NDArray[np.str_]
    studies: NDArray[np.str_]
    synthetic: NDArray[np.bool_]
    natural: NDArray[np.intp]  # cells of the same type in the same study
    truth: NDArray[np.intp]  # index of the known type

    @classmethod
    def of(cls, parts: Sequence[LabelledCells], known: Sequence[str]) -> HeldOutCells:
        """Concatenate the cells of folds; all types must be known."""
        place = {t: i for i, t in enumerate(known)}
        types = np.concatenate([part.types for part in parts])
        return cls(
            types,
            np.concatenate([part.studies for part in parts]),
            np.concatenate([part.synthetic for part in parts]),
            np.concatenate(
                [
                    part.frequency if len(part.frequency) else cells_of_same_type(part)
                    for part in parts
                ]
            ),
            np.array([place[t] for t in types], dtype=np.intp),
        )

    def natural_weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Weight types by their frequency in their study, and studies by the square root of their number of calibration cells."""
        studies, types = self.studies[rows], self.types[rows]
        group = pair_index(studies, types)
        weight = self.natural[rows] / np.bincount(group)[group]
        study = np.unique(studies, return_inverse=True)[1]
        return weight / np.bincount(study, weight)[study] * np.sqrt(np.bincount(study)[study])


def cells_of_same_type(cells: LabelledCells) -> NDArray[np.intp]:
    """Return the number of cells of the same type in the same study."""
    group = pair_index(cells.studies, cells.types)
    return np.bincount(group)[group]


def _marker_scores(
    cells: LabelledCells, rows: NDArray[np.intp], scorer: MarkerScorer
) -> dict[int, MarkerScores]:
    """Return the scores of each row."""
    found: dict[int, MarkerScores] = {}
    for panel in np.unique(cells.panels[rows]):
        some = rows[cells.panels[rows] == panel]
        bound = scorer.bind(np.where(cells.measured[panel], np.arange(cells.measured.shape[1]), -1))
        own, specific, negative = bound(cells.counts[some])
        for i, row in enumerate(some.tolist()):
            found[row] = MarkerScores(own[i], specific[i], negative[i])
    return found


def fold_features(
    fold: HeldOut,
    model: EvidenceModel,
    scorer: MarkerScorer,
    modes: tuple[str, ...] = ("known", "novel"),
) -> list[FoldFeatures]:
    """Compute features in both modes; types that are unknown to the fold are masked in both."""
    cells, fitted = fold.cells, fold.known
    scores = _marker_scores(cells, np.arange(len(cells)), scorer)
    names = model.space.known
    place = {t: i for i, t in enumerate(names)}
    truth = np.array([place[t] for t in cells.types], dtype=np.intp)
    at = np.array([place[t] for t in fitted.types])
    n_known = len(names)
    in_fold = np.zeros(n_known, dtype=bool)
    in_fold[at] = True
    below = model.space.below[:n_known] > 0  # [t, k]: k is t or a descendant
    found = []
    for mode in modes:
        for t in np.unique(truth):
            some = np.flatnonzero(truth == t)
            kept = in_fold & ~below[t] if mode == "novel" else in_fold
            if (mode == "known" and not (kept & below[t]).any()) or kept.sum() < (
                3 if mode == "novel" else 2
            ):
                continue
            markers = MarkerScores(
                *(np.stack([scores[row][k] for row in some.tolist()]) for k in range(3))
            )
            ev = fitted.evidence(
                cells.hidden[some],
                cells.cells[some],
                markers,
                kept=kept[at],
                log_weight=None if fold.log_weight is None else fold.log_weight[some],
            )
            log_p = np.full((len(some), n_known), -np.inf, np.float32)
            log_p[:, at] = ev.log_probabilities
            cosines = np.zeros((len(some), n_known), np.float32)
            cosines[:, at] = ev.cosines
            ev = CellEvidence(log_p, cosines, ev.log_distance, markers)
            is_open = ~model.space.take_known(kept)
            if mode == "novel":
                is_open[t] = True
            found.append(
                FoldFeatures(
                    model.pair_features(ev).astype(np.float16),
                    log_p,
                    ev.log_distance,
                    np.tile(is_open, (len(some), 1)),
                    some,
                    np.full(len(some), mode == "novel"),
                )
            )
    return found


def joined(blocks: list[FoldFeatures]) -> FoldFeatures:
    """Concatenate blocks."""
    columns: list[Any] = [np.concatenate(column) for column in zip(*blocks)]
    return FoldFeatures(*columns)


def rows_of(data: FoldFeatures, rows: NDArray[np.intp]) -> FoldFeatures:
    """Select rows."""
    columns: list[Any] = [column[rows] for column in data]
    return FoldFeatures(*columns)
