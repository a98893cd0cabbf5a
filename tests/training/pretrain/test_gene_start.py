from __future__ import annotations

import numpy as np
import pytest
import torch

from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.training.pretrain.gene_start import spectral_gene_vectors, start_spectral


@pytest.fixture
def two_programmes(make_tokens):
    """Cells that express either genes 10 to 29 or genes 30 to 49, in any order; gene 60 in two cells only."""
    rng = np.random.default_rng(0)
    cells = [
        np.array([99, *rng.permutation(np.arange(10, 30) + 20 * (cell % 2))[:12]])
        for cell in range(80)
    ]
    cells[0] = np.append(cells[0], 60)
    cells[1] = np.append(cells[1], 60)
    return make_tokens(cells)


def test_genes_of_a_programme_lie_together(two_programmes):
    found = spectral_gene_vectors(two_programmes, vocab_size=100, d=4, seed=0)
    unit = found.vectors / 2  # rows have the length sqrt(4)
    one, other = unit[10:30], unit[30:50]
    within = np.concatenate([(one @ one.T).ravel(), (other @ other.T).ravel()]).mean()
    assert within > (one @ other.T).mean() + 0.3
    np.testing.assert_allclose(np.linalg.norm(found.vectors[10:50], axis=1), 2, rtol=1e-5)


def test_rare_genes_and_cls_are_not_seen(two_programmes):
    found = spectral_gene_vectors(two_programmes, vocab_size=100, d=4, seed=0)
    assert np.flatnonzero(found.seen).tolist() == list(range(10, 50))
    assert not found.vectors[~found.seen].any()


def test_same_seed_same_vectors(two_programmes):
    first, second = (
        spectral_gene_vectors(two_programmes, vocab_size=100, d=4, seed=3) for _ in range(2)
    )
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_network_keeps_what_was_drawn_for_unseen_genes(two_programmes):
    torch.manual_seed(0)
    network = ScCelloModel(
        EncoderConfig(vocab_size=100, cls_token_id=99, hidden_size=4, n_heads=2, n_layers=1)
    )
    before = network.word_embeddings.detach().clone()
    start_spectral(network, two_programmes, std=0.2, seed=0)
    changed = (network.word_embeddings.detach() != before).any(1)
    assert changed.nonzero().squeeze(1).tolist() == list(range(10, 50))


def test_few_cells_give_few_axes(make_tokens):
    rng = np.random.default_rng(0)
    cells = make_tokens([np.array([99, *rng.permutation(np.arange(10, 22))]) for _ in range(6)])
    found = spectral_gene_vectors(cells, vocab_size=100, d=16, seed=0)
    assert found.seen.sum() == 12
    assert np.linalg.matrix_rank(found.vectors) <= 5


def test_nothing_to_learn_from_is_nothing_seen(make_tokens):
    alike = make_tokens([np.array([99, *range(10, 20)])] * 6)
    found = spectral_gene_vectors(alike, vocab_size=100, d=16, seed=0)
    assert not found.seen.any()
