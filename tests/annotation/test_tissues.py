"""Tissues: what was recorded where rules types out, relatives and a user's own names are judged by their place."""

from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.annotation import allowed_types, resolve_candidates, tissue_types
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


def test_probabilities_are_shared_out_among_what_is_allowed():
    from sccello_tools.annotation.annotate import _restricted

    given = np.array([[0.5, 0.3, 0.2], [np.nan] * 3], dtype=np.float32)
    kept = _restricted(given, np.array([False, True, True]))
    np.testing.assert_allclose(kept[0], [0, 0.6, 0.4], rtol=1e-6)
    assert np.isnan(kept[1]).all()
