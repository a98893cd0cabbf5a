from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import rankdata, spearmanr

from sccello_tools.ontology import spearman_matrix


def loop(cells, rows):
    return np.array([[spearmanr(cell, row).statistic for row in rows] for cell in cells])


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_golden_scores(golden_dir, dtype):
    novel = np.load(golden_dir / "novel.npz")
    cosines = unit(novel["cells"].astype(dtype)) @ unit(novel["prototypes"].astype(dtype)).T
    scores = spearman_matrix(cosines, novel["ppr_rows"])
    assert scores.shape == (40, 12)
    assert scores.dtype == np.float32
    assert np.abs(scores - novel["spearman"]).max() < 1e-5


TINY = float(np.float32(1e-40))  # a number that float32 has, as hypothesis asks
values = st.floats(-3, 3, width=32) | st.sampled_from(
    [0.0, -0.0, 1.0, np.inf, -np.inf, TINY, -TINY]
)


@given(
    hnp.arrays(np.float32, (3, 7), elements=values), hnp.arrays(np.float32, (2, 7), elements=values)
)
@settings(deadline=None)
def test_equals_scipy_with_ties_zeros_and_infinities(cells, rows):
    for cell, row in ((cells, rows), (cells.astype(np.float64), rows.astype(np.float64))):
        usable = np.outer(
            [len(set(c)) > 1 for c in cell.tolist()], [len(set(r)) > 1 for r in row.tolist()]
        )
        scores = spearman_matrix(cell, row)
        assert np.isnan(scores[~usable]).all()
        for i, j in zip(*np.nonzero(usable)):
            assert scores[i, j] == pytest.approx(
                np.corrcoef(rankdata(cell[i]), rankdata(row[j]))[0, 1], abs=1e-6
            )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_rows_in_any_chunk_and_thread(dtype):
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(600, 50)).astype(dtype)
    cells[:, :20] = np.round(cells[:, :20])
    rows = rng.random((4, 50))
    whole = spearman_matrix(cells, rows)
    np.testing.assert_allclose(whole[:20], loop(cells[:20], rows), atol=1e-6)
    np.testing.assert_array_equal(
        whole.argmax(1), spearman_matrix(cells, rows, chunk_cells=7).argmax(1)
    )
    np.testing.assert_allclose(spearman_matrix(cells, rows, chunk_cells=300), whole, atol=1e-6)
    with ThreadPoolExecutor(3) as pool:
        for other in pool.map(lambda _: spearman_matrix(cells, rows), range(3)):
            np.testing.assert_array_equal(other, whole)


def test_memory_order_and_lists():
    cells = np.random.default_rng(1).normal(size=(5, 9))
    rows = np.random.default_rng(2).integers(0, 4, (3, 9))
    expected = loop(cells, rows)
    np.testing.assert_allclose(spearman_matrix(np.asfortranarray(cells), rows), expected, atol=1e-6)
    np.testing.assert_allclose(spearman_matrix(cells.tolist(), rows.tolist()), expected, atol=1e-6)
    np.testing.assert_allclose(spearman_matrix(cells[:, ::-1], rows[:, ::-1]), expected, atol=1e-6)


def test_nan_and_constant_rows_are_marked():
    cells = np.array([[1, 2, 3], [np.nan, 1, 2], [5, 5, 5]])
    scores = spearman_matrix(cells, [[1, 2, 3], [4, 4, 4]])
    np.testing.assert_array_equal(np.isnan(scores), [[False, True], [True, True], [True, True]])
    assert scores[0, 0] == pytest.approx(1)


def test_no_cells_no_candidates():
    assert spearman_matrix(np.zeros((0, 3)), [[1, 2, 3]]).shape == (0, 1)
    assert spearman_matrix([[1, 2, 3]], np.zeros((0, 3))).shape == (1, 0)


@pytest.mark.parametrize(("cells", "rows"), [((2, 3), (2, 4)), ((3,), (2, 3)), ((2, 3), (3,))])
def test_shapes_that_do_not_fit(cells, rows):
    with pytest.raises(ValueError, match=r"\(n_cells, n_known\).*pagerank_rows"):
        spearman_matrix(np.zeros(cells), np.zeros(rows))
