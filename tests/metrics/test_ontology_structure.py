from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from sccello_tools.errors import ArgumentError, LabelError
from sccello_tools.metrics import scgraph_onto_rwr
from sccello_tools.ontology import CellOntology

# root 0; 1 and 2 below it; 3, 4 below 1; 5, 6 below 2
PARENTS = {1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2}
LEAVES = [3, 4, 5, 6]


def term(number):
    return f"CL:{number:07d}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Seven terms of a binary tree, and one that is obsolete."""
    lines = ["format-version: 1.2", "data-version: releases/2026-03-26", "ontology: cl", ""]
    for number in range(7):
        lines += ["[Term]", f"id: {term(number)}", f"name: type {number}"]
        lines += [f"is_a: {term(PARENTS[number])}"] if number in PARENTS else []
        lines += [""]
    lines += [
        "[Term]",
        f"id: {term(9)}",
        "name: old",
        "is_obsolete: true",
        f"replaced_by: {term(6)}",
    ]
    path = tmp_path_factory.mktemp("ontology") / "cl.obo"
    path.write_text("\n".join(lines) + "\n")
    return CellOntology.load(path)


@pytest.fixture(scope="module")
def distances():
    """Distances of the terms of the tree, by iterating the walk and a full decomposition."""
    steps = np.zeros((7, 7))
    for child, parent in PARENTS.items():
        steps[child, parent] = steps[parent, child] = 1
    steps /= steps.sum(axis=1, keepdims=True)
    walk = np.eye(7)
    for _ in range(200):
        walk = 0.7 * np.eye(7) + 0.3 * walk @ steps
    u, s, _ = np.linalg.svd(np.log(walk + 1 / 49) - np.log(1 / 49))
    return squareform(pdist(u * np.sqrt(s)))


def cells(centres, n, noise, rng):
    points = np.repeat(centres, n, axis=0) + rng.normal(
        0, noise, (n * len(centres), centres.shape[1])
    )
    return points.astype(np.float32)


def embedded(distances):
    """Points with these distances."""
    n = len(distances)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
    return vectors * np.sqrt(np.maximum(values, 0))


def test_types_as_far_apart_as_in_the_ontology_score_one(tree, distances):
    rng = np.random.default_rng(0)
    centres = embedded(distances[np.ix_(LEAVES, LEAVES)])
    types = np.repeat([term(i) for i in LEAVES], 12)
    found = scgraph_onto_rwr(cells(centres, 12, 1e-4, rng), types, tree)
    assert found.score == pytest.approx(1, abs=1e-4)
    assert list(found.by_type) == [term(i) for i in LEAVES]
    assert found.n_cells == 48
    swapped = types.copy()
    swapped[types == term(4)], swapped[types == term(5)] = term(5), term(4)
    assert scgraph_onto_rwr(cells(centres, 12, 1e-4, rng), swapped, tree).score < 0.99


def test_scores_by_hand(tree, distances):
    centres = np.random.default_rng(1).normal(size=(4, 3))
    types = np.repeat([term(i) for i in LEAVES], 10)
    found = scgraph_onto_rwr(np.repeat(centres, 10, axis=0), types, tree)
    own, expected = squareform(pdist(centres)), distances[np.ix_(LEAVES, LEAVES)]
    by_hand = [np.corrcoef(own[i], expected[i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(list(found.by_type.values()), by_hand, atol=1e-6)
    assert found.score == pytest.approx(np.mean(by_hand), abs=1e-6)
    # neither order, nor size, nor position matters
    order = np.random.default_rng(2).permutation(40)
    again = scgraph_onto_rwr(3 * np.repeat(centres, 10, axis=0)[order] + 5, types[order], tree)
    assert again.score == pytest.approx(found.score, abs=1e-9)


def test_outliers_missing_values_and_small_types_do_not_count(tree):
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(4, 3))
    points = np.repeat(centres, 10, axis=0)
    types = np.repeat([term(i) for i in LEAVES], 10)
    expected = scgraph_onto_rwr(points, types, tree)
    changed = points.copy()
    changed[[0, 1, 10, 20]] += 1000  # at most 20 % of a type on one side
    assert scgraph_onto_rwr(changed, types, tree).score == pytest.approx(expected.score, abs=1e-12)
    more = np.vstack([points, rng.normal(size=(9, 3)), np.full((10, 3), np.nan), np.zeros((5, 3))])
    labels = np.concatenate([types, [term(1)] * 9, [term(3)] * 10, [""] * 5])
    found = scgraph_onto_rwr(more, labels, tree)
    assert found.by_type == pytest.approx(expected.by_type)
    assert found.n_cells == 40
    assert len(scgraph_onto_rwr(more, labels, tree, min_cells=9).by_type) == 5


def test_obsolete_terms_are_their_successors(tree):
    points = np.repeat(np.random.default_rng(4).normal(size=(4, 3)), 10, axis=0)
    types = np.repeat([term(i) for i in LEAVES], 10)
    expected = scgraph_onto_rwr(points, types, tree)
    types[types == term(6)] = np.repeat([term(6), term(9)], 5)
    assert scgraph_onto_rwr(points, types, tree) == expected


def test_the_same_place_for_all_types_has_no_score(tree):
    types = np.repeat([term(i) for i in LEAVES], 10)
    assert np.isnan(scgraph_onto_rwr(np.ones((40, 2)), types, tree).score)


def test_refusals(tree):
    with pytest.raises(ArgumentError, match="shape"):
        scgraph_onto_rwr(np.ones((3, 2)), np.array([term(3)] * 4), tree)
    with pytest.raises(ArgumentError, match=r"2 cell types have at least 10 cells.*min_cells"):
        scgraph_onto_rwr(np.ones((20, 2)), np.repeat([term(3), term(4)], 10), tree)
    with pytest.raises(LabelError):
        scgraph_onto_rwr(np.ones((20, 2)), np.repeat([term(3), "CL:9999999"], 10), tree)
