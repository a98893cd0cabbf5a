"""Parameters of the annotation that are fitted for a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .evidence import EvidenceWeights
    from .known_types import KnownTypes
    from .novelty import NoveltyCalibration
    from .tissues import TissueWeights

MARKER_SHARE = 0.5
"""Weight of the marker evidence in the label scores of known types."""


@dataclass(frozen=True, eq=False, repr=False)
class EvidenceFit:
    """Parameters of the annotation with one model, fitted to labelled cells."""

    known: KnownTypes
    weights: EvidenceWeights
    novelty: NoveltyCalibration
    known_temperature: float
    """Divisor of the label scores of known types before the softmax."""
    open_temperature: float
    """Divisor of the scores of open terms before the softmax."""
    fallback_threshold: float
    """Confidence threshold with nominal coverage over all held-out studies, at alpha = 0.1."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(n_known,) labelled cells of each type; empty if unknown."""
    token_range: tuple[float, float] = (0.0, float("inf"))
    """1st and 99th percentile of the number of tokens of the calibration cells."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Parent term of each user-defined type."""
    tissues: TissueWeights | None = None
    """Frequencies of known types in tissues, if they were estimated."""
    prefers_subtypes: bool = False
    """Whether a subtype of the true type counts as correct: known types are then chosen by their expected utility instead of by
    their probability; see :func:`~sccello_tools.annotation.coverage.utilities`."""
    calibrated: bool = True
    """Whether confidence and novelty were calibrated on labelled cells."""

    def __repr__(self) -> str:
        kind = "" if self.calibrated else ", not calibrated"
        n_cells = f", {int(self.counts.sum()):,} cells" if len(self.counts) else ""
        return f"EvidenceFit({len(self.known.types)} types{n_cells}{kind})"


def label_scores(markers: NDArray[np.float32], log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log probabilities of the known types given the marker evidence, up to a constant; shape (n_cells, n_known)."""
    return np.where(
        np.isfinite(log_p), log_p + np.float32(MARKER_SHARE) * markers[:, : log_p.shape[1]], -np.inf
    )
