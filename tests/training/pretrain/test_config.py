from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from sccello_tools.errors import ConfigError
from sccello_tools.nn import EncoderConfig
from sccello_tools.training.pretrain import PretrainConfig


def test_round_trip_through_json():
    config = PretrainConfig(hidden_size=32, n_negatives=None, source_weights={"a": 0.25})
    assert PretrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    changed = config.to_dict()
    changed["source_weights"]["a"] = 1.0
    assert config.source_weights == {"a": 0.25}


def test_unknown_names_are_an_error():
    with pytest.raises(
        ConfigError, match=r"'lr'.*'max_stepps' \(did you mean 'max_steps'\?\).*tau"
    ):
        PretrainConfig.from_dict({"lr": 1e-3, "max_stepps": 2})


def test_numbers_of_numpy_are_numbers():
    config = PretrainConfig(max_steps=np.int64(7), tau=np.float32(0.5))
    assert (config.max_steps, config.tau) == (7, 0.5)
    assert json.dumps(config.to_dict())


def test_published_is_the_size_of_the_paper():
    published = PretrainConfig.published()
    paper = EncoderConfig()
    assert published.max_length == paper.max_positions
    for name in (
        "hidden_size",
        "n_layers",
        "n_heads",
        "intermediate_size",
        "dropout",
        "attention_dropout",
        "tau",
        "initializer_range",
    ):
        assert getattr(published, name) == getattr(paper, name), name
    assert published.n_negatives is None
    assert published.second_pass
    assert published.embedding_std is None


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {name: 0}
            for name in (
                "hidden_size", "n_layers", "n_heads", "intermediate_size", "max_steps", "batch_cells",
                "length_buckets", "accumulate", "buffer_cells", "validate_every", "patience", "n_negatives",
                "tau", "learning_rate", "initializer_range", "embedding_std",
            )
        ),
        *({name: -1} for name in ("balance", "warmup_steps", "gradient_clip", "weight_decay", "seed", "weight_coherence")),
        {"hidden_size": 130},
        {"max_length": 1},
        {"batch_cells": 1},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"attention_dropout": 1.5},
        {"mask_probability": 1.01},
        {"learning_rate": -1e-3},
        {"learning_rate": float("nan")},
        {"tau": float("inf")},
        {"precision": "float16"},
        {"monitor": "loss"},
        {"batch_tokens": 700},
        {"divergence": 0.5},
        {"source_weights": {"a": 0.7, "b": 0.4}},
        {"source_weights": {"a": -0.1}},
        {"max_steps": 2.5},
        {"max_steps": True},
        {"second_pass": 1},
    ],
)  # fmt: skip
def test_invalid_values_are_named(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ConfigError, match=name) as error:
        PretrainConfig(**changes)
    found = value["a"] if name == "source_weights" else value
    assert str(found) in str(error.value)


def test_all_weights_zero():
    names = ("masked_gene", "alignment", "coherence", "regularization")
    with pytest.raises(ConfigError, match="weight_masked_gene, weight_alignment"):
        PretrainConfig(**{f"weight_{name}": 0 for name in names})


def test_one_cell_a_batch_without_alignment():
    assert PretrainConfig(batch_cells=1, weight_alignment=0).batch_cells == 1


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        PretrainConfig().max_steps = 3
