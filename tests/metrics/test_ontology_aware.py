"""Scores that know the ontology, on a graph small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.errors import ScCelloError
from sccello_tools.metrics import ontology_score
from sccello_tools.ontology import CellOntology

T, CD4, CD8, B = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236"


@pytest.fixture(scope="module")
def ontology() -> CellOntology:
    return CellOntology.load()


def test_a_subtype_of_the_truth_is_right(ontology: CellOntology) -> None:
    below = ontology_score(np.array([T]), np.array([CD4]), ontology)
    above = ontology_score(np.array([CD4]), np.array([T]), ontology)
    assert (below.accuracy, above.accuracy) == (1.0, 0.0)
    assert below.hierarchical_recall == above.hierarchical_precision == 1.0
    assert below.hierarchical_precision == above.hierarchical_recall < 1


def test_hierarchical_scores_are_counted_over_ancestors(ontology: CellOntology) -> None:
    one, other = (ontology.ancestors(term, include_self=True) for term in (CD4, CD8))
    score = ontology_score(np.array([CD4]), np.array([CD8]), ontology)
    assert score.hierarchical_precision == pytest.approx(len(one & other) / len(other))
    assert score.hierarchical_recall == pytest.approx(len(one & other) / len(one))


def test_siblings_are_two_steps_apart(ontology: CellOntology) -> None:
    assert ontology_score(np.array([CD4]), np.array([CD8]), ontology).lca_distance == 2
    assert ontology_score(np.array([CD4]), np.array([CD4]), ontology).lca_distance == 0
    near, far = (ontology_score(np.array([CD4]), np.array([t]), ontology) for t in (CD8, B))
    assert near.lca_distance < far.lca_distance


def test_macro_f1_counts_types_alike(ontology: CellOntology) -> None:
    truth = np.array([T] * 9 + [B])
    score = ontology_score(truth, np.array([T] * 10), ontology)
    assert score.accuracy == 0.9
    assert score.macro_f1 == pytest.approx((18 / 19 + 0) / 2)


def test_no_answer_is_wrong_and_no_truth_is_left_out(ontology: CellOntology) -> None:
    score = ontology_score(np.array([T, "", T]), np.array(["", T, T]), ontology)
    assert score.n_cells == 2
    assert score.accuracy == 0.5
    assert np.isnan(ontology_score(np.array([""]), np.array([T]), ontology).accuracy)


def test_unknown_terms_are_rejected(ontology: CellOntology) -> None:
    with pytest.raises(ScCelloError, match="CL:9999999"):
        ontology_score(np.array([T]), np.array(["CL:9999999"]), ontology)
    with pytest.raises(ValueError, match=r"1 entries.*2"):
        ontology_score(np.array([T]), np.array([T, T]), ontology)
