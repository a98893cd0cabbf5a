from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from sccello_tools.metrics import clustering_score, integration_score

NAMES = np.array(["alpha", "beta", "delta"])


def blobs(n_each: int = 40, std: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.array([[0, 0, 0, 0], [9, 0, 0, 0], [0, 9, 0, 0]])
    points = np.concatenate([rng.normal(centre, std, (n_each, 4)) for centre in centres])
    return points, np.repeat(NAMES, n_each)


def test_blobs_that_are_apart_score_one():
    points, types = blobs()
    score = clustering_score(points, types)
    assert score.nmi == pytest.approx(1)
    assert score.ari == pytest.approx(1)
    assert score.asw == pytest.approx((silhouette_score(points, types) + 1) / 2)
    assert score.asw > 0.95
    assert score.avg_bio == pytest.approx((score.nmi + score.ari + score.asw) / 3)
    assert score.resolution in np.linspace(0.1, 2.0, 20)


def test_random_types_score_close_to_zero():
    rng = np.random.default_rng(1)
    points, types = rng.normal(size=(150, 4)), rng.choice(NAMES, 150)
    score = clustering_score(points, types)
    assert score.nmi < 0.1  # above 0 by the choice of the best of 20
    assert abs(score.ari) < 0.05
    assert score.asw == pytest.approx(0.5, abs=0.05)


def test_two_types_in_each_of_two_clusters_by_hand():
    """Louvain finds the blobs; NMI and ARI of a 2 x 4 table, half of each blob one type, are known in closed form."""
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(centre, 0.1, (40, 3)) for centre in (0, 9)])
    types = np.array(["a", "b"] * 20 + ["c", "d"] * 20)
    score = clustering_score(points, types)
    # at the best resolution blobs are whole: I = ln 2, H(types) = ln 4, H(clusters) = ln 2, NMI = I / mean(H) = 2/3
    # pairs: 2 * C(40,2) = 1560 together in clusters, 4 * C(20,2) = 760 in types, all of these in both; of C(80,2) = 3160
    expected = 760 * 1560 / 3160
    assert score.nmi >= 2 / 3 - 1e-9
    if score.nmi < 2 / 3 + 1e-9:
        assert score.ari == pytest.approx((760 - expected) / ((760 + 1560) / 2 - expected))


def test_the_order_of_cells_does_not_matter_where_clusters_are_clear():
    points, types = blobs(std=0.4)
    order = np.random.default_rng(3).permutation(len(points))
    one, other = clustering_score(points, types), clustering_score(points[order], types[order])
    assert other[:4] == pytest.approx(one[:4], abs=1e-6)


def test_names_of_types_do_not_matter():
    points, types = blobs(std=3.0)
    renamed = np.char.add("type ", types)[:]
    assert clustering_score(points, renamed) == pytest.approx(clustering_score(points, types))
    as_objects = clustering_score(points, types.astype(object))
    assert as_objects == pytest.approx(clustering_score(points, types))


def test_a_seed_decides_and_global_state_is_left_alone():
    points, types = blobs(std=5.0)
    random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002 - the state in question
    first = clustering_score(points, types, rng=3)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
    random.seed(6)
    assert clustering_score(points, types, rng=3) == first


def test_igraph_draws_from_python_again_afterwards():
    import igraph

    points, types = blobs(10)
    clustering_score(points, types, n_neighbors=5)
    random.seed(1)
    one = igraph.Graph.Erdos_Renyi(n=20, p=0.3).get_edgelist()
    random.seed(1)
    assert igraph.Graph.Erdos_Renyi(n=20, p=0.3).get_edgelist() == one


def test_rows_with_nan_are_left_out():
    points, types = blobs()
    with_nan = np.concatenate([points, np.full((5, 4), np.nan)])
    score = clustering_score(with_nan, np.append(types, ["alpha"] * 5))
    assert score == pytest.approx(clustering_score(points, types))


def test_float32_and_few_cells():
    points, types = blobs(3)
    score = clustering_score(points.astype(np.float32), types, n_neighbors=2)
    assert 0 <= score.nmi <= 1
    assert np.isfinite(score).all()


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (["a"] * 6, r"two cell types.*'a'"),
        (list("abcdef"), "6 cells"),
        (["a", "b"], "6 rows.*2"),
    ],
)
def test_invalid_input(types, message):
    with pytest.raises(ValueError, match=message):
        clustering_score(np.random.default_rng(0).normal(size=(6, 2)), np.array(types))


def test_mixed_batches_score_higher_than_separated_ones() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 4))
    types = np.repeat(["a", "b", "c"], 100)
    batch = rng.choice(["one", "two"], 300)
    apart = points + np.where(batch == "one", 0, 20)[:, None]
    mixed, separated = (integration_score(p, types, batch) for p in (points, apart))
    assert mixed.asw_batch > 0.9
    assert separated.asw_batch < 0.4
    assert separated.graph_connectivity < mixed.graph_connectivity
    assert separated.avg_batch == pytest.approx(np.mean(separated[:2]))


def test_integration_requires_batches_that_share_types() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match=r"two batches.*'one'"):
        integration_score(points, np.full(20, "a"), np.full(20, "one"))
    half = np.repeat(["one", "two"], 10)
    with pytest.raises(ValueError, match="No cell type has cells of two batches"):
        integration_score(points, half, half)
