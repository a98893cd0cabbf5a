from __future__ import annotations

import dataclasses
import json

import pytest

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
        ConfigError,
        match=r"Unknown settings of PretrainConfig: 'lr', 'epochs'\. Known are: .*'tau'",
    ):
        PretrainConfig.from_dict({"lr": 1e-3, "epochs": 2, "max_steps": 5})


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
    ("changes", "says"),
    [
        *(
            ({name: 0}, f"{name} is 0; expected is at least 1")
            for name in (
                "hidden_size",
                "n_layers",
                "n_heads",
                "intermediate_size",
                "max_steps",
                "batch_cells",
            )
        ),
        ({"hidden_size": 130}, r"hidden_size \(130\) must be a multiple of n_heads \(4\)"),
        ({"max_length": 1}, "max_length is 1; a cell needs at least 2 tokens"),
        ({"batch_cells": 1}, "batch_cells is 1, but ontology alignment compares"),
        ({"dropout": 1.0}, r"dropout is 1\.0; expected is a share from 0 to below 1"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
        ({"attention_dropout": 1.5}, r"attention_dropout is 1\.5"),
        (
            {"mask_probability": 1.01},
            r"mask_probability is 1\.01; expected is a number from 0 to 1",
        ),
        ({"balance": -1}, "balance is -1"),
        ({"tau": 0}, r"tau \(0\), learning_rate .* must be above 0"),
        ({"learning_rate": -1e-3}, r"learning_rate \(-0\.001\)"),
        ({"initializer_range": 0}, r"initializer_range \(0\)"),
        ({"embedding_std": 0}, "embedding_std is 0; expected is a number above 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1; expected is 0 or more"),
        ({"gradient_clip": -1}, "gradient_clip is -1"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"weight_coherence": -1}, "weight_coherence is -1"),
        ({"n_negatives": 0}, "n_negatives is 0; expected is at least 1, or None"),
        ({"precision": "float16"}, "precision is 'float16'; expected is 'float32' or 'bfloat16'"),
        ({"source_weights": {"a": 0.7, "b": 0.4}}, "shares that add up to at most 1"),
        ({"source_weights": {"a": -0.1}}, "shares that add up to at most 1"),
        (
            {
                f"weight_{name}": 0
                for name in ("masked_gene", "alignment", "coherence", "regularization")
            },
            "there is nothing to learn",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        PretrainConfig(**changes)


def test_one_cell_a_batch_without_alignment():
    assert PretrainConfig(batch_cells=1, weight_alignment=0).batch_cells == 1


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PretrainConfig().max_steps = 3
