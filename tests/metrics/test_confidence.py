"""Calibration, risk and coverage, open set, ranks of candidates, mixing of batches."""

from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.metrics import (
    accuracy_at,
    integration_score,
    open_set_auroc,
    reliability,
    risk_coverage,
    term_auroc,
)


def test_honest_confidence_has_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    honest = reliability(confidence, rng.random(50_000) < confidence)
    boastful = reliability(confidence, rng.random(50_000) < confidence / 2)
    assert honest.error < 0.02
    assert boastful.error == pytest.approx(0.25, abs=0.02)
    assert honest.n_cells.sum() == 50_000


def test_confidence_of_one_belongs_to_the_last_bin() -> None:
    assert reliability(np.array([1.0, np.nan]), np.array([True, False])).error == 0


def test_confidence_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match=r"runs from 0\.5 to 1\.5"):
        reliability(np.array([0.5, 1.5]), np.array([True, True]))
    with pytest.raises(ValueError, match="None of the 1 cells"):
        reliability(np.array([np.nan]), np.array([True]))


def test_risk_does_not_depend_on_the_order_of_rows() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    right = np.array([True, True, False, True, False])
    curve = risk_coverage(confidence, right)
    turned = risk_coverage(confidence[::-1], right[::-1])
    np.testing.assert_allclose(curve.risk, turned.risk)
    np.testing.assert_allclose(curve.risk, [0, 1 / 6, 2 / 9, 1 / 4, 2 / 5])
    assert curve.area == pytest.approx(curve.risk.mean())


def test_open_set_needs_both_kinds() -> None:
    assert open_set_auroc(np.array([1.0, 2, 3, 4]), np.array([False, True, False, True])) == 0.75
    with pytest.raises(ValueError, match="2 of 2 cells are novel"):
        open_set_auroc(np.array([1.0, 2]), np.array([True, True]))


def test_rows_with_nan_are_answered_wrongly() -> None:
    scores = np.array([[np.nan, np.nan], [0.9, 0.1]])
    assert accuracy_at(scores, ["a", "b"], np.array(["a", "a"]), k=2) == 0.5
    with pytest.raises(ValueError, match="a row a true type"):
        accuracy_at(scores, ["a"], np.array(["a", "a"]))
    with pytest.raises(ValueError, match="k is 0"):
        accuracy_at(scores, ["a", "b"], np.array(["a", "a"]), k=0)


def test_types_without_rivals_have_no_auroc() -> None:
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.3, 0]])
    assert term_auroc(scores, ["a", "b", "c"], np.array(["a", "a"])) == {}


def test_mixed_batches_score_higher_than_parted_ones() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 4))
    types = np.repeat(["a", "b", "c"], 100)
    batch = rng.choice(["one", "two"], 300)
    apart = points + np.where(batch == "one", 0, 20)[:, None]
    mixed, parted = (integration_score(p, types, batch) for p in (points, apart))
    assert mixed.asw_batch > 0.9
    assert parted.asw_batch < 0.4
    assert parted.graph_connectivity < mixed.graph_connectivity
    assert parted.avg_batch == pytest.approx(np.mean(parted[:2]))


def test_mixing_needs_batches_and_types_that_share_them() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match="at least two are needed"):
        integration_score(points, np.full(20, "a"), np.full(20, "one"))
    half = np.repeat(["one", "two"], 10)
    with pytest.raises(ValueError, match="No cell type has cells of two batches"):
        integration_score(points, half, half)
