from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sccello_tools.errors import LabelError, OntologyError
from sccello_tools.ontology import (
    CellOntology,
    ancestor_mask,
    pagerank_rows,
    published_labels,
    similarity_levels,
)

T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"
LONELY = "CL:0017500"


@pytest.fixture(scope="module")
def golden(golden_dir):
    return np.load(golden_dir / "ontology.npz")


@pytest.fixture(scope="module")
def labels(golden):
    return golden["labels"].tolist()


@pytest.fixture(scope="module")
def walk(ontology):
    """Transition matrix of the walk, column by column, computed from the parents."""
    place = {term: i for i, term in enumerate(ontology)}
    matrix = sparse.lil_array((len(place), len(place)))
    for term in ontology:
        for parent in ontology.parents(term):
            matrix[place[term], place[parent]] = matrix[place[parent], place[term]] = 1
    return matrix.tocsr() @ sparse.diags_array(1 / np.maximum(matrix.sum(axis=0), 1))


def power_iteration(walk, start):
    """What the published code runs: to a tolerance of 1e-6 a node, all of them together."""
    n = walk.shape[0]
    restart = np.zeros(n)
    restart[start] = 1
    p = np.full(n, 1 / n)
    lonely = walk.sum(axis=0) == 0
    for _ in range(100):
        last, p = p, 0.9 * (walk @ p + p[lonely].sum() * restart) + 0.1 * restart
        if np.abs(p - last).sum() < n * 1e-6:
            break
    return p


def test_golden_pagerank(ontology, golden, labels):
    rows = pagerank_rows(ontology, labels, columns=labels)
    assert np.abs(rows - golden["ppr"]).max() < 1.5e-3
    assert np.abs(rows - golden["ppr"]).max() > 0  # theirs is not exact
    assert np.abs(rows.T - golden["ppr"]).max() > 0.1  # rows restart, columns receive


def test_golden_levels(ontology, golden, labels, walk):
    levels = similarity_levels(pagerank_rows(ontology, labels, columns=labels))
    differ = levels != golden["similarity_level"]
    assert differ.mean() < 0.006
    assert np.abs(levels[differ] - golden["similarity_level"][differ]).max() == 1
    np.testing.assert_array_equal(similarity_levels(golden["ppr"]), golden["similarity_level"])
    # where they differ it is for the published tolerance, not for another graph
    columns = [ontology.terms.index(label) for label in labels]
    for row in np.flatnonzero(differ.any(axis=1)):
        loose = power_iteration(walk, columns[row])[columns]
        np.testing.assert_array_equal(similarity_levels(loose), golden["similarity_level"][row])


def test_golden_ancestor_mask(ontology, golden, labels):
    mask = ancestor_mask(ontology, labels)
    np.testing.assert_array_equal(mask, golden["ancestor_mask"].astype(bool))
    assert not np.array_equal(mask, mask.T)


def test_golden_rows_of_novel_types(ontology, golden_dir):
    novel = np.load(golden_dir / "novel.npz")
    rows = pagerank_rows(ontology, novel["targets"].tolist(), columns=novel["labels"].tolist())
    assert rows.shape == novel["ppr_rows"].shape == (12, 60)
    assert np.abs(rows - novel["ppr_rows"]).max() < 1.5e-3


def test_solution_is_exact(ontology, walk):
    row = pagerank_rows(ontology, [T_CELL])[0]
    restart = np.zeros(len(ontology))
    restart[ontology.terms.index(T_CELL)] = 0.1
    np.testing.assert_allclose(0.9 * (walk @ row) + restart, row, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("damping", [0.5, 0.9])
def test_rows_are_distributions_also_of_terms_without_edges(ontology, damping):
    rows = pagerank_rows(ontology, [T_CELL, LONELY], damping=damping)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-9)
    assert (rows >= 0).all()
    assert rows[1, ontology.terms.index(LONELY)] == pytest.approx(1)


@given(
    st.lists(st.sampled_from(CellOntology.load().terms), min_size=1, max_size=4),
    st.lists(st.sampled_from(CellOntology.load().terms), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=25)
def test_rows_and_columns_are_those_asked_for(rows, columns):
    ontology = CellOntology.load()
    all_columns = pagerank_rows(ontology, rows)
    places = [ontology.terms.index(column) for column in columns]
    np.testing.assert_array_equal(
        pagerank_rows(ontology, rows, columns=columns), all_columns[:, places]
    )


def test_equivalent_terms_have_identical_values(ontology):
    """Ranks would otherwise order leaves of one parent by rounding errors."""
    parent = next(
        t
        for t in ontology
        if sum(
            not ontology.children(c) and len(ontology.parents(c)) == 1 for c in ontology.children(t)
        )
        > 3
    )
    leaves = [
        c
        for c in ontology.children(parent)
        if not ontology.children(c) and len(ontology.parents(c)) == 1
    ]
    rows = pagerank_rows(ontology, [T_CELL, B_CELL, NEURON], columns=leaves)
    assert (rows == rows[:, :1]).all()


def test_obsolete_terms_stand_for_their_successor(ontology):
    native, cell = "CL:0000003", "CL:0000000"
    np.testing.assert_array_equal(
        pagerank_rows(ontology, [native], columns=[native, T_CELL]),
        pagerank_rows(ontology, [cell], columns=[cell, T_CELL]),
    )
    assert ancestor_mask(ontology, [T_CELL], [native]).all()


def test_no_terms(ontology):
    assert pagerank_rows(ontology, []).shape == (0, 3324)
    assert pagerank_rows(ontology, [], columns=[T_CELL]).shape == (0, 1)
    assert pagerank_rows(ontology, [T_CELL], columns=[]).shape == (1, 0)
    assert ancestor_mask(ontology, []).shape == (0, 0)


def test_levels():
    p = np.array([[0, 9.99e-5, 1e-4], [2.9e-4, 3.1e-4, 1]], dtype=np.float32)
    levels = similarity_levels(p)
    assert levels.dtype == np.int8
    np.testing.assert_array_equal(levels, [[1, 1, 1], [1, 2, 13]])


def test_ancestor_mask_of_other_columns(ontology):
    mask = ancestor_mask(ontology, [T_CELL, NEURON], ["CL:0000000", T_CELL, "CL:0000542"])
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, [[True, True, True], [True, False, False]])


@pytest.mark.parametrize("damping", [0, 1, 1.5, -1])
def test_damping_is_a_probability(ontology, damping):
    with pytest.raises(OntologyError, match=r"damping must be in \(0, 1\)"):
        pagerank_rows(ontology, [T_CELL], damping=damping)


def test_unknown_terms(ontology):
    with pytest.raises(LabelError, match="'CL:9999999'"):
        pagerank_rows(ontology, ["CL:9999999"])
    with pytest.raises(LabelError, match=r"'T cell'.*Similar: CL:0000084"):
        pagerank_rows(ontology, [T_CELL], columns=["T cell"])
    with pytest.raises(LabelError, match="obsolete"):
        ancestor_mask(ontology, ["CL:0000004"])


def test_published_labels_are_398_terms(ontology):
    labels = published_labels()
    assert len(labels) == len(set(labels)) == 398
    current = [ontology.current(label) for label in labels]
    assert sum(ontology.is_obsolete(label) for label in labels) == 5
    assert len(set(current)) == 396  # three of the obsolete ones are "cell" now
    rows = pagerank_rows(ontology, labels, columns=labels)
    assert rows.shape == (398, 398)
    assert np.isfinite(rows).all()
