from __future__ import annotations

import json

import pytest

from sccello_tools.errors import ConfigError
from sccello_tools.nn import EncoderConfig


def test_round_trip():
    config = EncoderConfig(hidden_size=64, n_heads=2, tau=0.05)
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.head_dim == 32


def test_published_names(golden_folder):
    config = EncoderConfig.from_dict(json.loads((golden_folder / "config.json").read_text()))
    expected = EncoderConfig(
        hidden_size=32,
        n_layers=3,
        n_heads=4,
        intermediate_size=64,
        dropout=0.0,
        attention_dropout=0.0,
        tau=0.05,
    )
    assert config == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True; only False"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ],
)
def test_published_config_of_another_model(golden_folder, change, message):
    values = json.loads((golden_folder / "config.json").read_text())
    with pytest.raises(ConfigError, match=message):
        EncoderConfig.from_dict(values | change)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 25426}, "Geneformer"),
        ({"model_type": "bert", "vocab_size": 20275, "num_hidden_layers": 12}, "Geneformer"),
        ({"embsize": 512, "nheads": 8, "nlayers": 12, "d_hid": 512}, "scGPT"),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "GPT2LMHeadModel"),
        ({"model_type": "t5", "num_hidden_layers": 2}, "'t5'"),
    ],
)  # fmt: skip
def test_other_architectures_are_named(values, name):
    with pytest.raises(ConfigError, match=rf"{name}.*not scCello.*models\.list"):
        EncoderConfig.from_dict(values)


def test_published_config_without_a_size(golden_folder):
    values = json.loads((golden_folder / "config.json").read_text())
    del values["hidden_size"], values["vocab_size"]
    with pytest.raises(ConfigError, match=r"lacks \['vocab_size', 'hidden_size'\]"):
        EncoderConfig.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden_size": 64}, "hiden_size.*hidden_size"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_layers": "6"}, "n_layers is '6'.*integer"),
        ({"n_heads": True}, "n_heads is True.*integer"),
        ({"dropout": 1.0}, r"dropout is 1\.0.*less than 1"),
        ({"attention_dropout": "0.1"}, "attention_dropout is '0.1'"),
        ({"tau": 0}, "tau is 0.*greater than 0"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"hidden_size": 256, "n_heads": 3}, "hidden_size 256 is not a multiple of n_heads 3"),
        ({"vocab_size": 100}, "vocab_size 100.*cls_token_id"),
        ({"mask_token_id": 0}, "mask.*three different ids"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ConfigError, match=message):
        EncoderConfig.from_dict(values)
