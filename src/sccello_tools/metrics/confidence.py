"""Calibration of confidence, selective risk, and detection of novel cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._validation import check_at_least
from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reliability(NamedTuple):
    """Reliability curve: confidence and accuracy by bin, without empty bins."""

    confidence: NDArray[np.float64]
    """(n_bins,) mean confidence."""

    accuracy: NDArray[np.float64]
    """(n_bins,) fraction of correct predictions."""

    n_cells: NDArray[np.int64]
    """(n_bins,) number of cells."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean absolute difference of confidence and accuracy, weighted by the number of cells."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.n_cells))


class RiskCoverage(NamedTuple):
    """Risk-coverage curve."""

    coverage: NDArray[np.float64]
    """(n_cells,) fraction of cells with a prediction, ascending."""

    risk: NDArray[np.float64]
    """(n_cells,) fraction of those that are wrong."""

    @property
    def area(self) -> float:
        """Area under the curve (AURC): mean risk over all coverages; lower is better."""
        return float(self.risk.mean())


def reliability(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, n_bins: int = 15
) -> Reliability:
    """Compare confidence with accuracy in bins of equal width.

    Parameters
    ----------
    confidence
        Predicted probabilities, shape (n_cells,). Cells with NaN are ignored.
    correct
        Whether each prediction is correct, shape (n_cells,).
    n_bins
        Number of bins in [0, 1].

    Returns
    -------
    The bins; their ``error`` is the expected calibration error.

    Raises
    ------
    ArgumentError
        If shapes differ, all values are NaN, a value is not in [0, 1], or ``n_bins`` < 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import reliability
    >>> round(reliability(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])).error, 3)
    0.1
    """
    check_at_least("n_bins", n_bins, 1)
    confidence, correct = _pairs(confidence, correct)
    if confidence.min() < 0 or confidence.max() > 1:
        msg = f"confidence must be in [0, 1], got values from {confidence.min():.3g} to {confidence.max():.3g}"
        raise ArgumentError(msg)
    member = np.minimum((confidence * n_bins).astype(np.intp), n_bins - 1)
    counts = np.bincount(member, minlength=n_bins)
    held = counts > 0
    means = [
        np.bincount(member, values, n_bins)[held] / counts[held] for values in (confidence, correct)
    ]
    return Reliability(means[0], means[1], counts[held].astype(np.int64))


def risk_coverage(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> RiskCoverage:
    """Compute the error rate among the most confident cells as a function of coverage.

    Parameters
    ----------
    confidence
        Any score that increases with confidence, shape (n_cells,). Cells with NaN are ignored.
    correct
        Whether each prediction is correct, shape (n_cells,).

    Returns
    -------
    The curve. Cells of equal confidence contribute their mean, so that the result does not depend on the order of cells.

    Raises
    ------
    ArgumentError
        If shapes differ, or all values are NaN.

    Notes
    -----
    Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import risk_coverage
    >>> risk_coverage(np.array([0.9, 0.8, 0.2]), np.array([True, True, False])).risk.round(2).tolist()
    [0.0, 0.0, 0.33]
    """
    confidence, correct = _pairs(confidence, correct)
    _, member = np.unique(-confidence, return_inverse=True)
    wrong = np.bincount(member, ~correct) / np.bincount(member)
    errors = np.cumsum(wrong[np.sort(member)])
    n_predicted = np.arange(1, len(correct) + 1)
    return RiskCoverage(n_predicted / len(correct), errors / n_predicted)


def open_set_auroc(novelty: NDArray[np.floating], is_novel: NDArray[np.bool_]) -> float:
    """Compute the AUROC of a novelty score for cells of novel against known types.

    Parameters
    ----------
    novelty
        Novelty score, higher for novel cells, shape (n_cells,). Cells with NaN are ignored.
    is_novel
        Whether the type of each cell is novel, shape (n_cells,).

    Returns
    -------
    AUROC: 0.5 for a random score, 1 for a perfect one.

    Raises
    ------
    ArgumentError
        If shapes differ, or there are no novel or no known cells.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import open_set_auroc
    >>> open_set_auroc(np.array([0.1, 0.4, 0.9]), np.array([False, False, True]))
    1.0
    """
    from sklearn.metrics import roc_auc_score

    novelty, is_novel = _pairs(novelty, is_novel)
    if is_novel.all() or not is_novel.any():
        msg = f"Novel and known cells are both required; {int(is_novel.sum())} of {len(is_novel)} cells are novel."
        raise ArgumentError(msg)
    return float(roc_auc_score(is_novel, novelty))


def _pairs(
    scores: NDArray[np.floating], flags: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, flags = np.asarray(scores, dtype=np.float64), np.asarray(flags, dtype=bool)
    if scores.ndim != 1 or scores.shape != flags.shape:
        msg = f"Both arrays must have shape (n_cells,), got {scores.shape} and {flags.shape}"
        raise ArgumentError(msg)
    usable = np.isfinite(scores)
    if not usable.any():
        msg = f"All {len(scores)} scores are NaN. Pass annotated cells."
        raise ArgumentError(msg)
    return scores[usable], flags[usable]
