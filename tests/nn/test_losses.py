"""The vectorised losses compared with loops that follow the definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sccello_tools.nn import (
    coherence_loss,
    mask_tokens,
    masked_gene_loss,
    ontology_alignment_loss,
    ontology_coherence_loss,
    prototype_regularization,
)
from sccello_tools.nn.losses import chunked_cross_entropy

SEEDS = st.integers(0, 10_000)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def unit(*shape, seed):
    return functional.normalize(torch.randn(*shape, generator=seeded(seed)), dim=-1)


def alignment_by_loops(cells, second, levels, ancestors, tau):
    n, terms = len(cells), []
    for i in range(n):
        score = [float(cells[i] @ (second[i] if i == j else cells[j])) / tau for j in range(n)]
        for level in sorted(set(levels[i].tolist())):
            positives = [j for j in range(n) if levels[i, j] >= level]
            negatives = [j for j in range(n) if levels[i, j] < level and not ancestors[i, j]]
            if not negatives:
                continue
            for p in positives:
                total = math.exp(score[p]) + sum(math.exp(score[j]) for j in negatives)
                terms.append(math.log(total) - score[p])
    return sum(terms) / len(terms) if terms else 0.0


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), n_levels=st.integers(1, 6), ancestor_share=st.floats(0, 1), seed=SEEDS)
def test_alignment_loss_is_the_loop(n, n_levels, ancestor_share, seed):
    rng = seeded(seed)
    levels = torch.randint(0, n_levels, (n, n), generator=rng).fill_diagonal_(n_levels)
    ancestors = torch.rand((n, n), generator=rng) < ancestor_share
    cells, second = unit(n, 5, seed=seed), unit(n, 5, seed=seed + 1)
    found = ontology_alignment_loss(cells, second, levels, ancestors, tau=0.2)
    expected = alignment_by_loops(cells, second, levels, ancestors, 0.2)
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_alignment_loss_ignores_the_order_of_cells():
    rng = seeded(0)
    levels = torch.randint(0, 5, (8, 8), generator=rng)
    ancestors = torch.rand((8, 8), generator=rng) < 0.2
    cells, second = unit(8, 5, seed=1), unit(8, 5, seed=2)
    p = torch.randperm(8, generator=rng)
    a = ontology_alignment_loss(cells, second, levels, ancestors, tau=0.1)
    b = ontology_alignment_loss(cells[p], second[p], levels[p][:, p], ancestors[p][:, p], tau=0.1)
    torch.testing.assert_close(a, b)


def test_alignment_loss_pulls_near_types_together():
    levels = torch.tensor([[9, 6, 1], [6, 9, 1], [1, 1, 9]])
    # at the start the first cell lies with the third, whose type is far
    start = torch.tensor([[1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.1]])
    cells = functional.normalize(start, dim=-1).requires_grad_()
    for _ in range(200):
        loss = ontology_alignment_loss(cells, cells, levels, torch.eye(3).bool(), tau=0.1)
        (gradient,) = torch.autograd.grad(loss, cells)
        cells = functional.normalize(cells.detach() - 0.05 * gradient, dim=-1).requires_grad_()
    cosine = cells @ cells.T
    assert cosine[0, 1] > cosine[:2, 2].max() + 0.3


@pytest.mark.parametrize("tau", [0.01, 1e-4])
@pytest.mark.parametrize("level", [[[4, 4], [4, 4]], [[4, 1], [1, 4]]])
@pytest.mark.parametrize("every_type_is_an_ancestor", [True, False])
def test_alignment_loss_is_finite_with_its_gradient(tau, level, every_type_is_an_ancestor):
    cells = unit(2, 3, seed=0).requires_grad_()
    ancestors = torch.full((2, 2), every_type_is_an_ancestor)
    loss = ontology_alignment_loss(cells, cells, torch.tensor(level), ancestors, tau=tau)
    loss.backward()
    assert loss.isfinite()
    assert cells.grad.isfinite().all()
    if every_type_is_an_ancestor or level[0][1] == 4:  # nothing to set against
        assert loss == 0
        assert not cells.grad.any()


def test_alignment_loss_uses_the_second_pass_for_a_cell_with_itself():
    cells = unit(2, 3, seed=0)
    args = torch.tensor([[5, 1], [1, 5]]), torch.eye(2).bool()
    same = ontology_alignment_loss(cells, cells, *args, tau=0.1)
    opposite = ontology_alignment_loss(cells, -cells, *args, tau=0.1)
    assert opposite > same + 5


def dense_gene_loss(hidden, targets, head, words, tau):
    queries = functional.normalize(head(hidden), dim=-1)
    table = functional.normalize(head(words), dim=-1)
    return functional.cross_entropy(queries @ table.T / tau, targets)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 20), v=st.integers(2, 40), max_logits=st.integers(1, 900), seed=SEEDS)
def test_chunked_gene_loss_and_gradients_are_the_dense_ones(m, v, max_logits, seed):
    rng = seeded(seed)
    hidden = torch.randn(m, 6, generator=rng, requires_grad=True)
    words = torch.randn(v, 6, generator=rng, requires_grad=True)
    targets = torch.randint(v, (m,), generator=rng)
    torch.manual_seed(seed)
    head = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6))
    inputs = [hidden, words, *head.parameters()]
    expected = dense_gene_loss(hidden, targets, head, words, 0.1)
    found = masked_gene_loss(
        hidden, targets, head=head, word_embeddings=words, tau=0.1, max_logits=max_logits
    )
    torch.testing.assert_close(found.loss, expected, atol=1e-5, rtol=1e-5)
    # a factor in front of the loss must reach the gradients
    gradients = torch.autograd.grad(3 * found.loss, inputs)
    for a, b in zip(gradients, torch.autograd.grad(3 * expected, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_gene_loss_holds_no_more_logits_than_stated(monkeypatch):
    sizes = []
    product = torch.Tensor.__matmul__

    def watch(a, b):
        out = product(a, b)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", watch)
    queries, table = torch.randn(50, 4, requires_grad=True), torch.randn(30, 4)
    targets = torch.zeros(50, dtype=torch.long)
    chunked_cross_entropy(queries, table, targets, scale=1.0, max_logits=200).loss.backward()
    assert max(sizes) == 180  # 6 rows of 30, the most that stays below 200


def test_gene_loss_at_a_low_temperature_stays_float32_under_autocast():
    hidden, words = torch.randn(9, 16), torch.randn(50, 16)
    targets, same = torch.arange(9), torch.nn.Identity()
    expected = masked_gene_loss(hidden, targets, head=same, word_embeddings=words, tau=0.001).loss
    with torch.autocast("cpu", torch.bfloat16):
        found = masked_gene_loss(hidden, targets, head=same, word_embeddings=words, tau=0.001).loss
    assert torch.equal(found, expected)


def test_accuracy():
    words, same = torch.eye(4), torch.nn.Identity()
    hidden = words[[0, 1, 2, 2]]
    targets = torch.tensor([0, 1, 2, 3])
    genes = masked_gene_loss(hidden, targets, head=same, word_embeddings=words, tau=0.1)
    assert genes.accuracy == 0.75
    assert coherence_loss(hidden, words, targets, tau=0.1).accuracy == 0.75


def test_sampled_negatives_are_a_softmax_over_the_candidates():
    hidden, words = torch.randn(6, 5), torch.randn(40, 5, requires_grad=True)
    targets, same = torch.tensor([3, 3, 9, 20, 21, 39]), torch.nn.Identity()
    found = masked_gene_loss(
        hidden,
        targets,
        head=same,
        word_embeddings=words,
        tau=0.1,
        negatives=8,
        generator=seeded(4),
    )
    drawn = torch.randint(40, (8,), generator=seeded(4))
    candidates = sorted({*targets.tolist(), *drawn.tolist()})
    local = torch.tensor([candidates.index(t) for t in targets.tolist()])
    expected = dense_gene_loss(hidden, local, same, words[candidates], 0.1)
    torch.testing.assert_close(found.loss, expected)
    (gradient,) = torch.autograd.grad(found.loss, words)
    assert gradient.any(1).nonzero().squeeze(1).tolist() == candidates


def test_nothing_masked_is_zero_and_differentiable():
    hidden = torch.zeros(0, 5, requires_grad=True)
    none, same = torch.zeros(0, dtype=torch.long), torch.nn.Identity()
    found = masked_gene_loss(hidden, none, head=same, word_embeddings=torch.eye(5), tau=0.1)
    typed = coherence_loss(hidden, torch.eye(5), none, tau=0.1)
    nothing = torch.zeros(0, 5, dtype=torch.bool)
    deep = ontology_coherence_loss(hidden, torch.eye(5), nothing, nothing, tau=0.1)
    near = prototype_regularization(hidden, torch.eye(5), none, affine=same, tau=0.1)
    (found.loss + typed.loss + deep.loss + near).backward()
    assert found.loss == found.accuracy == typed.loss == typed.accuracy == near == 0
    assert deep.loss == deep.accuracy == 0
    assert hidden.grad.shape == (0, 5)


def test_coherence_ignores_the_length_of_prototypes():
    cells, prototypes = unit(6, 4, seed=0), torch.randn(5, 4, generator=seeded(1))
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    found = coherence_loss(cells, prototypes, targets, tau=0.1).loss
    longer = coherence_loss(cells, prototypes * torch.rand(5, 1).add(1), targets, tau=0.1).loss
    torch.testing.assert_close(found, longer)
    cosine = torch.cosine_similarity(cells[:, None], prototypes[None], dim=-1)
    torch.testing.assert_close(found, functional.cross_entropy(cosine / 0.1, targets))


@given(st.integers(1, 6), st.integers(1, 7), SEEDS)
def test_ontology_coherence_by_its_definition(n_cells, n_types, seed):
    generator = seeded(seed)
    cells, prototypes = unit(n_cells, 4, seed=seed), torch.randn(n_types, 4, generator=generator)
    kind = torch.rand(n_cells, n_types, generator=generator)
    correct, ignored = kind < 0.4, kind > 0.7
    own = torch.randint(n_types, (n_cells,), generator=generator)
    correct[torch.arange(n_cells), own] = True
    ignored &= ~correct
    found = ontology_coherence_loss(cells, prototypes, correct, ignored, tau=0.2)
    terms, hits = [], []
    for i in range(n_cells):
        scores = [
            float(torch.cosine_similarity(cells[i], prototypes[t], dim=0)) / 0.2
            for t in range(n_types)
        ]
        allowed = [t for t in range(n_types) if not ignored[i, t]]
        total = sum(math.exp(scores[t]) for t in allowed)
        terms.append(-math.log(sum(math.exp(scores[t]) for t in allowed if correct[i, t]) / total))
        hits.append(bool(correct[i, max(allowed, key=lambda t: scores[t])]))
    assert found.loss.item() == pytest.approx(sum(terms) / n_cells, rel=1e-4, abs=1e-5)
    assert found.accuracy.item() == pytest.approx(sum(hits) / n_cells)


def test_ontology_coherence_without_hierarchy_is_the_published_loss():
    cells, prototypes = (
        unit(6, 4, seed=0),
        torch.randn(5, 4, generator=seeded(1), requires_grad=True),
    )
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    correct = functional.one_hot(targets, 5).bool()
    nothing = torch.zeros_like(correct)
    found = ontology_coherence_loss(cells, prototypes, correct, nothing, tau=0.1)
    published = coherence_loss(cells, prototypes, targets, tau=0.1)
    torch.testing.assert_close(found.loss, published.loss)
    assert found.accuracy == published.accuracy
    ours, theirs = (torch.autograd.grad(x.loss, prototypes)[0] for x in (found, published))
    torch.testing.assert_close(ours, theirs)


def test_ancestors_get_no_gradient():
    cells, prototypes = (
        unit(1, 4, seed=0),
        torch.randn(3, 4, generator=seeded(1), requires_grad=True),
    )
    correct, ignored = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    ontology_coherence_loss(cells, prototypes, correct, ignored, tau=0.1).loss.backward()
    assert prototypes.grad.abs().sum(1).gt(0).tolist() == [True, False, True]


def test_regularization_is_the_distance_at_published_length():
    cells, prototypes = unit(3, 4, seed=0), torch.randn(5, 4, generator=seeded(1))
    affine, targets = torch.nn.Linear(4, 4), torch.tensor([4, 0, 4])
    found = prototype_regularization(cells, prototypes, targets, affine=affine, tau=0.25)
    squares = [
        (affine(2 * prototypes[t] / prototypes[t].norm()) - 2 * cell).square().sum()
        for cell, t in zip(cells, targets, strict=True)
    ]
    torch.testing.assert_close(found, sum(squares) / 12)


def masked(ids, seed=0, **kwargs):
    return mask_tokens(
        ids,
        generator=seeded(seed),
        mask_id=1,
        protected_ids=(0, 99),
        random_range=(2, 99),
        **kwargs,
    )


def test_masking_shares():
    ids = torch.full((200_000,), 50)
    found = masked(ids)
    now = found.inputs[found.positions]
    assert len(found.positions) / len(ids) == pytest.approx(0.15, abs=0.005)
    assert (now == 1).float().mean() == pytest.approx(0.8, abs=0.01)
    # a random replacement is the same gene once in 97 times
    assert (now == 50).float().mean() == pytest.approx(0.1 + 0.1 / 97, abs=0.01)
    others = now[(now != 1) & (now != 50)]
    assert others.min() == 2
    assert others.max() == 98


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, probability=st.floats(0, 1))
def test_masking_leaves_the_rest(seed, probability):
    ids = torch.randint(0, 100, (300,), generator=seeded(seed + 1))
    before = ids.clone()
    found = masked(ids, seed, probability=probability)
    assert torch.equal(ids, before)
    assert torch.equal(found.targets, ids[found.positions])
    assert not torch.isin(found.targets, torch.tensor([0, 99])).any()
    rest = torch.ones(300, dtype=torch.bool)
    rest[found.positions] = False
    assert torch.equal(found.inputs[rest], ids[rest])
    assert torch.equal(found.inputs, masked(ids, seed, probability=probability).inputs)
