"""Starting a run from the weights of another."""

from __future__ import annotations

import pytest
import torch

from sccello_tools.errors import ConfigError
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.training.pretrain.warm_start import start_from

T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"


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
    with pytest.raises(
        ConfigError, match=r"another size \(there, here\): \{'hidden_size': \(16, 8\)"
    ):
        start_from(ours, [T_CELL], earlier=network(2, hidden_size=16), earlier_types=[T_CELL])
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())
