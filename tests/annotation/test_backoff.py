from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.annotation import Lineages, conformal_threshold
from sccello_tools.ontology import CellOntology

CD4, CD8, B, NEURON = "CL:0000624", "CL:0000625", "CL:0000236", "CL:0000540"
TYPES = (CD4, CD8, B, NEURON)


@pytest.fixture(scope="module")
def ontology():
    return CellOntology.load()


@pytest.fixture(scope="module")
def lineages(ontology):
    return Lineages.of(TYPES, ontology)


def probabilities(*rows):
    return np.array(rows, dtype=np.float32)


def test_a_sure_cell_gets_its_type_and_an_unsure_one_what_its_types_share(lineages, ontology):
    answer = lineages.back_off(
        probabilities([0.97, 0.01, 0.01, 0.01], [0.5, 0.45, 0.03, 0.02], [0.3, 0.2, 0.45, 0.05]),
        threshold=0.9,
    )
    assert answer.terms[0] == CD4
    assert ontology.name(answer.terms[1]) == "mature alpha-beta T cell"
    assert answer.terms[2] in ontology.ancestors(B) & ontology.ancestors(CD4)
    np.testing.assert_allclose(answer.probability, [0.97, 0.95, 0.95], atol=1e-6)


def test_types_that_share_nothing_are_called_cell(lineages, ontology):
    """Not "eukaryotic cell", which is as uninformative."""
    answer = lineages.back_off(probabilities([0.26, 0.25, 0.24, 0.25]), threshold=0.99)
    assert ontology.name(answer.terms[0]) == "cell"
    terms = {term for lineage in lineages.lineages for term in lineage.terms}
    assert {"CL:0000255", "CL:0000548"}.isdisjoint(terms)


def test_nothing_to_reach_never_climbs(lineages):
    given_rows = probabilities([0.3, 0.2, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4])
    assert lineages.back_off(given_rows, threshold=0).terms.tolist() == [CD4, NEURON]


def test_rows_with_nan_get_no_answer(lineages):
    answer = lineages.back_off(probabilities([np.nan] * 4, [1, 0, 0, 0]), threshold=0.5)
    assert answer.terms.tolist() == ["", CD4]
    assert np.isnan(answer.probability[0])


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=8),
    st.sampled_from(TYPES),
)
@settings(max_examples=60, deadline=None)
def test_any_threshold_above_the_score_gives_a_right_answer(rows, truth):
    ontology = CellOntology.load()
    lineages = Lineages.of(TYPES, ontology)
    chances = np.array(rows, dtype=np.float32)
    chances /= chances.sum(axis=1, keepdims=True)
    scores = lineages.conformal_scores(chances, np.array([truth] * len(rows)))
    for row, score in enumerate(scores):
        for at_least in (score + 1e-4, (1 + score) / 2 + 1e-4, 1.0):
            term = str(lineages.back_off(chances[[row]], threshold=min(at_least, 1)).terms[0])
            assert term in ontology.ancestors(truth, include_self=True) or truth in (
                ontology.ancestors(term)
            )


def test_a_right_first_guess_scores_0_and_a_wrong_one_its_probability(lineages, ontology):
    chances = probabilities([0.7, 0.2, 0.05, 0.05], [0.7, 0.2, 0.05, 0.05])
    scores = lineages.conformal_scores(chances, np.array([CD4, CD8]))
    assert scores[0] == 0
    assert scores[1] == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_the_promise_holds_on_exchangeable_cells(alpha):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        scores = rng.beta(2, 5, size=400)
        threshold = conformal_threshold(scores[:200], alpha)
        covered.append((scores[200:] < threshold).mean())
    # 200 draws of 200 cells: three standard errors are below 0.01
    assert np.mean(covered) == pytest.approx(1 - alpha, abs=0.012)


def test_too_few_cells_promise_nothing_but_the_top():
    assert conformal_threshold(np.array([0.1, 0.2]), 0.1) == 1.0
