"""Edits of token sequences, shifts against full passes of the model, and random controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sccello_tools.errors import ArgumentError
from sccello_tools.nn import EncoderConfig, ScCelloModel, sdpa_attention
from sccello_tools.perturbation import Target, perturbation_scores, perturbation_shifts
from sccello_tools.perturbation.controls import (
    GeneRanks,
    control_sets,
    empirical_pvalue,
    group_effects,
)
from sccello_tools.perturbation.edits import perturbed
from sccello_tools.tokens import RaggedTokens

CLS, MASK = 99, 1


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = ScCelloModel(
        EncoderConfig(
            vocab_size=100,
            cls_token_id=CLS,
            hidden_size=16,
            n_layers=3,
            n_heads=2,
            intermediate_size=24,
            max_positions=40,
        )
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def cells(*lengths: int) -> RaggedTokens:
    rng = np.random.default_rng(1)
    ids = [np.concatenate([[CLS], 2 + rng.permutation(90)[:n]]) for n in lengths]
    indptr = np.cumsum([0, *map(len, ids)])
    flat = np.concatenate(ids).astype(np.int32)
    return RaggedTokens(indptr, flat, np.zeros(len(flat), dtype=np.float32))


def unit(model, ids) -> np.ndarray:
    ids = torch.as_tensor(np.asarray(ids)).long()
    bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
    with torch.inference_mode():
        row = model.encoder(ids, bounds, len(ids), attention=sdpa_attention)[0].double().numpy()
    return row / np.linalg.norm(row)


def edit(ids, tokens, mode, max_length=40):
    out = perturbed(np.array(ids), np.array(tokens), mode, mask_id=MASK, max_length=max_length)
    return None if out is None else out.tolist()


def test_edits():
    ids = [CLS, 5, 6, 7]
    assert edit(ids, [6], "mask") == [CLS, 5, MASK, 7]
    assert edit(ids, [7, 5], "mask") == [CLS, MASK, 6, MASK]
    assert edit(ids, [6, 5], "delete") == [CLS, 7]
    assert edit(ids, [7], "overexpress") == [CLS, 7, 5, 6]
    assert edit(ids, [8, 6], "overexpress") == [CLS, 8, 6, 5, 7]
    assert edit(ids, [8], "overexpress", max_length=4) == [CLS, 8, 5, 6]


@pytest.mark.parametrize(
    ("tokens", "mode"),
    [([8], "mask"), ([8, 9], "delete"), ([5], "overexpress"), ([5, 6], "overexpress")],
)
def test_edits_that_change_nothing(tokens, mode):
    assert edit([CLS, 5, 6, 7], tokens, mode) is None


@pytest.mark.parametrize("mode", ["mask", "delete", "overexpress"])
@pytest.mark.parametrize("batch_tokens", ["auto", 1, 50])
def test_shifts_are_those_of_full_passes(model, mode, batch_tokens):
    tokens = cells(20, 33)
    first, second = tokens[0].tolist(), tokens[1].tolist()
    sets = [(first[4],), (second[9],), (first[2], second[5])]
    target = unit(model, cells(12)[0])
    found = perturbation_shifts(
        model,
        tokens,
        sets,
        mode=mode,
        target=Target(target.astype(np.float32), "cls"),
        batch_tokens=batch_tokens,
    )
    for cell in range(2):
        u = unit(model, tokens[cell])
        direction = (target - u) / np.linalg.norm(target - u)
        for p, genes in enumerate(sets):
            copy = edit(tokens[cell], genes, mode)
            if copy is None:
                assert np.isnan(found.shift[cell, p])
                continue
            moved = unit(model, copy)
            assert found.shift[cell, p] == pytest.approx(1 - u @ moved, rel=1e-3, abs=1e-6)
            component = (moved - u) @ direction
            assert found.toward[cell, p] == pytest.approx(component, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("method", ["perturb", "fast"])
def test_masking_agrees_with_the_scores_of_marker_genes(model, method):
    tokens = cells(25, 18)
    scores = perturbation_scores(model, tokens, method=method)
    genes = [(gene,) for gene in tokens[1][1:].tolist()]
    found = perturbation_shifts(model, tokens, genes, method=method)
    np.testing.assert_allclose(found.shift[1], scores[tokens.indptr[1] + 1 :], rtol=1e-2)
    absent = ~np.isin(tokens[1][1:], tokens[0])
    assert np.isnan(found.shift[0, absent]).all()
    assert np.isfinite(found.shift[0, ~absent]).all()


def test_prototypes_are_compared_in_the_cell_representation(model):
    tokens = cells(20)
    vector = np.eye(16, dtype=np.float32)[3]
    gene = int(tokens[0][2])
    found = perturbation_shifts(
        model, tokens, [(gene,)], mode="delete", target=Target(vector, "cell")
    )

    def represent(ids):
        ids = torch.as_tensor(np.asarray(ids)).long()
        bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
        with torch.inference_mode():
            return (
                model.encode(
                    ids, bounds, len(ids), representation="cell", attention=sdpa_attention
                )[0]
                .double()
                .numpy()
            )

    u, moved = represent(tokens[0]), represent(edit(tokens[0], [gene], "delete"))
    direction = (vector - u) / np.linalg.norm(vector - u)
    assert found.toward[0, 0] == pytest.approx((moved - u) @ direction, rel=1e-3, abs=1e-6)


def test_ranks_of_genes_by_hand():
    ids = np.array([CLS, 10, 11, 12, CLS, 12, 11, CLS], dtype=np.int32)
    ranks = GeneRanks.of(RaggedTokens(np.array([0, 4, 7, 8]), ids, np.zeros(8, np.float32)))
    assert ranks.tokens.tolist() == [10, 11, 12]
    np.testing.assert_allclose(ranks.rank, [0, (1 / 3 + 1 / 2) / 2, (2 / 3 + 0) / 2])
    assert ranks.n_cells.tolist() == [1, 2, 2]
    assert ranks.similar(10, 5, np.array([10])).tolist() == [12, 11]
    assert ranks.similar(11, 5, np.array([11])).tolist() == [12, 10]
    assert ranks.similar(50, 5, np.array([50])).tolist() == []


def test_control_sets_match_gene_by_gene():
    rng = np.random.default_rng(0)
    ranks = GeneRanks.of(cells(60))
    top, last = cells(60)[0][1], cells(60)[0][-1]
    pairs = control_sets(ranks, (int(top), int(last)), np.array([], dtype=int), 12, rng)
    assert len(pairs) == len({frozenset(pair) for pair in pairs}) == 12
    rank = dict(zip(ranks.tokens.tolist(), ranks.rank))
    assert max(rank[a] for a, _ in pairs) < 0.5 < min(rank[b] for _, b in pairs)
    singles = control_sets(ranks, (int(top),), np.array([], dtype=int), 12, rng)
    assert sorted(rank[g] for (g,) in singles) == sorted(ranks.rank)[1:13]
    unexpressed = control_sets(ranks, (97,), np.array([96, 97, 98]), 12, rng)
    assert sorted(unexpressed) == [(96,), (98,)]
    assert control_sets(ranks, (97,), np.array([97]), 12, rng) == []


@pytest.mark.parametrize("mode", ["mask", "delete", "overexpress"])
def test_group_effects(model, mode):
    tokens = cells(30, 30, 28)
    sets = [(int(tokens[0][3]),), (int(tokens[1][8]),)]
    options = {"mode": mode, "target": None, "absent": np.arange(93, 98), "seed": 3}
    shifts = perturbation_shifts(model, tokens, sets, mode=mode)
    found = group_effects(model, tokens, sets, shifts, n_controls=15, **options)
    np.testing.assert_allclose(found.shift.mean, np.nanmean(shifts.shift, axis=0), rtol=1e-5)
    assert found.n_changed.tolist() == np.isfinite(shifts.shift).sum(0).tolist()
    assert ((found.shift.pvals >= 1 / 16) & (found.shift.pvals <= 1)).all()
    assert np.isnan(found.toward.pvals).all()
    alone = group_effects(
        model, tokens, sets[1:], type(shifts)(*(x[:, 1:] for x in shifts)), n_controls=15, **options
    )
    assert alone.shift.pvals[0] == found.shift.pvals[1]
    assert alone.shift.control[0] == pytest.approx(found.shift.control[1], rel=1e-3)
    without = group_effects(model, tokens, sets, shifts, n_controls=0, **options)
    assert np.isnan(without.shift.pvals).all()
    np.testing.assert_array_equal(without.shift.mean, found.shift.mean)


def test_random_genes_have_uniform_p_values(model):
    tokens = cells(*[35] * 6)
    genes = [(int(g),) for g in GeneRanks.of(tokens).tokens]
    shifts = perturbation_shifts(model, tokens, genes, method="fast")
    found = group_effects(
        model, tokens, genes, shifts, mode="mask", target=None, n_controls=40,
        absent=np.array([], dtype=int), seed=0,
    )  # fmt: skip
    assert 0.4 < found.shift.pvals.mean() < 0.6
    assert (found.shift.pvals < 0.1).mean() < 0.2


def test_empirical_p_values():
    controls = np.arange(1, 10, dtype=float)
    assert empirical_pvalue(100, controls, two_sided=False) == pytest.approx(0.1)
    assert empirical_pvalue(9, controls, two_sided=False) == pytest.approx(0.2)
    assert empirical_pvalue(-5, controls, two_sided=True) == pytest.approx(0.2)
    assert empirical_pvalue(5, controls, two_sided=True) == 1
    assert np.isnan(empirical_pvalue(1, np.array([np.nan]), two_sided=False))
    assert np.isnan(empirical_pvalue(np.nan, controls, two_sided=False))


def test_method_fast_is_for_masking_single_genes(model):
    tokens = cells(20)
    gene = int(tokens[0][2])
    for options in ({"mode": "delete"}, {"mode": "overexpress"}):
        with pytest.raises(ArgumentError, match="fast"):
            perturbation_shifts(model, tokens, [(gene,)], method="fast", **options)
    with pytest.raises(ArgumentError, match="fast"):
        perturbation_shifts(model, tokens, [(gene, 5)], method="fast")
    with pytest.raises(ArgumentError, match=r"mode must be one of.*'knockout'"):
        perturbation_shifts(model, tokens, [(gene,)], mode="knockout")


def test_screen_is_exact_for_the_best_genes(model):
    tokens = cells(35, 20)
    exact = perturbation_scores(model, tokens)
    fast = perturbation_scores(model, tokens, method="fast")
    screened = perturbation_scores(model, tokens, method="screen", n_exact=5)
    for start, stop in zip(tokens.indptr[:-1], tokens.indptr[1:]):
        part = slice(start + 1, stop)
        best = np.argsort(-fast[part])[:5]
        others = np.setdiff1d(np.arange(stop - start - 1), best)
        np.testing.assert_allclose(screened[part][best], exact[part][best], rtol=1e-3)
        np.testing.assert_array_equal(screened[part][others], fast[part][others])
