"""Calibration, risk and coverage, novelty detection."""

from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.metrics import open_set_auroc, reliability, risk_coverage


def test_calibrated_confidence_has_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    calibrated = reliability(confidence, rng.random(50_000) < confidence)
    overconfident = reliability(confidence, rng.random(50_000) < confidence / 2)
    assert calibrated.error < 0.02
    assert overconfident.error == pytest.approx(0.25, abs=0.02)
    assert calibrated.n_cells.sum() == 50_000


def test_confidence_of_one_belongs_to_the_last_bin() -> None:
    assert reliability(np.array([1.0, np.nan]), np.array([True, False])).error == 0


def test_confidence_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match=r"0\.5 to 1\.5"):
        reliability(np.array([0.5, 1.5]), np.array([True, True]))
    with pytest.raises(ValueError, match="NaN"):
        reliability(np.array([np.nan]), np.array([True]))


def test_risk_does_not_depend_on_the_order_of_rows() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    right = np.array([True, True, False, True, False])
    curve = risk_coverage(confidence, right)
    reversed_ = risk_coverage(confidence[::-1], right[::-1])
    np.testing.assert_allclose(curve.risk, reversed_.risk)
    np.testing.assert_allclose(curve.risk, [0, 1 / 6, 2 / 9, 1 / 4, 2 / 5])
    assert curve.area == pytest.approx(curve.risk.mean())


def test_auroc_requires_known_and_novel_cells() -> None:
    assert open_set_auroc(np.array([1.0, 2, 3, 4]), np.array([False, True, False, True])) == 0.75
    with pytest.raises(ValueError, match="2 of 2 cells are novel"):
        open_set_auroc(np.array([1.0, 2]), np.array([True, True]))
