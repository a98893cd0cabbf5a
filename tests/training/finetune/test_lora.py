from __future__ import annotations

import copy

import torch

from sccello_tools.nn import sdpa_attention
from sccello_tools.training.finetune.lora import PROJECTIONS, add_lora, merge_lora

IDS = torch.tensor([25426, 7, 9, 4, 25426, 5, 11])
BOUNDS = torch.tensor([0, 4, 7], dtype=torch.int32)


def rows(network):
    return network.encode(IDS, BOUNDS, 4, attention=sdpa_attention)


def with_updates(network):
    """A copy with updates that do something."""
    changed = copy.deepcopy(network)
    add_lora(changed, rank=2, alpha=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if name.endswith(".up"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return changed


def test_initial_update_is_zero(network):
    before = rows(network)
    add_lora(network, rank=4, alpha=8)
    assert torch.equal(rows(network), before)


def test_two_low_rank_matrices_per_projection_are_trained(network):
    add_lora(network, rank=3, alpha=6)
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    expected = {
        f"encoder.layers.{layer}.{name}.parametrizations.weight.0.{side}"
        for layer in range(2)
        for name in PROJECTIONS
        for side in ("up", "down")
    }
    assert set(trained) == expected
    assert {min(p.shape) for p in trained.values()} == {3}
    # the last layer computes <cls> by another way, which must see the update too
    rows(network)[0, 0].backward()
    assert all(
        p.grad.abs().sum() > 0
        for n, p in trained.items()
        if n.endswith("qkv.parametrizations.weight.0.up")
    )


def test_merging_preserves_the_embedding(network):
    changed = with_updates(network)
    before = rows(changed)
    assert not torch.allclose(before, rows(network), atol=1e-2)
    merge_lora(changed)
    assert torch.allclose(rows(changed), before, atol=1e-5)
    assert set(changed.state_dict()) == set(network.state_dict())
    assert all(p.requires_grad for p in changed.parameters())
    assert type(changed.encoder.layers[0].qkv) is torch.nn.Linear


def test_the_update_is_alpha_over_rank_times_up_down(network):
    changed = with_updates(network)
    update = changed.encoder.layers[1].feed_forward_in.parametrizations.weight[0]
    expected = network.encoder.layers[1].feed_forward_in.weight + 2 * update.up @ update.down
    merge_lora(changed)
    assert torch.allclose(changed.encoder.layers[1].feed_forward_in.weight, expected, atol=1e-6)


def test_rank_is_limited_by_the_matrix(network):
    add_lora(network, rank=100, alpha=200)
    update = network.encoder.layers[0].qkv.parametrizations.weight[0]
    assert update.down.shape == (16, 16)
    assert update.scale == 2


def test_merging_without_updates_changes_nothing(network):
    before = copy.deepcopy(network.state_dict())
    merge_lora(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
