"""Does confidence mean what it says: calibration, coverage, risk against coverage, known against novel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reliability(NamedTuple):
    """Bins of confidence, for a reliability curve; bins without cells are left out."""

    confidence: NDArray[np.float64]
    """(n_bins,) mean confidence."""

    accuracy: NDArray[np.float64]
    """(n_bins,) share of answers that are right."""

    n_cells: NDArray[np.int64]
    """(n_bins,)"""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between the two, by cells."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.n_cells))


class RiskCoverage(NamedTuple):
    """What is wrong among the surest answers."""

    coverage: NDArray[np.float64]
    """(n_cells,) share of cells answered, ascending."""

    risk: NDArray[np.float64]
    """(n_cells,) share of those that are wrong."""

    @property
    def area(self) -> float:
        """Area under the curve (AURC): the mean risk over all coverages; lower is better."""
        return float(self.risk.mean())


def reliability(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], *, n_bins: int = 15
) -> Reliability:
    """Compare confidence with what comes true, in bins of equal width.

    Parameters
    ----------
    confidence
        Probabilities given, shape (n_cells,). Cells with NaN are left out.
    right
        Whether each answer was right, shape (n_cells,).
    n_bins
        Bins between 0 and 1.

    Returns
    -------
    The bins, whose ``error`` is the expected calibration error.

    Raises
    ------
    ValueError
        If shapes differ, no cell is left, a confidence is no probability, or there are to be no bins.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import reliability
    >>> round(reliability(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])).error, 3)
    0.1
    """
    if n_bins < 1:
        msg = f"n_bins is {n_bins}; expected is at least 1"
        raise ArgumentError(msg)
    confidence, right = _pairs(confidence, right)
    if confidence.min() < 0 or confidence.max() > 1:
        msg = f"confidence runs from {confidence.min():.3g} to {confidence.max():.3g}; expected are probabilities, 0 to 1"
        raise ArgumentError(msg)
    member = np.minimum((confidence * n_bins).astype(np.intp), n_bins - 1)
    counts = np.bincount(member, minlength=n_bins)
    held = counts > 0
    means = [
        np.bincount(member, values, n_bins)[held] / counts[held] for values in (confidence, right)
    ]
    return Reliability(means[0], means[1], counts[held].astype(np.int64))


def risk_coverage(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> RiskCoverage:
    """Answer only the surest cells, then more and more of them: what share is wrong?

    Parameters
    ----------
    confidence
        Any score that is higher for surer answers, shape (n_cells,). Cells with NaN are left out.
    right
        Whether each answer was right, shape (n_cells,).

    Returns
    -------
    The curve. Cells of equal confidence enter together in their mean, so the order of rows does not matter.

    Raises
    ------
    ValueError
        If shapes differ or no cell is left.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import risk_coverage
    >>> risk_coverage(np.array([0.9, 0.8, 0.2]), np.array([True, True, False])).risk.round(2).tolist()
    [0.0, 0.0, 0.33]
    """
    confidence, right = _pairs(confidence, right)
    _, member = np.unique(-confidence, return_inverse=True)
    wrong = np.bincount(member, ~right) / np.bincount(member)
    errors = np.cumsum(wrong[np.sort(member)])
    n_answered = np.arange(1, len(right) + 1)
    return RiskCoverage(n_answered / len(right), errors / n_answered)


def open_set_auroc(novelty: NDArray[np.floating], is_novel: NDArray[np.bool_]) -> float:
    """AUROC of a novelty score: how well it tells cells of unknown types from cells of known ones.

    Parameters
    ----------
    novelty
        Higher for stranger cells, shape (n_cells,). Cells with NaN are left out.
    is_novel
        Whether each cell's type is unknown, shape (n_cells,).

    Returns
    -------
    .5 for chance, 1 for perfect.

    Raises
    ------
    ValueError
        If shapes differ, or not both kinds of cells are there.

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
        msg = f"{int(is_novel.sum())} of {len(is_novel)} cells are novel; expected are some of both kinds. Pass cells of known and of unknown types."
        raise ArgumentError(msg)
    return float(roc_auc_score(is_novel, novelty))


def _pairs(
    scores: NDArray[np.floating], flags: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, flags = np.asarray(scores, dtype=np.float64), np.asarray(flags, dtype=bool)
    if scores.ndim != 1 or scores.shape != flags.shape:
        msg = (
            f"scores have shape {scores.shape}, flags {flags.shape}; expected is one of each a cell"
        )
        raise ArgumentError(msg)
    usable = np.isfinite(scores)
    if not usable.any():
        msg = f"None of the {len(scores)} cells has a score that is a number; expected is one at least. Pass cells that were annotated."
        raise ArgumentError(msg)
    return scores[usable], flags[usable]
