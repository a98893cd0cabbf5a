from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.errors import ArgumentError, LabelError
from sccello_tools.ontology import CellOntology, Consensus, consensus_term

ontology = CellOntology.load()
CELL, T, CD4, CD8, B, PLASMA, MONOCYTE = (
    "CL:0000000", "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236", "CL:0000786", "CL:0000576",
)  # fmt: skip
ALPHA_BETA, LYMPHOCYTE = "CL:0000791", "CL:0000542"


@pytest.mark.parametrize(
    ("votes", "term", "agreement"),
    [
        ({T: 1}, T, 1),
        ({CD4: 2, T: 1}, CD4, 2 / 3),
        ({CD4: 1, T: 1}, T, 1),  # a half is not more than a half
        ({CD4: 1, CD8: 1}, ALPHA_BETA, 1),
        ({CD4: 1, CD8: 1, B: 1}, ALPHA_BETA, 2 / 3),
        ({T: 1, B: 1, MONOCYTE: 1}, LYMPHOCYTE, 2 / 3),
        ({CD4: 3, B: 1}, CD4, 3 / 4),
        ({T: 0, B: 1}, B, 1),
        ({}, "", 0),
        ({T: 0}, "", 0),
        ({CELL: 3}, "", 0),
    ],
)
def test_deepest_supported_term(votes, term, agreement):
    found = consensus_term(votes, ontology)
    assert found.term == term
    assert found.agreement == pytest.approx(agreement)


def test_votes_that_only_agree_on_cell_have_no_consensus():
    neuron = "CL:0000540"
    assert consensus_term({T: 1, neuron: 1}, ontology).term not in {T, neuron, CELL}
    found = consensus_term({CD4: 1, "CL:0000169": 1}, ontology)
    assert found == Consensus("", 0) or ontology.depth(found.term) < ontology.depth(T)


def test_a_higher_threshold_gives_a_broader_term():
    votes = {CD4: 6, CD8: 2, B: 1, MONOCYTE: 1}
    found = [consensus_term(votes, ontology, min_agreement=m).term for m in (0.5, 0.7, 0.85)]
    assert found[:2] == [CD4, ALPHA_BETA]
    assert ontology.depth(found[2]) < ontology.depth(found[1])


@given(
    st.dictionaries(
        st.sampled_from(ontology.terms), st.floats(0.1, 5, allow_nan=False), min_size=1, max_size=5
    )
)
@settings(deadline=None, max_examples=60)
def test_a_consensus_is_supported_and_no_descendant_is(votes):
    found = consensus_term(votes, ontology)
    total = sum(votes.values())

    def support(term):
        return sum(w for t, w in votes.items() if term in ontology.ancestors(t, include_self=True))

    if found.term:
        assert support(found.term) == pytest.approx(found.agreement * total)
        assert found.agreement > 0.5
        for child in ontology.children(found.term):
            assert support(child) <= 0.5 * total * (1 + 1e-8)


@pytest.mark.parametrize("min_agreement", [0, 0.49, 1, 1.5])
def test_invalid_thresholds(min_agreement):
    with pytest.raises(ArgumentError, match="min_agreement"):
        consensus_term({T: 1}, ontology, min_agreement=min_agreement)


def test_unknown_terms():
    with pytest.raises(LabelError, match="CL:9999999"):
        consensus_term({"CL:9999999": 1}, ontology)
