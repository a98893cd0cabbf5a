"""Probabilities of the known types: a linear head on frozen embeddings, with a temperature."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Multinomial logistic regression over known types."""

    weight: NDArray[np.float32]
    """(n_types, n_features)"""
    bias: NDArray[np.float32]
    """(n_types,)"""
    temperature: float = 1.0
    """What logits are divided by before the softmax."""

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n_cells, n_types), temperature not yet applied."""
        found: NDArray[np.float32] = features @ self.weight.T + self.bias
        return found

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n_cells, n_types); rows sum to 1, rows with NaN stay NaN."""
        return softmax(self.logits(features) / np.float32(self.temperature))

    def calibrated(self, features: NDArray[np.float32], accepted: NDArray[np.bool_]) -> LinearHead:
        """Choose the temperature under which held-out cells are most likely.

        Parameters
        ----------
        features
            (n_cells, n_features) of cells that the head was not fitted on.
        accepted
            (n_cells, n_types): the types that are right for each cell, its own and subtypes of it.
        """
        from scipy.optimize import minimize_scalar

        usable = accepted.any(axis=1)
        logits, right = self.logits(features[usable]), accepted[usable]

        def loss(log_temperature: float) -> float:
            chances = softmax(logits / np.float32(np.exp(log_temperature)))
            return float(-np.log(np.maximum((chances * right).sum(axis=1), 1e-12)).mean())

        best = minimize_scalar(loss, bounds=(np.log(0.2), np.log(20)), method="bounded")
        return replace(self, temperature=float(np.exp(best.x)))


def fit_head(
    features: NDArray[np.float32],
    types: NDArray[np.intp],
    n_types: int,
    *,
    balance: float = 0.5,
    strength: float = 0.02,
) -> LinearHead:
    """Fit the head by scikit-learn's logistic regression.

    Parameters
    ----------
    features
        (n_cells, n_features).
    types
        (n_cells,) index of each cell's type.
    n_types
        Number of types; those without a cell get a bias that rules them out.
    balance
        Cells count by their type's frequency to the power of minus this: 0 all cells alike, 1 all types alike.
    strength
        Inverse of the penalty (scikit-learn's C).
    """
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(types, minlength=n_types)
    weights = counts[types].astype(float) ** -balance
    model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
    model.fit(features, types, sample_weight=weights / weights.mean())
    weight = np.zeros((n_types, features.shape[1]), dtype=np.float32)
    bias = np.full(n_types, -1e4, dtype=np.float32)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        low, high = model.classes_
        weight[high], bias[high] = model.coef_[0], model.intercept_[0]
        bias[low] = 0
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return LinearHead(weight, bias)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of each row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return found
