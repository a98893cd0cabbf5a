"""Marker scores, evidence and decisions on small made-up cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse
from scipy.special import logsumexp, softmax
from scipy.stats import linregress

from sccello_tools.annotation import (
    Background,
    Candidates,
    CellMarkers,
    EvidenceWeights,
    LabelledCells,
    MarkerScorer,
    OpenWorldAnnotator,
    fit_evidence,
    load_evidence,
    save_evidence,
)
from sccello_tools.annotation.backoff import Lineages, choose_level
from sccello_tools.annotation.classifier import TypeDistances, fit_classifier
from sccello_tools.annotation.coverage import assigned_types, coverage_threshold, utilities
from sccello_tools.annotation.evidence import PAIR_FEATURES, EvidenceModel
from sccello_tools.annotation.evidence_fit import MARKER_SHARE
from sccello_tools.annotation.novelty import data_set_shift
from sccello_tools.annotation.term_space import TermSpace
from sccello_tools.errors import ArgumentError, LabelError
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from sccello_tools.annotation import (
        EvidenceFit,
    )

ONTOLOGY = CellOntology.load()
N_TOKENS = 25_427
T, B, NK, MONO, DC = "CL:0000084", "CL:0000236", "CL:0000623", "CL:0000576", "CL:0000451"


@pytest.fixture(scope="module")
def scorer() -> MarkerScorer:
    return MarkerScorer.of(CellMarkers.load(), ONTOLOGY)


def cells_of(term: str, n: int, rng: np.random.Generator, *, depth: int = 2_000) -> np.ndarray:
    """Counts over tokens: background expression, with the term's markers raised."""
    background = Background.load()
    rate = np.expm1(background.mean).clip(0.01) * (background.sd > 0)
    table = CellMarkers.load().of(term)
    token_of = GeneVocabulary.load().token_of
    tokens = [token_of[g] for g in table.loc[table["positive"], "gene_id"].head(60)]
    rate[tokens] += 30
    return rng.poisson(rate / rate.sum() * depth, size=(n, N_TOKENS)).astype(np.float32)


def test_scores_are_the_t_values_of_a_linear_model(scorer: MarkerScorer) -> None:
    rng = np.random.default_rng(0)
    counts = cells_of(B, 3, rng)
    tokens = np.where(
        np.arange(N_TOKENS) % 3 > 0, np.arange(N_TOKENS), -1
    )  # a third is not measured
    found = scorer.bind(tokens)(sparse.csr_matrix(counts))
    background = Background.load()
    usable = np.flatnonzero((tokens >= 0) & (background.sd > 0))
    matched = np.flatnonzero(tokens >= 0)
    x = np.log1p(counts / counts[:, matched].sum(axis=1, keepdims=True) * 1e4)
    z = np.clip((x - background.mean) / (background.sd + 0.1), -1, 6)
    term = scorer.terms.index(B)
    gene = np.repeat(np.arange(N_TOKENS), np.diff(scorer.entry_starts))
    own = scorer.entry_terms == term
    for k, values in enumerate(found):
        w = np.zeros(N_TOKENS)
        w[gene[own]] = scorer.entry_weights[own, k]
        if not w[usable].any():
            continue
        for cell in range(3):
            fit = linregress(w[usable], z[cell, usable])
            np.testing.assert_allclose(
                values[cell, term], fit.slope / fit.stderr, rtol=2e-3, atol=2e-3
            )


def test_scores_of_a_cell_do_not_depend_on_other_cells_or_column_order(
    scorer: MarkerScorer,
) -> None:
    rng = np.random.default_rng(1)
    counts = np.vstack([cells_of(term, 2, rng) for term in (T, B, MONO)])
    tokens = np.arange(N_TOKENS)
    together = scorer.bind(tokens)(sparse.csr_matrix(counts))
    order = rng.permutation(N_TOKENS)
    alone = scorer.bind(tokens[order])(sparse.csr_matrix(counts[3:4, order]))
    for a, b in zip(together, alone):
        np.testing.assert_allclose(a[3:4], b, rtol=1e-3, atol=1e-3)


def test_columns_of_one_gene_are_summed_and_empty_cells_are_nan(scorer: MarkerScorer) -> None:
    counts = cells_of(B, 2, np.random.default_rng(2))
    halves = np.hstack([np.floor(counts / 2), counts - np.floor(counts / 2)])
    tokens = np.arange(N_TOKENS)
    whole = scorer.bind(tokens)(sparse.csr_matrix(counts))
    split = scorer.bind(np.concatenate([tokens, tokens]))(sparse.csr_matrix(halves))
    np.testing.assert_allclose(whole.own, split.own, rtol=1e-3, atol=1e-3)
    empty = scorer.bind(tokens)(sparse.csr_matrix(np.zeros((1, N_TOKENS), np.float32)))
    assert np.isnan(empty.own).all()


@pytest.mark.parametrize("term", [T, B, NK, MONO, DC, "CL:0000097", "CL:0000775"])
def test_cells_with_raised_markers_rank_their_term_high(scorer: MarkerScorer, term: str) -> None:
    counts = cells_of(term, 4, np.random.default_rng(3))
    own = scorer.bind(np.arange(N_TOKENS))(sparse.csr_matrix(counts)).own
    rank = (own > own[:, [scorer.terms.index(term)]]).sum(axis=1)
    assert (rank < 30).all()


def test_markers_of_a_user() -> None:
    markers = CellMarkers.from_dict(
        {"B cell": ["CD19", "MS4A1", "no such gene"], T: ["CD3D", "CD3E"]}
    )
    assert markers.terms == (T, B)
    assert set(markers.of(B)["symbol"]) == {"CD19", "MS4A1"}
    with pytest.raises(LabelError, match="flux capacitor"):
        CellMarkers.from_dict({"flux capacitor": ["CD19"]})
    import pandas as pd

    with pytest.raises(ArgumentError, match="symbol"):
        CellMarkers.from_frame(pd.DataFrame({"cell_type": ["B cell"]}))


def test_term_space() -> None:
    known = ["CL:0000624", "CL:0000625", B]
    space = TermSpace.of(known, ONTOLOGY, CellMarkers.load())
    assert space.known == tuple(known)
    assert T not in space.open  # above a known type
    assert DC in space.open
    assert "CL:0001064" not in space.open  # malignant cell
    np.testing.assert_allclose(np.diag(space.lin[:3]), 1, rtol=1e-6)
    assert (space.below[:3] == np.eye(3)).all()
    asked = TermSpace.of(known, ONTOLOGY, CellMarkers.load(), candidates=[T, DC, B])
    assert asked.open == (T, DC)
    assert asked.below[3].tolist() == [1, 1, 0]


def test_classifier_keeps_broad_labels_apart_from_their_subtypes() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    label = np.repeat([0, 1, 2], [200, 100, 100])  # broad, subtype, other
    x[:100, 0] += 4  # half of the broad cells look like the subtype
    x[200:300, 0] += 4
    x[300:, 1] += 4
    below = np.array([[True, True, False], [False, True, False], [False, False, True]])
    weight, bias = fit_classifier(x, label, below, penalty=1.0)
    predicted = (x @ weight.T + bias).argmax(axis=1)
    assert (predicted[200:300] == 1).mean() > 0.9  # the subtype is predicted where it has cells
    assert (predicted[100:200] == 0).mean() > 0.7  # and the broad type elsewhere
    assert (predicted[300:] == 2).mean() > 0.9


def test_threshold_gives_expected_coverage() -> None:
    sums = np.tile([0.5, 0.8, 1.0], (100, 1))
    sums[50:, 0] = 0.99
    threshold = coverage_threshold(sums, 0.1)
    level = choose_level(sums, threshold)
    mean = sums[np.arange(100), level].mean()
    assert mean >= 0.9 > sums[np.arange(100), choose_level(sums, threshold - 0.01)].mean()
    assert coverage_threshold(np.full((60, 2), 0.95), 0.1) == 0
    assert coverage_threshold(sums[:10], 0.1, fallback=0.7) == 0.7


def test_utility_prefers_a_likely_subtype_to_its_parent_but_not_to_an_unrelated_type() -> None:
    types = ["CL:0000084", "CL:0000624", "CL:0000236"]  # T cell, CD4-positive T cell, B cell
    utility = utilities(types, ONTOLOGY)
    assert np.diag(utility).tolist() == [2, 2, 2]
    assert (
        utility[0, 1] > 1 > utility[1, 0]
    )  # a CD4 T cell is a T cell, but not every T cell is CD4-positive
    probabilities = np.array([[0.5, 0.4, 0.1], [0.2, 0.1, 0.7], [0.9, 0.0, 0.1], [0.85, 0.1, 0.05]])
    assert assigned_types(probabilities).tolist() == [0, 2, 0, 0]
    assert assigned_types(probabilities, utility).tolist() == [
        1,
        2,
        0,
        0,
    ]  # impossible types are never assigned


def test_distances_do_not_grow_with_the_dimension() -> None:
    rng = np.random.default_rng(0)
    types = np.repeat(np.arange(3), 400)
    medians = []
    for d in (16, 64):
        points = rng.standard_normal((1200, d)).astype(np.float32)
        medians.append(np.median(TypeDistances.of(points, types, 3).log_nearest(points)))
    assert abs(medians[0] - medians[1]) < 0.2


def test_chains_sum_along_the_ontology() -> None:
    known = ["CL:0000624", "CL:0000625", B]
    lineages = Lineages.of(known, ONTOLOGY, broader_types=True)
    sums = lineages.sums(np.array([[0.5, 0.4, 0.1]], np.float32), np.array([0]))
    assert sums[0, 0] == 0.5
    assert (np.diff(sums[0]) >= 0).all()
    terms = lineages.lineages[0].terms
    np.testing.assert_allclose(sums[0, terms.index(T)], 0.9, atol=1e-3)


def test_shift_ignores_novel_cells_of_one_type_but_not_an_effect_on_all() -> None:
    rng = np.random.default_rng(0)
    assigned = np.repeat(np.arange(10), 100)
    usual = rng.normal(0, 1, 1000)
    reference = float(np.quantile(rng.normal(0, 1, 100_000), 0.25))
    novel = usual + 6 * (assigned == 0)
    assert abs(data_set_shift(usual, assigned, reference)) < 0.2
    assert abs(data_set_shift(novel, assigned, reference)) < 0.2
    assert data_set_shift(usual + 3, assigned, reference) > 1.5
    assert data_set_shift((usual + 3)[:100], assigned[:100], reference) < 0.1
    assert data_set_shift((usual + 3)[:300], assigned[:300], reference) < 0.7


@pytest.fixture(scope="module")
def cells() -> LabelledCells:
    """Six types in three studies; the embedding is a noisy projection of the type."""
    rng = np.random.default_rng(0)
    terms = [
        "CL:0000624",
        "CL:0000625",
        B,
        NK,
        "CL:0000860",
        "CL:0000115",
        "CL:0000057",
        "CL:0000169",
    ]
    types, studies, counts = [], [], []
    centre = {t: rng.normal(size=16) for t in terms}
    for study in ("a", "b", "c"):
        for t in terms:
            counts.append(cells_of(t, 12, rng, depth=1_500))
            types += [t] * 12
            studies += [study] * 12
    hidden = np.stack([centre[t] for t in types]) * 2 + rng.normal(size=(len(types), 16))
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    return LabelledCells(
        hidden.astype(np.float32), unit.astype(np.float32), sparse.csr_matrix(np.vstack(counts)), np.array(types), np.array(studies),
        np.zeros(len(types), dtype=np.intp), np.ones((1, N_TOKENS), dtype=bool), np.zeros(len(types), dtype=bool),
    )  # fmt: skip


@pytest.fixture(scope="module")
def fit(cells: LabelledCells) -> EvidenceFit:
    return fit_evidence(cells, ONTOLOGY, CellMarkers.load(), n_each=8, n_classifier=12)


def test_fit_annotate_save_and_load(fit: EvidenceFit, cells: LabelledCells, tmp_path) -> None:
    assert fit.counts.tolist() == [36] * 8
    assert fit.calibrated
    assert repr(fit) == "EvidenceFit(8 types, 288 cells)"
    weights = fit.weights
    assert (
        min(
            weights.specific,
            weights.own,
            weights.lin,
            weights.rank,
            weights.log_probability,
            weights.distance,
        )
        >= 0
    )
    assert max(weights.sibling, weights.negative) <= 0
    save_evidence(fit, tmp_path, weights_sha256="x", ontology_release=ONTOLOGY.release)
    again, about = load_evidence(tmp_path / "annotation.safetensors")
    assert about["weights_sha256"] == "x"
    annotator = OpenWorldAnnotator.of(
        again, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS), level="type"
    )
    parts = [
        annotator.partial(
            cells.hidden[i : i + 100], cells.cells[i : i + 100], cells.counts[i : i + 100]
        )
        for i in range(0, len(cells), 100)
    ]
    whole = annotator.partial(cells.hidden, cells.cells, cells.counts)
    np.testing.assert_allclose(
        np.concatenate([p.novelty for p in parts]), whole.novelty, rtol=1e-3, atol=1e-3
    )
    found = annotator.finish(parts)
    terms = np.array(found.terms)[found.codes]
    known = found.status == "known"
    assert known.mean() > 0.8
    assert (terms[known] == cells.types[known]).mean() > 0.9
    known = found.novelty <= 0
    np.testing.assert_allclose(found.contributions[:, 3][known], 0)


def test_contributions_add_up_to_the_difference_of_scores(
    fit: EvidenceFit, cells: LabelledCells
) -> None:
    annotator = OpenWorldAnnotator.of(fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS))
    some = cells.take(np.arange(0, len(cells), 12))
    part = annotator.partial(some.hidden, some.cells, some.counts)
    evidence = fit.known.evidence(some.hidden, some.cells, annotator.scorer(some.counts))
    shared = annotator.model.shared_parts(evidence).total
    n = len(fit.known.types)
    at = np.arange(len(some))
    markers = annotator.model.shared_parts(evidence).markers[:, :n]
    scores = evidence.log_probabilities + MARKER_SHARE * markers
    assert (part.assigned == scores.argmax(axis=1)).all()
    expected = scores[at, part.assigned] - scores[at, part.runner_up]
    np.testing.assert_allclose(part.known_parts.sum(axis=1), expected, rtol=1e-3, atol=1e-3)
    prior = annotator.model.open_scores(evidence)[1][n:]
    opened = shared[:, n : n + len(prior)] + prior
    expected = opened[at, part.open_term] - opened[at, part.open_runner_up]
    np.testing.assert_allclose(part.open_parts.sum(axis=1), expected, rtol=1e-3, atol=1e-3)


def test_probabilities_of_known_types_combine_classifier_and_markers(
    fit: EvidenceFit, cells: LabelledCells
) -> None:
    flat = replace(fit, known_temperature=20.0)  # no probability is 0 or 1
    annotator = OpenWorldAnnotator.of(
        flat, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS)
    )
    some = cells.take(np.arange(0, len(cells), 12))
    evidence = fit.known.evidence(some.hidden, some.cells, annotator.scorer(some.counts))
    markers = annotator.model.shared_parts(evidence).markers[:, : len(fit.known.types)]
    scores = (evidence.log_probabilities + 0.5 * markers) / 20
    found = annotator.partial(some.hidden, some.cells, some.counts, return_scores=True).scores
    np.testing.assert_allclose(found, softmax(scores, axis=1), atol=1e-4)


def test_novelty_is_the_log_odds_of_open_terms(fit: EvidenceFit, cells: LabelledCells) -> None:
    annotator = OpenWorldAnnotator.of(fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS))
    some = cells.take(np.arange(0, len(cells), 12))
    evidence = fit.known.evidence(some.hidden, some.cells, annotator.scorer(some.counts))
    model, n = annotator.model, len(fit.known.types)
    by_cell, by_term = model.open_scores(evidence)
    shared = model.shared_parts(evidence).total
    opened = shared[:, n:] + by_term[n:] + by_cell[:, None]
    known = shared[:, :n] + model.known_scores(evidence)
    expected = logsumexp(opened, axis=1) - logsumexp(known, axis=1)
    found = annotator.partial(some.hidden, some.cells, some.counts).novelty
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_group_gets_the_term_of_its_mean_evidence(fit: EvidenceFit, cells: LabelledCells) -> None:
    annotator = OpenWorldAnnotator.of(fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS))
    names, groups = np.unique(cells.types, return_inverse=True)
    sums = annotator.group_sums(len(names) + 1)
    parts = [
        annotator.partial(
            cells.hidden[i : i + 50], cells.cells[i : i + 50], cells.counts[i : i + 50], groups=groups[i : i + 50], sums=sums
        )
        for i in range(0, len(cells), 50)
    ]  # fmt: skip
    found = annotator.finish_groups(sums, annotator.finish(parts))
    assert sums.n_cells.sum() == len(cells)
    assert np.array(found.terms)[found.codes[:-1]].tolist() == names.tolist()
    assert found.codes[-1] == -1  # a group without cells
    # a group of one cell is the cell
    one = annotator.group_sums(1)
    row = slice(5, 6)
    annotator.partial(
        cells.hidden[row], cells.cells[row], cells.counts[row], groups=np.zeros(1, int), sums=one
    )
    whole = annotator.finish(parts)
    single = annotator.finish_groups(one, whole)
    assert single.terms[single.codes[0]] == whole.terms[whole.codes[5]]
    np.testing.assert_allclose(single.confidence[0], whole.confidence[5], atol=2e-3)


def test_candidates_are_the_only_terms(fit: EvidenceFit, cells: LabelledCells) -> None:
    asked = [T, DC, B, "CL:0000775"]
    annotator = OpenWorldAnnotator.of(
        fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS), candidates=asked
    )
    assert annotator.columns == tuple(asked)
    part = annotator.partial(cells.hidden, cells.cells, cells.counts, return_scores=True)
    found = annotator.finish([part])
    terms = np.array(found.terms)[found.codes]
    assert set(terms) <= set(asked)
    assert (terms[cells.types == B] == B).mean() > 0.9
    below_t = np.isin(cells.types, ["CL:0000624", "CL:0000625"])
    assert (terms[below_t] == T).mean() > 0.9  # stands for the known types below it
    alone = OpenWorldAnnotator.of(fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS))
    np.testing.assert_allclose(
        alone.partial(cells.hidden[:9], cells.cells[:9], cells.counts[:9]).novelty, part.novelty[:9], rtol=1e-3, atol=1e-3
    )  # fmt: skip


def test_published_scores_are_rank_correlations_of_cosines(
    fit: EvidenceFit, cells: LabelledCells
) -> None:
    asked = (T, DC, "CL:0000775")
    annotator = OpenWorldAnnotator.of(
        fit, ONTOLOGY, CellMarkers.load(), candidates=asked, method="published"
    )
    part = annotator.partial(cells.hidden[:5], cells.cells[:5], return_scores=True)
    expected = Candidates.of(asked, fit.known.types, ONTOLOGY).scores(
        cells.cells[:5] @ fit.known.prototypes.T
    )
    np.testing.assert_array_equal(part.scores, expected)
    assert np.isnan(annotator.finish([part]).confidence).all()  # they are not probabilities


def test_a_ruled_out_type_is_not_assigned(fit: EvidenceFit, cells: LabelledCells) -> None:
    weights = np.array([float(t != B) for t in fit.known.types])
    annotator = OpenWorldAnnotator.of(
        fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS), type_weights=weights
    )
    part = annotator.partial(cells.hidden, cells.cells, cells.counts, return_scores=True)
    assert fit.known.types.index(B) not in part.assigned
    assert np.isfinite(part.known_parts).all()
    np.testing.assert_allclose(part.scores.sum(axis=1), 1, rtol=1e-4)


def test_fused_scores_equal_weighted_features(
    fit: EvidenceFit, cells: LabelledCells, scorer: MarkerScorer
) -> None:
    space = TermSpace.of(fit.known.types, ONTOLOGY, CellMarkers.load())
    weights = EvidenceWeights.of(np.linspace(0.1, 1.3, 13))
    model = EvidenceModel.of(space, scorer, weights, ONTOLOGY)
    evidence = fit.known.evidence(
        cells.hidden[:7], cells.cells[:7], scorer.bind(np.arange(N_TOKENS))(cells.counts[:7])
    )
    slow = np.einsum(
        "nfr,f->nr", model.pair_features(evidence), weights.array()[: len(PAIR_FEATURES)]
    )
    np.testing.assert_allclose(model.shared_parts(evidence).total, slow, rtol=1e-3, atol=1e-3)


def test_empty_cells_have_no_term(fit: EvidenceFit, cells: LabelledCells) -> None:
    annotator = OpenWorldAnnotator.of(fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS))
    hidden, unit, counts = (
        cells.hidden[:3].copy(),
        cells.cells[:3].copy(),
        cells.counts[:3].toarray(),
    )
    hidden[1], unit[1], counts[1] = np.nan, np.nan, 0
    found = annotator.finish([annotator.partial(hidden, unit, sparse.csr_matrix(counts))])
    assert found.codes[1] == -1
    assert found.status[1] == ""
    assert np.isnan(found.confidence[1])
    assert (found.codes[[0, 2]] >= 0).all()


def test_without_the_embedding_markers_alone_decide(fit: EvidenceFit, cells: LabelledCells) -> None:
    annotator = OpenWorldAnnotator.of(
        fit, ONTOLOGY, CellMarkers.load(), tokens=np.arange(N_TOKENS), evidence=["markers"]
    )
    part = annotator.partial(cells.hidden, cells.cells, cells.counts)
    shuffled = np.random.default_rng(0).permutation(len(cells))
    other = annotator.partial(cells.hidden[shuffled], cells.cells[shuffled], cells.counts)
    np.testing.assert_array_equal(part.assigned, other.assigned)
    types = np.array(fit.known.types)[part.assigned]
    assert (types == cells.types).mean() > 0.5  # eight types with raised markers
    np.testing.assert_allclose(part.known_parts[:, :2], 0)
    ontology = OpenWorldAnnotator.of(fit, ONTOLOGY, CellMarkers.load(), evidence=["ontology"])
    part = ontology.partial(cells.hidden, cells.cells)
    assert len(np.unique(part.assigned)) > 1
    assert part.known_parts[:, 1].any()
