from __future__ import annotations

import pytest

from sccello_tools.errors import ConfigError
from sccello_tools.training.finetune import FinetuneConfig
from sccello_tools.training.finetune.config import MODES, check_mode


def test_each_mode_has_a_schedule_and_a_given_one_wins():
    config = FinetuneConfig()
    assert config.rate("linear") > config.rate("lora") > config.rate("full") > 0
    assert config.epochs("linear") > config.epochs("full") >= 1
    given = FinetuneConfig(learning_rate=0.5, max_epochs=7)
    assert {(given.rate(mode), given.epochs(mode)) for mode in MODES} == {(0.5, 7)}


def test_goes_to_plain_values_and_back():
    config = FinetuneConfig(lora_rank=3, monitor="loss")
    assert FinetuneConfig.from_dict(config.to_dict()) == config
    with pytest.raises(
        ConfigError, match=r"Unknown settings: \['rank'\]\. Known are: .*'lora_rank'"
    ):
        FinetuneConfig.from_dict({"rank": 3})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0; expected is a number above 0, or None"),
        ({"max_epochs": 0}, "max_epochs is 0; expected is at least 1"),
        ({"patience": 0}, "patience is 0"),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"weight_decay": -1}, "weight_decay is -1; expected is 0 or more"),
        ({"balance": 2}, "balance is 2; expected is a number from 0 to 1"),
        ({"dropout": 1}, "dropout is 1; expected is a share"),
        ({"held_out": 0}, "held_out is 0; expected is a share between 0 and 1"),
        ({"monitor": "f1"}, r"monitor is 'f1'; expected is one of \('macro_f1', 'loss'\)"),
        ({"precision": "half"}, "precision is 'half'"),
    ],
)
def test_what_cannot_be(wrong, says):
    with pytest.raises(ConfigError, match=says):
        FinetuneConfig(**wrong)


def test_an_unknown_mode_names_those_that_there_are():
    with pytest.raises(
        ConfigError, match=r"mode is 'probe'; expected is 'linear' .*'lora' .*'full'"
    ):
        check_mode("probe")
