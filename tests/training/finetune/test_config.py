from __future__ import annotations

import pytest

from sccello_tools.errors import ConfigError
from sccello_tools.training.finetune import FinetuneConfig
from sccello_tools.training.finetune.config import MODES, check_mode


def test_default_schedule_depends_on_the_mode():
    config = FinetuneConfig()
    assert config.rate("linear") > config.rate("lora") > config.rate("full") > 0
    assert config.epochs("linear") > config.epochs("full") >= 1
    given = FinetuneConfig(learning_rate=0.5, max_epochs=7)
    assert {(given.rate(mode), given.epochs(mode)) for mode in MODES} == {(0.5, 7)}


def test_round_trip_through_plain_values():
    config = FinetuneConfig(lora_rank=3, monitor="loss")
    assert FinetuneConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"'lora_ranks' \(did you mean 'lora_rank'\?\)"):
        FinetuneConfig.from_dict({"lora_ranks": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"max_epochs": 0},
        {"patience": 0},
        {"lora_rank": 0},
        {"lora_alpha": 0},
        {"weight_decay": -1},
        {"balance": 2},
        {"dropout": 1},
        {"validation": 0},
        {"validation": 1.0},
        {"monitor": "f1"},
        {"precision": "half"},
    ],
)
def test_invalid_values_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=name) as error:
        FinetuneConfig(**wrong)
    assert str(value) in str(error.value)


def test_unknown_mode_lists_the_modes():
    with pytest.raises(ConfigError, match=r"'linear'.*'lora'.*'full'.*'probe'"):
        check_mode("probe")
