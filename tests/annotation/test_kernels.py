"""Compiled functions against straightforward ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sccello_tools._threads import single_threaded_blas
from sccello_tools.annotation import CellMarkers, MarkerScorer
from sccello_tools.annotation._decision_kernel import best_other, chain_sums
from sccello_tools.annotation.open_world import _two_best
from sccello_tools.ontology import CellOntology

VALUES = np.array(
    [[1, 3, 2], [3, 1, 2], [2, 2, 2], [0, 5, 5], [-1, -2, -3], [1, 2, 3]], dtype=np.float32
)


def test_best_two() -> None:
    best, second = _two_best(VALUES)
    assert best.tolist() == [1, 0, 0, 1, 0, 2]
    assert second.tolist() == [2, 2, 1, 2, 1, 1]


def test_best_two_of_one_column() -> None:
    best, second = _two_best(np.ones((2, 1), np.float32))
    assert best.tolist() == second.tolist() == [0, 0]


def test_best_other() -> None:
    best = np.empty(6, np.int32)
    best_other(VALUES, np.array([1, 1, 0, 2, 0, 2], np.int32), best)
    assert best.tolist() == [2, 0, 1, 1, 1, 1]


def test_chain_sums() -> None:
    right = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
    starts = np.array([0, 2, 5], np.int32)
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    out = np.empty((2, 4), np.float32)
    chain_sums(p, np.array([0, 1], np.int32), starts, right, out)
    np.testing.assert_allclose(out, [[0.5, 0.8, 1, 1], [0.2, 0.7, 1, 1]], rtol=1e-6)


def test_scores_are_t_values_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    scorer = MarkerScorer.of(CellMarkers.load(), CellOntology.load())
    tokens = np.flatnonzero(scorer.standard[:, 1] > 0)[::3]
    counts = rng.poisson(rng.lognormal(-1, 1.5, len(tokens)), (5, len(tokens))).astype(np.float32)
    found = scorer.bind(tokens)(sparse.csr_matrix(counts))
    mean, scale, _ = scorer.standard[tokens].T
    z = np.clip((np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)) - mean) * scale, -1, 6)
    for term in (0, 100, 500):
        for k, values in enumerate(found):
            weights = np.zeros(len(scorer.standard))
            gene = np.repeat(np.arange(len(scorer.standard)), np.diff(scorer.entry_starts))
            own = scorer.entry_terms == term
            weights[gene[own]] = scorer.entry_weights[own, k]
            w = weights[tokens]
            if (w != 0).sum() < 3:
                continue
            r = np.array([np.corrcoef(row, w)[0, 1] for row in z])
            expected = r * np.sqrt((len(tokens) - 2) / (1 - r**2))
            np.testing.assert_allclose(values[:, term], expected, rtol=1e-3, atol=1e-3)


def test_entries_that_are_stored_twice_count_once_each() -> None:
    scorer = MarkerScorer.of(CellMarkers.load(), CellOntology.load())
    tokens = np.flatnonzero(scorer.standard[:, 1] > 0)[:200]
    once = sparse.csr_matrix((np.float32([3, 2]), np.int32([5, 9]), np.int32([0, 2])), (1, 200))
    twice = sparse.csr_matrix(
        (np.float32([1, 2, 2]), np.int32([5, 9, 5]), np.int32([0, 3])), (1, 200)
    )
    bound = scorer.bind(tokens)
    for expected, found in zip(bound(once), bound(twice), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert twice.nnz == 3  # the input is as before


def test_blas_limits_that_overlap_are_undone() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def n_threads() -> list[int]:
        found = threadpoolctl.threadpool_info()
        return [lib["num_threads"] for lib in found if lib["user_api"] == "blas"]

    before = n_threads()
    outer, inner = single_threaded_blas(), single_threaded_blas()
    outer.__enter__()
    inner.__enter__()
    assert set(n_threads()) <= {1}
    outer.__exit__(None, None, None)
    assert set(n_threads()) <= {1}
    inner.__exit__(None, None, None)
    assert n_threads() == before
