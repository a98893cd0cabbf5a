"""Baselines of drug response: what means, ridge regression and gradient boosting make of the same pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from sccello_tools.drug.encoders import fingerprints
from sccello_tools.metrics import drug_correlations

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENALTIES = (0.3, 1.0, 3.0)
BOOSTED_PAIRS = 40_000


def drug_mean(y: NDArray, train: NDArray, **_) -> NDArray:
    """The drug's mean over its training lines; the mean of all for a drug without any."""
    seen = np.where(train, y, 0).sum(axis=0)
    n = train.sum(axis=0)
    return np.broadcast_to(np.where(n, seen / np.maximum(n, 1), y[train].mean()), y.shape)


def drug_and_line_mean(y: NDArray, train: NDArray, **_) -> NDArray:
    """The drug's mean, plus what the line is off the drugs' means on average."""
    base = drug_mean(y, train)
    off = np.where(train, y - base, 0).sum(axis=1) / np.maximum(train.sum(axis=1), 1)
    return base + off[:, None]


def ridge(y: NDArray, train: NDArray, *, expression: NDArray, seed: int, **_) -> NDArray:
    """Ridge regression on all genes, for each drug on its own lines; the penalty is chosen on a fifth of the training lines."""
    rows = np.flatnonzero(train.any(axis=1))
    centred = expression - expression[rows].mean(axis=0)
    kernel = centred @ centred.T
    kernel = kernel / np.trace(kernel[np.ix_(rows, rows)]) * len(rows) / 2
    held = np.random.default_rng(seed).permutation(rows)[: len(rows) // 5]
    inner = train.copy()
    inner[held] = False
    scores = []
    for penalty in PENALTIES:
        found = _ridge(y, inner, kernel, penalty)
        truth = np.where(train[held], y[held], np.nan)
        scores.append(np.nanmean(drug_correlations(truth, found[held])))
    return _ridge(y, train, kernel, PENALTIES[int(np.argmax(scores))])


def _ridge(y: NDArray, train: NDArray, kernel: NDArray, penalty: float) -> NDArray:
    base = drug_mean(y, train)[0]
    out = np.full(y.shape, np.nan)
    for drug in np.flatnonzero(train.any(axis=0)):
        own = train[:, drug]
        weights = np.linalg.solve(
            kernel[np.ix_(own, own)] + penalty * np.eye(own.sum()), y[own, drug] - base[drug]
        )
        out[:, drug] = kernel[:, own] @ weights + base[drug]
    return out


def boosting(
    y: NDArray, train: NDArray, *, expression: NDArray, smiles: list[str], seed: int, **_
) -> NDArray:
    """Gradient boosting on 32 components of expression and 32 of fingerprints; on 40,000 of the training pairs, for time."""
    rows, columns = np.flatnonzero(train.any(axis=1)), np.flatnonzero(train.any(axis=0))
    bits = fingerprints(smiles)
    lines = PCA(32, random_state=seed).fit(expression[rows]).transform(expression)
    drugs = PCA(32, random_state=seed).fit(bits[columns]).transform(bits)
    pairs = np.argwhere(train)
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:BOOSTED_PAIRS]
    own = pairs[chosen]
    # the drug's mean on its training lines is a feature, too, or the trees spend themselves on it
    base = drug_mean(y, train)[0]
    model = HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.1, max_leaf_nodes=31, random_state=seed
    )
    known = train.any(axis=0)
    model.fit(
        np.hstack([lines[own[:, 0]], drugs[own[:, 1]], base[own[:, 1], None]]), y[train][chosen]
    )
    out = np.empty(y.shape)
    for drug in range(y.shape[1]):
        value = base[drug] if known[drug] else np.nan
        rest = np.broadcast_to(np.append(drugs[drug], value), (len(y), 33))
        out[:, drug] = model.predict(np.hstack([lines, rest]))
    return out


BASELINES = {
    "mean of the drug": drug_mean,
    "mean of drug + mean of line": drug_and_line_mean,
    "ridge on expression, per drug": ridge,
    "gradient boosting": boosting,
}
