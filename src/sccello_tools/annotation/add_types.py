"""New known types for a model, from some cells of each, without training its network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import LabelError

from .head import LinearHead
from .novelty import ReferenceCells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from .calibrate import KnownCells
    from .statistics import AnnotationStatistics

_STRENGTH = 0.02  # as the head's
_FEWEST = 5
_N_REFERENCE = 60


def add_types(
    known: AnnotationStatistics,
    cells: KnownCells,
    *,
    parents: Mapping[str, str],
    cell_representation: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    seed: int = 0,
) -> AnnotationStatistics:
    """Teach a head new types; what it knows of the others stays as it is.

    Only the rows of the new types are fitted, by logistic regression against the model's sample of known cells, so the order
    among known types cannot change. Thresholds stay as they were calibrated.

    Parameters
    ----------
    known
        Statistics of the model.
    cells
        Cells of the new types; ``types`` are current terms, or names.
    parents
        Term that each name belongs under.
    cell_representation
        From (n, d) ``cls`` rows to ``cell`` rows, as the model does it.
    seed
        Of the sample that is kept.

    Raises
    ------
    LabelError
        If there is no type, or one is known already or has fewer than five cells.
    """
    new = tuple(sorted(set(cells.types.tolist())))
    if not new:
        msg = "No cell has a type and an embedding, so there is nothing to add. Check the column of labels, and pass cells with raw counts."
        raise LabelError(msg)
    if twice := sorted(set(new) & set(known.types)):
        msg = f"{len(twice)} types are known to the model already: {', '.join(twice[:5])}. Leave their cells out, or name them anew with a parent."
        raise LabelError(msg)
    index = np.searchsorted(np.array(new), cells.types)
    counts = np.bincount(index, minlength=len(new))
    if few := [f"{name} ({n})" for name, n in zip(new, counts) if n < _FEWEST]:
        msg = f"{len(few)} types have fewer than {_FEWEST} cells: {', '.join(few[:5])}. A prototype needs more; merge or leave out."
        raise LabelError(msg)
    old_hidden = (
        known.reference.points * known.reference.lengths[:, None] * known.scale.spread
        + known.scale.mean
    ).astype(np.float32)
    old = known.scale.features(old_hidden, cell_representation(old_hidden))
    features = known.scale.features(cells.hidden, cells.cells)
    weight, bias = _fit_rows(known.head, old, known.reference.types, features, index, len(new))
    rng = np.random.default_rng(seed)
    kept = np.concatenate(
        [rng.permutation(np.flatnonzero(index == each))[:_N_REFERENCE] for each in range(len(new))]
    )
    scaled = (cells.hidden[kept] - known.scale.mean) / known.scale.spread
    own = ReferenceCells.of(scaled.astype(np.float32), index[kept], len(new))
    sums = np.zeros((len(new), cells.cells.shape[1]))
    np.add.at(sums, index, cells.cells)
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return replace(
        known,
        types=(*known.types, *new),
        parents={**known.parents, **{name: parents[name] for name in new if name in parents}},
        counts=np.concatenate([known.counts, counts]).astype(np.int64),
        prototypes=np.concatenate([known.prototypes, sums / lengths]).astype(np.float32),
        head=LinearHead(
            np.concatenate([known.head.weight, weight]),
            np.concatenate([known.head.bias, bias]),
            known.head.temperature,
        ),
        reference=ReferenceCells(
            np.concatenate([known.reference.points, own.points]),
            np.concatenate([known.reference.lengths, own.lengths]),
            np.concatenate([known.reference.types, own.types + len(known.types)]),
            np.concatenate([known.reference.spread, own.spread]),
        ),
    )


def _fit_rows(
    head: LinearHead,
    old: NDArray[np.float32],
    old_types: NDArray[np.intp],
    new: NDArray[np.float32],
    new_types: NDArray[np.intp],
    n_new: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit weights and biases of new rows of a softmax whose other rows stand still; convex, so there is one answer."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    features = np.concatenate([old, new]).astype(np.float64)
    fixed = logsumexp(head.logits(features.astype(np.float32)).astype(np.float64), axis=1)
    truth = np.concatenate([np.full(len(old), -1), new_types])
    fixed_truth = head.logits(old)[np.arange(len(old)), old_types].astype(np.float64)
    # each type counts alike, as far as its cells allow
    counts = np.bincount(np.concatenate([old_types, new_types + head.weight.shape[0]]))
    sizes = counts[np.concatenate([old_types, new_types + head.weight.shape[0]])]
    weights = sizes.astype(float) ** -0.5
    weights /= weights.mean()
    width = features.shape[1]
    is_new = truth >= 0

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(n_new, width + 1)
        logits = features @ table[:, :width].T + table[:, width]
        both = np.concatenate([fixed[:, None], logits], axis=1)
        total = logsumexp(both, axis=1)
        own = np.empty(len(features))
        own[~is_new] = fixed_truth
        own[is_new] = logits[is_new, truth[is_new]]
        chances = np.exp(logits - total[:, None])
        chances[is_new, truth[is_new]] -= 1
        chances *= weights[:, None]
        slope = np.empty_like(table)
        slope[:, :width] = chances.T @ features + table[:, :width] / _STRENGTH
        slope[:, width] = chances.sum(axis=0)
        penalty = (table[:, :width] ** 2).sum() / (2 * _STRENGTH)
        return float((weights * (total - own)).sum() + penalty), slope.ravel()

    start = np.zeros((n_new, width + 1))
    start[:, width] = fixed.mean() - np.log(len(features))
    best = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    table = best.x.reshape(n_new, width + 1).astype(np.float32)
    return table[:, :width], table[:, width]
