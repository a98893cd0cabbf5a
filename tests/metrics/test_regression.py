"""Scores of drug response against what scipy says of the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sccello_tools.metrics import drug_correlations, response_score

rng = np.random.default_rng(0)
MEASURED = rng.normal(2, 3, (30, 8))
MEASURED[rng.random(MEASURED.shape) < 0.2] = np.nan
PREDICTED = np.nan_to_num(MEASURED) + rng.normal(0, 2, MEASURED.shape)


def test_scores_are_scipys():
    score = response_score(MEASURED, PREDICTED)
    there = np.isfinite(MEASURED)
    truth, answer = MEASURED[there], PREDICTED[there]
    assert score.pearson == pytest.approx(stats.pearsonr(truth, answer)[0])
    assert score.spearman == pytest.approx(stats.spearmanr(truth, answer)[0])
    assert score.rmse == pytest.approx(np.sqrt(((truth - answer) ** 2).mean()))
    by_drug = [
        stats.pearsonr(MEASURED[there[:, j], j], PREDICTED[there[:, j], j])[0] for j in range(8)
    ]
    assert score.pearson_by_drug == pytest.approx(np.mean(by_drug))
    by_line = [
        stats.spearmanr(MEASURED[i, there[i]], PREDICTED[i, there[i]])[0]
        for i in range(30)
        if there[i].sum() >= 5
    ]
    assert score.spearman_by_line == pytest.approx(np.mean(by_line))
    assert (score.n_pairs, score.n_drugs, score.n_lines) == (there.sum(), 8, len(by_line))


def test_a_constant_answer_scores_nothing_and_a_constant_truth_does_not_count():
    truth = np.array([[1.0, 3.0], [2.0, 3.0], [4.0, 3.0]])
    found = drug_correlations(truth, np.ones((3, 2)), min_lines=3)
    assert found[0] == 0
    assert np.isnan(found[1])


def test_drugs_with_few_lines_do_not_count():
    truth = np.full((6, 2), np.nan)
    truth[:, 0] = np.arange(6)
    truth[:2, 1] = [0, 1]
    assert response_score(truth, np.nan_to_num(truth)).n_drugs == 1


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_correlations_do_not_depend_on_scale_and_errors_do(scale, shift):
    one, other = (
        response_score(MEASURED, PREDICTED),
        response_score(MEASURED, PREDICTED * scale + shift),
    )
    assert other.pearson == pytest.approx(one.pearson)
    assert other.pearson_by_drug == pytest.approx(one.pearson_by_drug)
    exact = response_score(MEASURED, np.nan_to_num(MEASURED) + shift)
    assert exact.rmse == pytest.approx(abs(shift), abs=1e-9)


@pytest.mark.parametrize(
    ("measured", "predicted", "message"),
    [
        (MEASURED, PREDICTED[:5], "shape"),
        (MEASURED * np.nan, PREDICTED, "NaN"),
        (MEASURED, np.full_like(PREDICTED, np.nan), "have no prediction"),
    ],
)
def test_invalid_input(measured, predicted, message):
    with pytest.raises(ValueError, match=message):
        response_score(measured, predicted)
