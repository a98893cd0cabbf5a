"""Fit weights of the sources of evidence by maximum likelihood, and score cells with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .evidence import MARKER_FEATURES, PAIR_FEATURES, log_sum_exp
from .evidence_fit import label_scores
from .held_out import rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .evidence import EvidenceModel, EvidenceWeights
    from .held_out import FoldFeatures, HeldOutCells

# typical standard deviation of each pair feature, so that one penalty suits all
_FEATURE_SD = np.array([0.35, 0.35, 0.35, 0.2, 0.35, 3.0, 0.25, 0.3], dtype=np.float32)
_AT_LEAST_0 = np.array([1, 1, -1, -1, 1, 1, 1, 1])
_LEAST = -1e9
_PENALTY = 1e-3  # of squared weights
_MAX_CELLS = 4_000  # of more cells, a random sample is used


def row_weights(data: FoldFeatures, cells: HeldOutCells) -> NDArray[np.float64]:
    """Weight each type of a study by its number of cells to the power of 0.3; both modes have equal weight, synthetic cells half."""
    key = np.char.add(np.char.add(cells.studies[data.rows], "|"), cells.types[data.rows])
    key = np.char.add(key, np.where(data.novel, "|n", "|k"))
    group = np.unique(key, return_inverse=True)[1]
    weight = np.bincount(group)[group] ** -0.7 * np.where(cells.synthetic[data.rows], 0.5, 1)
    if data.novel.any() and not data.novel.all():
        weight[data.novel] *= weight[~data.novel].sum() / weight[data.novel].sum()
    found: NDArray[np.float64] = weight / weight.sum()
    return found


def _prior(
    model: EvidenceModel,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    prior = np.stack([model.space.depth, np.log1p(model.space.n_sources)], axis=1)
    mean, sd = prior.mean(axis=0), np.maximum(prior.std(axis=0), 1e-6)
    return ((prior - mean) / sd).astype(np.float32), mean, sd


def fit_weights(
    data: FoldFeatures,
    model: EvidenceModel,
    truth: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Maximise the likelihood of the true term, with signs as in :class:`EvidenceWeights`; return values in the order of its fields."""
    from scipy.optimize import minimize

    if len(weight) > _MAX_CELLS:
        rows = np.random.default_rng(0).permutation(len(weight))[:_MAX_CELLS]
        data, weight = rows_of(data, rows), weight[rows]
    n_known = len(model.space.known)
    n_rows = len(model.space)
    w = (weight / weight.sum()).astype(np.float32)[:, None]
    f = data.features.astype(np.float32) / _FEATURE_SD[:, None]
    f -= f.mean(axis=2, keepdims=True)
    is_known = np.zeros((len(w), n_rows), dtype=bool)
    is_known[:, :n_known] = np.isfinite(data.log_p)
    is_open = data.is_open & ~is_known
    log_p = np.zeros((len(w), n_rows), np.float32)
    log_p[:, :n_known] = np.where(is_known[:, :n_known], np.maximum(data.log_p, -12), 0)
    floor = np.where(is_known | is_open, 0, _LEAST).astype(np.float32)
    below = model.space.below[:n_known, :n_known] > 0
    own = truth[data.rows]
    right = np.zeros((len(w), n_rows), dtype=bool)
    right[:, :n_known] = np.where(
        data.novel[:, None], np.arange(n_known) == own[:, None], below[own] & is_known[:, :n_known]
    )
    wrong = np.where(right, 0, _LEAST).astype(np.float32)
    opened = is_open.astype(np.float32)
    prior, mean, sd = _prior(model)
    d_mean, d_sd = data.distance.mean(), max(float(data.distance.std()), 1e-6)
    distance = ((data.distance - d_mean) / d_sd).astype(np.float32)
    k = len(PAIR_FEATURES)

    def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        u = v.astype(np.float32)
        scores = np.einsum("nfr,f->nr", f, u[:k], optimize=True) + u[k] * log_p + floor
        scores += opened * ((distance * u[k + 3] + u[k + 4])[:, None] + prior @ u[k + 1 : k + 3])
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        q = np.exp(scores + wrong - (scores + wrong).max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        likelihood = np.maximum((p * right).sum(axis=1), 1e-30)
        d = (p - q) * w
        d_open = d * opened
        of_cell = d_open.sum(axis=1)
        gradient = np.concatenate(
            [np.einsum("nfr,nr->f", f, d, optimize=True), [(d * log_p).sum()], d_open.sum(axis=0) @ prior, [of_cell @ distance], [of_cell.sum()]]
        ).astype(np.float64)  # fmt: skip
        penalised = np.r_[np.full(k, _PENALTY), 0, np.full(3, _PENALTY), 0]
        return float(
            -(w[:, 0] * np.log(likelihood)).sum() + (penalised * v**2).sum()
        ), gradient + 2 * penalised * v

    bounds = [(0, None) if s > 0 else (None, 0) for s in _AT_LEAST_0] + [
        (0, None),
        (None, None),
        (0, None),
        (0, None),
        (None, None),
    ]
    start = np.zeros(k + 5)
    start[k] = 0.5
    v = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100}
    ).x
    depth, log_sources = v[k + 1 : k + 3] / sd
    bias = v[k + 4] - v[k + 1 : k + 3] @ (mean / sd) - v[k + 3] * d_mean / d_sd
    return np.concatenate([v[:k] / _FEATURE_SD, [v[k], depth, log_sources, v[k + 3] / d_sd, bias]])


def scored(
    data: FoldFeatures, model: EvidenceModel, weights: EvidenceWeights
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return novelty, label scores of known types, and scores of open terms."""
    n_known = len(model.space.known)
    w = weights.array()
    shared = np.einsum(
        "nfr,f->nr", data.features.astype(np.float32), w[: len(PAIR_FEATURES)], optimize=True
    )
    is_known = np.isfinite(data.log_p)
    known = np.where(
        is_known,
        shared[:, :n_known] + weights.log_probability * np.maximum(data.log_p, -12),
        _LEAST,
    )
    by_cell = weights.bias + weights.distance * data.distance
    prior = weights.depth * model.space.depth + weights.log_sources * np.log1p(
        model.space.n_sources
    )
    is_open = data.is_open.copy()
    is_open[:, :n_known] &= ~is_known
    opened = np.where(is_open, shared + by_cell[:, None] + prior, _LEAST).astype(np.float32)
    novelty = log_sum_exp(opened) - log_sum_exp(known.astype(np.float32))
    n_marker = len(MARKER_FEATURES)
    markers = np.einsum(
        "nfr,f->nr",
        data.features[:, :n_marker, :n_known].astype(np.float32),
        w[:n_marker],
        optimize=True,
    )
    return novelty, label_scores(markers, data.log_p), opened
