"""How well drug responses are predicted: over all pairs, by drug, and by cell line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


class ResponseScore(NamedTuple):
    """Agreement of predicted with measured responses."""

    pearson: float
    """Over all pairs. Drugs differ far more than lines do: knowing the mean of each drug gives much of it."""
    spearman: float
    """Over all pairs."""
    rmse: float
    """Root mean square error over all pairs, ln IC50."""
    pearson_by_drug: float
    """Mean over drugs of the correlation over lines: which lines a drug works on."""
    spearman_by_drug: float
    """Likewise, of ranks."""
    pearson_by_line: float
    """Mean over lines of the correlation over drugs."""
    spearman_by_line: float
    """Likewise, of ranks."""
    n_pairs: int
    """Pairs that were scored."""
    n_drugs: int
    """Drugs with enough lines to count in the means by drug."""
    n_lines: int
    """Lines with enough drugs to count in the means by line."""


def response_score(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    *,
    min_per_group: int = 5,
) -> ResponseScore:
    """Score predicted responses.

    Parameters
    ----------
    measured
        (n_lines, n_drugs) responses; NaN for pairs that do not count.
    predicted
        (n_lines, n_drugs) predictions for at least these pairs.
    min_per_group
        Fewest pairs of a drug, or of a line, for it to count in the means by drug or by line.

    Returns
    -------
    The scores; NaN where nothing can be correlated. A drug or line to which all answers are the same scores 0.

    Raises
    ------
    ArgumentError
        If shapes differ, no pair is measured, or a prediction for a measured pair is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import response_score
    >>> measured = np.array([[1.0, 5.0], [2.0, 7.0], [3.0, np.nan]])
    >>> score = response_score(measured, np.array([[1.5, 5.0], [2.5, 7.0], [3.5, 9.0]]), min_per_group=3)
    >>> round(score.rmse, 3), round(score.pearson_by_drug, 3), score.n_drugs
    (0.387, 1.0, 1)
    """
    _check_shapes(measured, predicted)
    counted = np.isfinite(measured)
    if not counted.any():
        msg = "measured holds no number, so that nothing can be scored. Pass at least one measured response."
        raise ArgumentError(msg)
    if missing := int((~np.isfinite(predicted[counted])).sum()):
        msg = f"{missing:,} of {int(counted.sum()):,} measured pairs have no prediction; expected is one for each. Predict them, or set what was measured there to NaN."
        raise ArgumentError(msg)
    truth, answer = measured[counted].astype(np.float64), predicted[counted].astype(np.float64)
    by_drug = drug_correlations(measured, predicted, min_lines=min_per_group)
    by_line = drug_correlations(measured.T, predicted.T, min_lines=min_per_group)
    rank_by_drug = drug_correlations(measured, predicted, min_lines=min_per_group, ranks=True)
    rank_by_line = drug_correlations(measured.T, predicted.T, min_lines=min_per_group, ranks=True)
    return ResponseScore(
        pearson=_pearson(truth, answer),
        spearman=_spearman(truth, answer),
        rmse=_root_mean_square(truth - answer),
        pearson_by_drug=_mean(by_drug),
        spearman_by_drug=_mean(rank_by_drug),
        pearson_by_line=_mean(by_line),
        spearman_by_line=_mean(rank_by_line),
        n_pairs=len(truth),
        n_drugs=int(np.isfinite(by_drug).sum()),
        n_lines=int(np.isfinite(by_line).sum()),
    )


def drug_correlations(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    *,
    min_lines: int = 5,
    ranks: bool = False,
) -> NDArray[np.float64]:
    """Correlate measured with predicted responses of each drug, over the lines that were measured.

    Parameters
    ----------
    measured, predicted
        (n_lines, n_drugs); pairs with NaN in ``measured`` do not count.
    min_lines
        Fewest lines of a drug.
    ranks
        Spearman's correlation instead of Pearson's.

    Returns
    -------
    (n_drugs,); NaN for drugs with too few lines, that were measured the same on all, or for which a prediction is missing; 0 where all
    predictions are the same.

    Raises
    ------
    ArgumentError
        If shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import drug_correlations
    >>> measured = np.array([[1.0, 5.0], [2.0, np.nan], [4.0, np.nan]])
    >>> drug_correlations(measured, measured**2, min_lines=3, ranks=True).tolist()
    [1.0, nan]
    """
    _check_shapes(measured, predicted)
    correlate = _spearman if ranks else _pearson
    found = np.full(measured.shape[1], np.nan)
    for drug in range(measured.shape[1]):
        counted = np.isfinite(measured[:, drug])
        if counted.sum() >= max(2, min_lines) and np.isfinite(predicted[counted, drug]).all():
            found[drug] = correlate(measured[counted, drug], predicted[counted, drug])
    return found


def _check_shapes(
    measured: NDArray[np.floating[Any]], predicted: NDArray[np.floating[Any]]
) -> None:
    if measured.shape != predicted.shape or measured.ndim != 2:
        msg = f"measured has shape {measured.shape}, predicted {predicted.shape}; expected is (n_lines, n_drugs) for both"
        raise ArgumentError(msg)


def _root_mean_square(differences: NDArray[np.float64]) -> float:
    largest = float(np.abs(differences).max())  # in whose units no square is too large
    return largest * float(np.sqrt(((differences / largest) ** 2).mean())) if largest else 0.0


def _pearson(truth: NDArray[np.floating[Any]], answer: NDArray[np.floating[Any]]) -> float:
    a, b = truth.astype(np.float64), answer.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    # what is left of a constant after rounding is no spread
    if np.abs(a).max() <= 1e-9 * max(1.0, float(np.abs(truth).max())):
        return float("nan")
    if np.abs(b).max() <= 1e-6 * max(1.0, float(np.abs(answer).max())):
        return 0.0
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # so that no square is too large
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def _spearman(truth: NDArray[np.floating[Any]], answer: NDArray[np.floating[Any]]) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(truth), rankdata(answer))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
