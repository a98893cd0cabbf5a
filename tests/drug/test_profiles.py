"""One footing for bulk and counts: each row depends on itself alone."""

from __future__ import annotations

import numpy as np

from sccello_tools.drug.profiles import profiles_of_counts, rank_tokens

COUNTS = np.random.default_rng(0).poisson(3, (5, 40)).astype(float)
MEAN = np.linspace(-1, 1, 60, dtype=np.float32)
OWN = np.arange(0, 60, 60 / 40).astype(int)


def test_depth_does_not_matter_and_no_other_row_does():
    profiles = profiles_of_counts(COUNTS, OWN, MEAN)
    np.testing.assert_allclose(profiles_of_counts(COUNTS * 7, OWN, MEAN), profiles, rtol=1e-5)
    np.testing.assert_array_equal(profiles_of_counts(COUNTS[2:3], OWN, MEAN), profiles[2:3])


def test_genes_that_were_not_measured_take_the_mean_line():
    profiles = profiles_of_counts(COUNTS, OWN, MEAN)
    others = np.setdiff1d(np.arange(60), OWN)
    np.testing.assert_array_equal(profiles[:, others], np.tile(MEAN[others], (5, 1)))
    np.testing.assert_allclose(profiles[:, OWN].std(axis=1), 1, rtol=1e-5)


def test_rows_without_counts_are_nan():
    empty = COUNTS.copy()
    empty[1] = 0
    profiles = profiles_of_counts(empty, OWN, MEAN)
    assert np.isnan(profiles[1]).all()
    assert np.isfinite(profiles[[0, 2, 3, 4]]).all()


def test_ranks_do_not_depend_on_the_order_of_genes():
    rng = np.random.default_rng(1)
    values, tokens = (
        rng.integers(0, 5, (6, 30)).astype(float),
        rng.permutation(np.arange(2, 32, dtype=np.int32)),
    )
    shuffled = rng.permutation(30)
    a = rank_tokens(values, tokens, max_length=12)
    b = rank_tokens(values[:, shuffled], tokens[shuffled], max_length=12)
    np.testing.assert_array_equal(a.ids, b.ids)
    assert a.lengths.tolist() == [12] * 6


def test_genes_at_minus_infinity_are_left_out_and_nan_rows_are_empty():
    values = np.array([[1.0, -np.inf, 2.0], [np.nan, 1.0, 2.0], [-np.inf] * 3])
    tokens = rank_tokens(values, np.array([5, 6, 7], dtype=np.int32), max_length=8)
    assert tokens.lengths.tolist() == [3, 0, 0]
    assert tokens[0][1:].tolist() == [7, 5]
