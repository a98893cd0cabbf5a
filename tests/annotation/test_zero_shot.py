from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from sccello_tools.annotation import Candidates, closed_set_protocol, resolve_candidates
from sccello_tools.errors import LabelError
from sccello_tools.ontology import CellOntology

CD4, CD8, B, NEURON = "CL:0000624", "CL:0000625", "CL:0000236", "CL:0000540"


@pytest.fixture(scope="module")
def ontology():
    return CellOntology.load()


def test_scores_are_rank_correlations(ontology):
    candidates = Candidates.of((CD4, B), [CD8, NEURON, "CL:0000127"], ontology)
    cosines = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    found = candidates.scores(cosines)
    for cell, row in np.ndindex(found.shape):
        expected = spearmanr(cosines[cell], candidates.rows[row]).statistic
        assert found[cell, row] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["T cell", "CL:0000236"], ("CL:0000084", "CL:0000236")),
        (["B cells", "CL:0000236", "NK cell"], ("CL:0000236", "CL:0000623")),
    ],
)
def test_names_and_ids_become_distinct_terms(ontology, given, expected):
    assert resolve_candidates(given, ontology) == expected


def test_an_ancestor_stands_for_what_is_below_it(ontology):
    found = resolve_candidates("T cell", ontology)
    assert set(found) == set(ontology.descendants("CL:0000084"))
    everything = resolve_candidates(None, ontology, exclude=[CD4])
    assert CD4 not in everything
    assert len(everything) > 2_000
    assert min(ontology.depth(term) for term in everything) >= 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["flux capacitor cell"], "is no name of a term: CL:"),
        (["CL:9999999"], "CL:9999999"),
        (["Ganglion cells"], "fits several terms"),
    ],
)
def test_bad_candidates(ontology, given, message):
    with pytest.raises(LabelError, match=message):
        resolve_candidates(given, ontology)


def test_a_leaf_leaves_no_choice(ontology):
    leaf = next(term for term in ontology.terms if not ontology.children(term))
    with pytest.raises(LabelError, match="no terms below it"):
        resolve_candidates(leaf, ontology)


def test_one_candidate_is_no_choice(ontology):
    with pytest.raises(LabelError, match="at least two of each"):
        Candidates.of((CD4,), [CD8, B], ontology)


def test_the_protocol_gets_easier_with_fewer_candidates(ontology):
    known = [CD4, B, NEURON, "CL:0000066", "CL:0000057"]
    unseen = [CD8, "CL:0000127", "CL:0000115", "CL:0000235", "CL:0000232", "CL:0000187"]
    rng = np.random.default_rng(0)
    truth = np.repeat(unseen, 20)
    cells = rng.standard_normal((len(truth), 5)).astype(np.float32)
    rows = closed_set_protocol(
        cells, truth, np.eye(5, dtype=np.float32), known, ontology, fractions=(0.4, 1.0), n_draws=10
    )
    assert rows[0].accuracy > rows[1].accuracy  # random cells: one of two against one of six
    assert rows[1].accuracy_std == 0
