"""Scores of predicted drug responses: over all pairs, by drug, and by cell line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


class ResponseScore(NamedTuple):
    """Agreement of predicted and measured responses."""

    pearson: float
    """Pearson correlation over all pairs; dominated by differences between drugs."""
    spearman: float
    """Spearman correlation over all pairs."""
    rmse: float
    """Root mean square error over all pairs, ln IC50."""
    pearson_by_drug: float
    """Pearson correlation over cell lines, averaged over drugs."""
    spearman_by_drug: float
    """Spearman correlation over cell lines, averaged over drugs."""
    pearson_by_line: float
    """Pearson correlation over drugs, averaged over cell lines."""
    spearman_by_line: float
    """Spearman correlation over drugs, averaged over cell lines."""
    n_pairs: int
    """Number of scored pairs."""
    n_drugs: int
    """Number of drugs in the averages over drugs."""
    n_lines: int
    """Number of cell lines in the averages over lines."""


def response_score(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    *,
    min_per_group: int = 5,
) -> ResponseScore:
    """Score predicted drug responses.

    Parameters
    ----------
    measured
        Measured responses, shape (n_lines, n_drugs); NaN for pairs that are not scored.
    predicted
        Predictions, shape (n_lines, n_drugs); required for all measured pairs.
    min_per_group
        Minimum number of pairs of a drug (line) in the averages over drugs (lines).

    Returns
    -------
    The scores; NaN where no correlation is defined. A drug or line with constant predictions has correlation 0.

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
        msg = "All values of measured are NaN. Pass at least one measured response."
        raise ArgumentError(msg)
    if missing := int((~np.isfinite(predicted[counted])).sum()):
        msg = f"{missing:,} of {int(counted.sum()):,} measured pairs have no prediction. Predict them, or set their measured values to NaN."
        raise ArgumentError(msg)
    truth, prediction = measured[counted].astype(np.float64), predicted[counted].astype(np.float64)
    by_drug = drug_correlations(measured, predicted, min_lines=min_per_group)
    by_line = drug_correlations(measured.T, predicted.T, min_lines=min_per_group)
    rank_by_drug = drug_correlations(measured, predicted, min_lines=min_per_group, ranks=True)
    rank_by_line = drug_correlations(measured.T, predicted.T, min_lines=min_per_group, ranks=True)
    return ResponseScore(
        pearson=_pearson(truth, prediction),
        spearman=_spearman(truth, prediction),
        rmse=_root_mean_square(truth - prediction),
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
    """Correlate measured and predicted responses of each drug over cell lines.

    Parameters
    ----------
    measured, predicted
        Responses, shape (n_lines, n_drugs); pairs with NaN in ``measured`` are ignored.
    min_lines
        Minimum number of measured lines of a drug.
    ranks
        Whether to compute Spearman's instead of Pearson's correlation.

    Returns
    -------
    Array of shape (n_drugs,); NaN for drugs with too few lines, constant measurements or missing predictions, 0 for drugs with
    constant predictions.

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
    correlations = np.full(measured.shape[1], np.nan)
    for drug in range(measured.shape[1]):
        counted = np.isfinite(measured[:, drug])
        if counted.sum() >= max(2, min_lines) and np.isfinite(predicted[counted, drug]).all():
            correlations[drug] = correlate(measured[counted, drug], predicted[counted, drug])
    return correlations


def _check_shapes(
    measured: NDArray[np.floating[Any]], predicted: NDArray[np.floating[Any]]
) -> None:
    if measured.shape != predicted.shape or measured.ndim != 2:
        msg = f"measured and predicted must both have shape (n_lines, n_drugs), got {measured.shape} and {predicted.shape}"
        raise ArgumentError(msg)


def _root_mean_square(differences: NDArray[np.float64]) -> float:
    largest = float(np.abs(differences).max())  # scaled, so that squares do not overflow
    return largest * float(np.sqrt(((differences / largest) ** 2).mean())) if largest else 0.0


def _pearson(truth: NDArray[np.floating[Any]], prediction: NDArray[np.floating[Any]]) -> float:
    a, b = truth.astype(np.float64), prediction.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    # rounding errors of a constant are not variation
    if np.abs(a).max() <= 1e-9 * max(1.0, float(np.abs(truth).max())):
        return float("nan")
    if np.abs(b).max() <= 1e-6 * max(1.0, float(np.abs(prediction).max())):
        return 0.0
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # avoid overflow
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def _spearman(truth: NDArray[np.floating[Any]], prediction: NDArray[np.floating[Any]]) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(truth), rankdata(prediction))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
