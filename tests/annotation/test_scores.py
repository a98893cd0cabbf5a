"""Parts of the evidence on made-up numbers, compared with values worked out by hand or with the formula."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sccello_tools.annotation import CellMarkers, EvidenceWeights, MarkerScorer
from sccello_tools.annotation.backoff import Lineages, choose_level
from sccello_tools.annotation.evidence import CellEvidence, EvidenceModel
from sccello_tools.annotation.marker_scores import MarkerScores
from sccello_tools.annotation.novelty import NoveltyCalibration, data_set_shift, usual_novelty
from sccello_tools.annotation.term_space import TermSpace, lin_similarity, siblings_of
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

ONTOLOGY = CellOntology.load()
CD4, CD8, B, NEURON = "CL:0000624", "CL:0000625", "CL:0000236", "CL:0000540"


def test_lin_similarity_is_that_of_the_most_informative_common_ancestor() -> None:
    def content(term: str) -> float:
        return np.log(len(ONTOLOGY) / (1 + len(ONTOLOGY.descendants(term))))

    terms = [CD4, CD8, B, NEURON]
    found = lin_similarity(terms, terms, ONTOLOGY)
    for i, a in enumerate(terms):
        for j, b in enumerate(terms):
            common = ONTOLOGY.ancestors(a, include_self=True) & ONTOLOGY.ancestors(
                b, include_self=True
            )
            expected = 2 * max(map(content, common)) / (content(a) + content(b))
            assert found[i, j] == pytest.approx(expected, rel=1e-5)
    assert 1 > found[0, 1] > found[0, 2] > found[0, 3] > 0


def test_siblings_share_a_parent_and_are_other_terms() -> None:
    siblings = siblings_of(CD4, ONTOLOGY)
    assert CD8 in siblings
    assert CD4 not in siblings
    assert all(set(ONTOLOGY.parents(t)) & set(ONTOLOGY.parents(CD4)) for t in siblings)
    assert siblings_of("a name of a user's own", ONTOLOGY) == []


def test_specific_markers_are_those_that_siblings_lack() -> None:
    markers = CellMarkers.from_dict({CD4: ["CD3D", "CD4"], CD8: ["CD3D", "CD8A"]})
    scorer = MarkerScorer.of(markers, ONTOLOGY, terms=(CD4, CD8))
    symbols = GeneVocabulary.load().symbols
    token = np.repeat(np.arange(len(scorer.entry_starts) - 1), np.diff(scorer.entry_starts))
    gene_of = GeneVocabulary.load().gene_of
    symbol_of = dict(zip(GeneVocabulary.load().gene_ids, symbols))
    specific = {
        (scorer.terms[t], symbol_of[gene_of[int(g)]]): w
        for t, g, w in zip(scorer.entry_terms, token, scorer.entry_weights)
    }
    assert specific[CD4, "CD3D"][1] == specific[CD8, "CD3D"][1] == 0
    for own in ((CD4, "CD4"), (CD8, "CD8A")):
        assert specific[own][1] == pytest.approx(specific[own][0])  # one source, no sibling has it
        assert specific[own][1] > 0
    assert specific[CD4, "CD3D"][0] > 0


@pytest.fixture
def model() -> EvidenceModel:
    """Two known types and an open term; the scored terms are those three, one without row and one that does not count."""
    space = TermSpace(
        known=("a", "b"),
        open=("c",),
        placed=np.ones(2, bool),
        below=np.array([[1, 0], [0, 1], [0, 0]], np.float32),
        lin=np.array([[1, 0.5], [0.5, 1], [0.25, 0.75]], np.float32),
        log_pagerank=np.array([[-1, -2], [-2, -1], [-3, -4]], np.float32),
        rank_rows=np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]]),
        depth=np.array([3, 4, 5], np.float32),
        n_sources=np.array([0, 1, 7], np.float32),
        siblings=((), (), ()),
    )
    weights = EvidenceWeights(
        specific=1.0, specific_absolute=2.0, sibling=-3.0, negative=-4.0, own=5.0, log_pagerank=6.0, lin=7.0, rank=8.0,
        log_probability=9.0, depth=0.5, log_sources=2.0, distance=3.0, bias=-1.0,
    )  # fmt: skip
    return EvidenceModel(
        space,
        weights,
        marker_of_row=np.array([0, 1, -1], np.int32),
        counted=np.array([True, True, True, True, False]),
        sibling_starts=np.array([0, 2, 3, 3], np.int32),
        sibling_markers=np.array([1, 2, 0], np.int32),
    )


@pytest.fixture
def cell() -> CellEvidence:
    markers = MarkerScores(
        own=np.array([[2, 4, 6, 8, 50]], np.float32),
        specific=np.array([[6, 3, 9, 12, -50]], np.float32),
        negative=np.array([[1, 5, 0, 0, 0]], np.float32),
    )
    log_p = np.log(np.array([[0.25, 0.75]], np.float32))
    return CellEvidence(
        log_p, np.array([[0.3, 0.6]], np.float32), np.array([2.0], np.float32), markers
    )


def test_shared_scores_are_weighted_sums(model: EvidenceModel, cell: CellEvidence) -> None:
    # scales: means of the three largest t-values of counted terms, (4, 6, 8) and (6, 9, 12)
    own, specific = 6.0, 9.0
    markers = [
        1 * 6 / specific + 2 * 0.6 - 3 * 9 / specific - 4 * 0.1 + 5 * 2 / own,
        1 * 3 / specific + 2 * 0.3 - 3 * 6 / specific - 4 * 0.5 + 5 * 4 / own,
        0,
    ]
    similarity = 6 * model.space.log_pagerank + 7 * model.space.lin
    embedding = similarity @ np.array([0.25, 0.75])
    parts = model.shared_parts(cell)
    np.testing.assert_allclose(parts.markers[0], markers, rtol=1e-5)
    np.testing.assert_allclose(parts.embedding[0], embedding, rtol=1e-5)
    # cosines rise from the first known type to the second, as the PageRank of the second and third term does
    np.testing.assert_allclose(parts.ontology[0], [-8, 8, 8], rtol=1e-5)
    np.testing.assert_allclose(
        parts.total, parts.markers + parts.embedding + parts.ontology, rtol=1e-6
    )


def test_scores_of_open_and_known_terms(model: EvidenceModel, cell: CellEvidence) -> None:
    by_cell, by_term = model.open_scores(cell)
    np.testing.assert_allclose(by_cell, [-1 + 3 * 2], rtol=1e-6)
    np.testing.assert_allclose(by_term, [1.5, 2 + 2 * np.log(2), 2.5 + 2 * np.log(8)], rtol=1e-6)
    ruled_out = cell._replace(log_probabilities=np.array([[0, -np.inf]], np.float32))
    np.testing.assert_allclose(model.known_scores(ruled_out), [[0, 9 * -12]])


def test_the_first_term_that_reaches_the_threshold_is_chosen() -> None:
    sums = np.array([[0.5, 0.75, 1.0], [0.75, 0.8, 0.9], [0.1, 0.2, 0.3]])
    assert choose_level(sums, 0.75).tolist() == [1, 0, 2]
    assert choose_level(sums, 0.76).tolist() == [2, 1, 2]
    assert choose_level(sums, 0).tolist() == [0, 0, 0]


def test_cells_of_a_broader_label_may_be_of_a_term_and_sums_never_fall() -> None:
    alpha_beta, mature = "CL:0000789", "CL:0002419"  # above CD4 T cells, but not above each other
    assert alpha_beta not in ONTOLOGY.ancestors(mature)
    assert mature not in ONTOLOGY.ancestors(alpha_beta)
    probabilities = np.array([[0.25, 0.5, 0.25]], np.float32)
    known = [CD4, mature, NEURON]
    lineages = Lineages.of(known, ONTOLOGY, broader_types=True)
    sums = dict(zip(lineages.lineages[0].terms, lineages.sums(probabilities, np.array([0]))[0]))
    assert sums[CD4] == 0.75  # mature T cells may be CD4 T cells
    assert sums[alpha_beta] == 0.75  # as likely as a term below it, though not above mature T cells
    assert sums["CL:0000000"] == 1
    assert all(a <= b for a, b in pairwise(sums.values()))
    strict = Lineages.of(known, ONTOLOGY)
    assert strict.sums(probabilities, np.array([0]))[0, 0] == 0.25


def test_the_usual_novelty_of_types_is_removed_in_part() -> None:
    calibration = NoveltyCalibration(np.array([1, -2], np.float32), reference=0.0, threshold=0.0)
    found = calibration.corrected(np.array([3, 3], np.float32), np.array([0, 1]))
    np.testing.assert_allclose(found, [3 - 0.6, 3 + 1.2], rtol=1e-6)


def test_the_usual_novelty_is_shrunk_towards_related_types() -> None:
    novelty, assigned = np.array([4.0] * 4 + [1.0] * 8), np.array([0] * 4 + [1] * 8)
    weight = np.ones(12)
    unrelated = usual_novelty(novelty, assigned, weight, np.eye(3))
    # the prior, 8 cells of the overall mean 2, as no type is related
    np.testing.assert_allclose(unrelated, [(16 + 8 * 2) / 12, (8 + 8 * 2) / 16, 2], rtol=1e-6)
    similarity = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1.0]])
    related = usual_novelty(novelty, assigned, weight, similarity)
    # the third type has no cells and is like the first: 4 cells of 4 and one of the overall mean
    assert related[2] == pytest.approx((16 + 2) / 5)


def test_the_shift_is_shrunk_by_the_number_of_types() -> None:
    assigned = np.repeat(np.arange(6), 90)  # each counts 90 / (90 + 10)
    found = data_set_shift(np.full(540, 2.0), assigned, 0.5)
    assert found == pytest.approx((2 - 0.5) * 5.4**2 / (5.4**2 + 6**2))
