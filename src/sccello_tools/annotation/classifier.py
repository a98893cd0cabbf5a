"""Classifier of known types on frozen embeddings, fitted to labels at different depths of the ontology."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_RIDGE = 0.1  # fraction of the mean variance that is added to the diagonal of the covariance
_DESCENDANT_WEIGHT = 0.02
_MAX_ITER = 60


def fit_classifier(
    features: NDArray[np.float32],
    types: NDArray[np.intp],
    below: NDArray[np.bool_],
    *,
    sample_weight: NDArray[np.floating] | None = None,
    penalty: float = 100.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    r"""Multinomial logistic regression whose labels may be ancestors of each other.

    A cell labelled T cell may be a CD4 T cell. Its loss is :math:`-\log (e^{s_t} / \sum_u a_u e^{s_u})` with :math:`a_u` = 1 for types
    unrelated to the label t, for t itself and for its ancestors, and 0.02 for types below t, which are neither correct nor
    incorrect. (If types below t were counted as correct, cells labelled CD14-positive monocyte would drift to the subtype
    that has labelled cells.) A cell of a subtype counts against the ancestors' classes, so that a broad class is predicted for cells that look
    like none of its subtypes.

    Parameters
    ----------
    features
        Array of shape (n_cells, n_features).
    types
        (n_cells,) index of the label.
    below
        (n_types, n_types): whether the column type is the row type or below it.
    sample_weight
        (n_cells,); equal weights if not given.
    penalty
        Factor of the squared weights (the inverse of scikit-learn's C).

    Returns
    -------
    Weights of shape (n_types, n_features) and intercepts of shape (n_types,).
    """
    from scipy.optimize import minimize

    n_cells, n_types = len(features), len(below)
    x = np.hstack([features, np.ones((n_cells, 1), np.float32)]).astype(np.float32)
    weight = np.ones(n_cells) if sample_weight is None else np.asarray(sample_weight)
    weight = (weight / weight.mean()).astype(np.float32)[:, None]
    strictly = below & ~np.eye(n_types, dtype=bool)
    log_a = np.where(strictly, np.log(_DESCENDANT_WEIGHT), 0).astype(np.float32)
    rows = np.arange(n_cells)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(n_types, -1).astype(np.float32)
        scores = x @ w.T
        own = scores[rows, types].copy()
        scores += log_a[types]
        most = scores.max(axis=1, keepdims=True)
        p = np.exp(scores - most)
        total = p.sum(axis=1, keepdims=True)
        value = float((weight[:, 0] * (np.log(total[:, 0]) + most[:, 0] - own)).sum())
        p /= total
        p[rows, types] -= 1
        gradient = (p * weight).T @ x
        gradient[:, :-1] += penalty * w[:, :-1]
        value += 0.5 * penalty * float((w[:, :-1] ** 2).sum())
        return value, gradient.ravel().astype(np.float64)

    start = np.zeros(n_types * x.shape[1])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_ITER})
    found = best.x.reshape(n_types, -1).astype(np.float32)
    return found[:, :-1], found[:, -1]


@dataclass(frozen=True, eq=False)
class TypeDistances:
    """Mahalanobis distance to the mean of each type, with the covariance within types, per dimension of the embedding."""

    whitening: NDArray[np.float32]
    """(d, d): multiplied by this, rows have unit covariance within types."""
    centres: NDArray[np.float32]
    """(n_types, d) whitened means."""

    @classmethod
    def of(
        cls, points: NDArray[np.float32], types: NDArray[np.intp], n_types: int
    ) -> TypeDistances:
        """Fit to (n_cells, d) scaled embeddings; each type has the same weight."""
        means = np.stack([points[types == k].mean(axis=0) for k in range(n_types)])
        residuals = points - means[types]
        weight = 1 / np.bincount(types, minlength=n_types)[types]
        covariance = (residuals * weight[:, None]).T @ residuals / weight.sum()
        ridge = _RIDGE * np.trace(covariance) / len(covariance)
        precision = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        whitening = np.linalg.cholesky(precision).astype(np.float32)
        return cls(whitening, (means @ whitening).astype(np.float32))

    def log_nearest(
        self, points: NDArray[np.float32], kept: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Log squared distance per dimension to the nearest type, among ``kept`` ones if given; shape (n_cells,)."""
        centres = self.centres if kept is None else self.centres[kept]
        white = points @ self.whitening
        squares = (white**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * white @ centres.T
        found: NDArray[np.float32] = np.log(
            np.maximum(squares.min(axis=1) / points.shape[1], 1e-6)
        ).astype(np.float32)
        return found


def types_below(types: Sequence[str], above: Sequence[frozenset[str]]) -> NDArray[np.bool_]:
    """(n_types, n_types): whether the column type is the row type or below it, from each type's ancestors."""
    return np.array([[t in own for own in above] for t in types], dtype=bool).reshape(
        len(types), len(types)
    )
