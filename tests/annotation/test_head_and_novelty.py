from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.annotation.head import LinearHead, fit_head, softmax
from sccello_tools.annotation.novelty import ReferenceCells


def blobs(n_each, centres, spread, seed=0):
    rng = np.random.default_rng(seed)
    types = np.repeat(np.arange(len(centres)), n_each)
    points = np.array(centres)[types] + spread * rng.standard_normal((len(types), 3))
    return points.astype(np.float32), types


@pytest.mark.parametrize("n_types", [2, 3])
def test_the_head_tells_blobs_apart(n_types):
    features, types = blobs(40, np.eye(3)[:n_types] * 5, 0.5)
    head = fit_head(features, types, n_types)
    chances = head.probabilities(features)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    assert (chances.argmax(axis=1) == types).mean() > 0.95


def test_a_type_without_cells_is_never_the_answer():
    features, types = blobs(20, np.eye(3)[:2] * 5, 0.5)
    head = fit_head(features, types, n_types=4)
    assert head.probabilities(features)[:, 2:].max() < 1e-6


def test_temperature_makes_an_overconfident_head_honest():
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((4000, 3)).astype(np.float32)
    truth = np.array(
        [
            rng.choice(3, p=row)
            for row in softmax(logits).astype(float)
            / softmax(logits).astype(float).sum(1, keepdims=True)
        ]
    )
    boastful = LinearHead(5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    accepted = np.arange(3) == truth[:, None]
    assert boastful.calibrated(logits, accepted).temperature == pytest.approx(5, rel=0.1)


def test_novelty_is_0_among_ones_own_and_high_far_away():
    points, types = blobs(60, np.eye(3) * 5, 0.3)
    reference = ReferenceCells.of(points, types, 3)
    fresh, _ = blobs(60, np.eye(3) * 5, 0.3, seed=1)
    far, _ = blobs(60, [[-5, -5, -5]], 0.3, seed=2)
    assert abs(np.median(reference.novelty(fresh))) < 0.5
    assert reference.novelty(far).min() > np.quantile(reference.novelty(fresh), 0.99) + 1


def test_a_loose_type_asks_for_more_distance_than_a_tight_one():
    tight, _ = blobs(60, [[5, 0, 0]], 0.05)
    loose, _ = blobs(60, [[0, 5, 0]], 0.8, seed=1)
    reference = ReferenceCells.of(np.concatenate([tight, loose]), np.repeat([0, 1], 60), n_types=2)
    from_tight, from_loose = np.array([[5, 0.8, 0]]), np.array([[0.8, 5, 0]])
    assert reference.novelty(from_tight.astype(np.float32)) > 2
    assert reference.novelty(from_loose.astype(np.float32)) < 2


def test_novelty_of_a_cell_does_not_depend_on_the_others():
    points, types = blobs(60, np.eye(3) * 5, 0.3)
    reference = ReferenceCells.of(points, types, 3)
    fresh, _ = blobs(9, np.eye(3) * 5, 0.3, seed=1)
    fresh[4] = np.nan
    together = reference.novelty(fresh)
    alone = np.concatenate([reference.novelty(fresh[[i]]) for i in range(len(fresh))])
    np.testing.assert_allclose(together, alone, atol=2e-3)
    assert np.isnan(together[4])
