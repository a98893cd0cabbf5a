"""Probabilities of the known types: temperature-scaled logistic regression on frozen embeddings."""

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
    """Divisor of the logits before the softmax."""

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits of shape (n_cells, n_types), without temperature."""
        found: NDArray[np.float32] = features @ self.weight.T + self.bias
        return found

    def calibrated(self, features: NDArray[np.float32], correct: NDArray[np.bool_]) -> LinearHead:
        """Return the head with the temperature of :func:`fit_temperature` on held-out cells."""
        return replace(self, temperature=fit_temperature(self.logits(features), correct))

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities of shape (n_cells, n_types); rows sum to 1, rows with NaN stay NaN."""
        return softmax(self.logits(features) / np.float32(self.temperature))


def fit_temperature(logits: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    r"""Return the temperature that maximises the likelihood of held-out cells.

    Minimises :math:`-\sum_i \log \sum_{t \in C_i} \mathrm{softmax}(z_i / \tau)_t` over :math:`\tau`.

    Parameters
    ----------
    logits
        (n_cells, n_types) of cells that the classifier was not fitted on.
    correct
        (n_cells, n_types): the correct types :math:`C_i` of each cell, its own and its subtypes. Cells without any are ignored.
    """
    from scipy.optimize import minimize_scalar

    usable = correct.any(axis=1)
    logits, correct = logits[usable], correct[usable]

    def loss(log_temperature: float) -> float:
        probs = softmax(logits / np.float32(np.exp(log_temperature)))
        return float(-np.log(np.maximum((probs * correct).sum(axis=1), 1e-12)).mean())

    best = minimize_scalar(loss, bounds=(np.log(0.2), np.log(20)), method="bounded")
    return float(np.exp(best.x))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of each row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return found
