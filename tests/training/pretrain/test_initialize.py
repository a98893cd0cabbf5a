"""Initial weights: spectral gene embeddings, and the weights of another model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sccello_tools.errors import ConfigError
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.training.pretrain.initialize import (
    spectral_gene_vectors,
    start_from,
    start_spectral,
)

T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"


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


def network(seed: int, **changes: int) -> ScCelloModel:
    torch.manual_seed(seed)
    size = {"hidden_size": 8, "n_layers": 1, "n_heads": 2, "n_prototypes": 4, "max_positions": 8}
    return ScCelloModel(EncoderConfig(vocab_size=30, cls_token_id=29, **{**size, **changes}))


def test_weights_are_those_of_the_earlier_model() -> None:
    ours, earlier = network(1), network(2)
    start_from(ours, [T_CELL, B_CELL], earlier=earlier, earlier_types=[T_CELL, B_CELL])
    for name, value in earlier.state_dict().items():
        if name != "learned_centroid.weight":
            assert torch.equal(ours.state_dict()[name], value), name


def test_prototypes_follow_their_type() -> None:
    ours, earlier = network(1), network(2, n_prototypes=6)
    fresh = ours.learned_centroid.weight.detach().clone()
    start_from(ours, [NEURON, B_CELL, T_CELL], earlier=earlier, earlier_types=[T_CELL, B_CELL])
    rows = ours.learned_centroid.weight
    assert torch.equal(rows[0], fresh[0])  # the earlier model knew no neuron
    assert torch.equal(rows[1], earlier.learned_centroid.weight[1])
    assert torch.equal(rows[2], earlier.learned_centroid.weight[0])


def test_another_size_is_refused_and_nothing_is_changed() -> None:
    ours = network(1)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ConfigError, match=r"another size.*hidden_size 16 instead of 8"):
        start_from(ours, [T_CELL], earlier=network(2, hidden_size=16), earlier_types=[T_CELL])
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())
