from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from sccello_tools.metrics import accuracy_at, annotation_score, knn_vote, term_auroc

TYPES = ["B", "NK", "T"]


def test_a_subtype_of_the_truth_is_right_and_a_parent_is_not():
    truth = np.array(["T", "T", "T", "T", "B", "NK", "NK"])
    predicted = np.array(["T", "CD4 T", "lymphocyte", "", "B", "B", "NK"])
    accepted = {"T": {"T", "CD4 T", "CD8 T"}, "B": {"B"}}  # NK is not scored
    score = annotation_score(truth, predicted, accepted)
    assert score.accuracy == pytest.approx(3 / 5)  # two T and one B of five cells
    assert score.mean_recall == pytest.approx((2 / 4 + 1) / 2)
    assert (score.n_cells, score.n_types) == (5, 2)


@settings(deadline=None, max_examples=40)  # the first call imports scikit-learn
@given(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from([*TYPES, "other"])), min_size=1))
def test_is_sklearns_accuracy_and_recall_where_only_the_type_itself_is_right(pairs):
    truth, predicted = (np.array(column) for column in zip(*pairs))
    score = annotation_score(truth, predicted, {t: {t} for t in TYPES})
    assert score.accuracy == pytest.approx(accuracy_score(truth, predicted))
    present = np.unique(truth)
    recall = recall_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert score.mean_recall == pytest.approx(recall)
    assert (score.n_cells, score.n_types) == (len(truth), len(present))


def test_no_cell_that_counts():
    score = annotation_score(np.array(["T"]), np.array(["T"]), {"B": {"B"}})
    assert math.isnan(score.accuracy)
    assert math.isnan(score.mean_recall)
    assert (score.n_cells, score.n_types) == (0, 0)


def test_no_accepted_prediction():
    score = annotation_score(np.array(["T", "T"]), np.array(["T", "B"]), {"T": set()})
    assert score.accuracy == 0


def test_other_numbers_of_predictions():
    with pytest.raises(ValueError, match=r"3 entries.*2"):
        annotation_score(np.array(["T"] * 3), np.array(["T"] * 2), {"T": {"T"}})


def by_hand(reference, labels, query, n_neighbors, metric):
    out = []
    for row in query:
        if metric == "cosine":
            distance = 1 - reference @ row / np.linalg.norm(reference, axis=1) / np.linalg.norm(row)
        else:
            distance = np.linalg.norm(reference - row, axis=1)
        votes = labels[np.argsort(distance, kind="stable")[:n_neighbors]]
        names, counts = np.unique(votes, return_counts=True)
        out.append(str(names[counts.argmax()]))
    return out


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("n_neighbors", [1, 4, 15])
def test_vote_is_that_by_hand(metric, n_neighbors):
    rng = np.random.default_rng(0)
    reference, query = rng.normal(size=(60, 5)), rng.normal(size=(20, 5))
    labels = rng.choice(["c", "a", "b"], 60)
    found = knn_vote(reference, labels, query, n_neighbors=n_neighbors, metric=metric)
    assert found.tolist() == by_hand(reference, labels, query, n_neighbors, metric)
    assert len(set(found.tolist())) > 1


def test_cosine_is_blind_to_length_and_euclidean_is_not():
    reference, labels = np.array([[1.0, 0], [0, 9.0]]), np.array(["x", "y"])
    query = np.array([[0.1, 0.5]])
    assert knn_vote(reference, labels, query, n_neighbors=1).tolist() == ["y"]
    assert knn_vote(reference, labels, query, n_neighbors=1, metric="euclidean").tolist() == ["x"]


def test_ties_go_to_the_label_that_sorts_first():
    reference = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.3]])
    for labels in (["b", "a", "b", "a"], ["a", "b", "a", "b"], ["b", "b", "a", "a"]):
        assert knn_vote(reference, np.array(labels), reference[:1], n_neighbors=4).tolist() == ["a"]


def test_rows_with_nan_neither_vote_nor_get_a_label():
    reference = np.array([[1.0, 0], [np.nan, 0], [0, 1]])
    labels = np.array(["long name", "bad", "y"])
    query = np.array([[np.nan, 1], [1, 0.1], [np.inf, 0], [0.1, 1]])
    found = knn_vote(reference, labels, query, n_neighbors=1)
    assert found.tolist() == ["", "long name", "", "y"]
    assert found.dtype == labels.dtype
    nobody = knn_vote(reference, labels, query[:1])
    assert nobody.tolist() == [""]


def test_more_neighbours_than_cells():
    reference, labels = np.eye(3), np.array(["b", "b", "a"])
    assert knn_vote(reference, labels, np.array([[0, 0, 1.0]])).tolist() == ["b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array(["a"])}, "2 rows.*1"),
        ({"query": np.ones((1, 3))}, "2 dimensions.*3"),
        ({"reference": np.full((2, 2), np.nan)}, "All 2 reference rows"),
        ({"n_neighbors": 0}, "n_neighbors must be >= 1, got 0"),
    ],
)
def test_invalid_input(change, message):
    fine = {"reference": np.eye(2), "labels": np.array(["a", "b"]), "query": np.eye(2)}
    with pytest.raises(ValueError, match=message):
        knn_vote(**fine | change)


def test_rows_with_nan_are_wrong() -> None:
    scores = np.array([[np.nan, np.nan], [0.9, 0.1]])
    assert accuracy_at(scores, ["a", "b"], np.array(["a", "a"]), k=2) == 0.5
    with pytest.raises(ValueError, match=r"\(2, 1\).*\(2, 2\)"):
        accuracy_at(scores, ["a"], np.array(["a", "a"]))
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        accuracy_at(scores, ["a", "b"], np.array(["a", "a"]), k=0)


def test_auroc_requires_other_types() -> None:
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.3, 0]])
    assert term_auroc(scores, ["a", "b", "c"], np.array(["a", "a"])) == {}
