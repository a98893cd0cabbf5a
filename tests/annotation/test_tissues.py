"""Tissues: what was recorded where rules types out, relatives and a user's own names are judged by their place."""

from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.annotation import TissueWeights, allowed_types, resolve_candidates, tissue_types
from sccello_tools.errors import LabelError
from sccello_tools.ontology import CellOntology

BETA, PURKINJE, B_CELL, PP = (
    "CL:0000169",
    "CL:0000121",
    "CL:0000236",
    "CL:0002275",
)


@pytest.fixture(scope="module")
def ontology():
    return CellOntology.load()


def test_every_term_of_the_table_is_current(ontology):
    terms = {term for recorded in tissue_types().values() for term in recorded}
    assert terms
    assert all(ontology.current(term) == term for term in terms)


def test_what_was_recorded_elsewhere_only_is_ruled_out(ontology):
    allowed = allowed_types("pancreas", [BETA, PURKINJE, B_CELL], ontology)
    assert allowed.tolist() == [True, False, True]
    assert allowed_types("brain", [BETA, PURKINJE, B_CELL], ontology).tolist() == [
        False,
        True,
        True,
    ]


def test_several_tissues_allow_what_each_does(ontology):
    types = [BETA, PURKINJE, B_CELL]
    both = allowed_types(["pancreas", "brain"], types, ontology)
    assert both.all()


def test_own_names_go_by_their_parent_and_without_one_stay(ontology):
    types = [BETA, "my beta", "my Purkinje", "my own"]
    parents = {"my beta": BETA, "my Purkinje": PURKINJE}
    allowed = allowed_types("pancreas", types, ontology, parents=parents)
    assert allowed.tolist() == [True, True, False, True]


def test_an_unknown_tissue_names_those_that_are_recorded(ontology):
    with pytest.raises(LabelError, match=r"of the tissue 'toe'\. Recorded are: .*pancreas"):
        allowed_types("toe", [BETA, B_CELL], ontology)


def test_a_tissue_that_leaves_no_choice_is_refused(ontology):
    with pytest.raises(LabelError, match="only 1 can be in brain"):
        allowed_types("brain", [BETA, PURKINJE], ontology)


def test_an_ancestor_gives_no_terms_of_other_creatures_unless_asked(ontology):
    human = set(resolve_candidates("CL:0000000", ontology))
    everything = set(resolve_candidates("CL:0000000", ontology, organism="any"))
    left_out = {ontology.name(term) for term in everything - human}
    assert "hemocyte (sensu Arthropoda)" in left_out
    assert human < everything
    assert {BETA, B_CELL, PP, "CL:0000540"} <= human
    assert "hemocyte" not in left_out


def test_a_term_that_is_named_is_kept_whatever_the_creature(ontology):
    (hemocyte,) = [t for t in ontology.terms if ontology.name(t) == "hemocyte (sensu Arthropoda)"]
    assert resolve_candidates([hemocyte, BETA], ontology) == (hemocyte, BETA)


def test_weights_of_several_tissues_are_the_highest():
    weights = TissueWeights(("blood", "brain"), np.array([[1, 0.1, 0.2], [0.1, 1, 0.3]], "f4"))
    np.testing.assert_allclose(weights.of("brain"), [0.1, 1, 0.3])
    np.testing.assert_allclose(weights.of(["blood", "brain"]), [1, 1, 0.3])
    with pytest.raises(LabelError, match="'toe', only in blood, brain"):
        weights.of("toe")


def test_tissues_are_inferred_from_the_types_of_all_cells():
    weights = TissueWeights(("blood", "brain"), np.array([[1, 0.05], [0.05, 1]], "f4"))
    mostly_blood = np.tile([[0.9, 0.1]], (300, 1))
    assert weights.infer(mostly_blood)[0] > 0.8
    np.testing.assert_allclose(
        weights.infer(mostly_blood[:, ::-1]), weights.infer(mostly_blood)[::-1]
    )
    few = weights.infer(mostly_blood[:1], prior_cells=50)
    np.testing.assert_allclose(few, 0.5, atol=0.05)
