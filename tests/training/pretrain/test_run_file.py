"""Settings as YAML: what is written is read, and what is wrong is told."""

from __future__ import annotations

import dataclasses

import pytest

from sccello_tools.cli._pretrain import shipped
from sccello_tools.errors import ConfigError
from sccello_tools.training.pretrain import PretrainConfig
from sccello_tools.training.pretrain.run_file import RunFile


@pytest.mark.parametrize(
    "config",
    [
        PretrainConfig(),
        PretrainConfig.published(),
        PretrainConfig(source_weights={"a b": 0.5}, learning_rate=1e-5, batch_tokens=4096),
    ],
)
def test_a_configuration_is_read_as_written(config, tmp_path):
    config.to_yaml(tmp_path / "config.yaml")
    assert PretrainConfig.from_yaml(tmp_path / "config.yaml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_what_is_left_out_keeps_its_default(tmp_path):
    (tmp_path / "config.yaml").write_text("max_steps: 7\n")
    assert PretrainConfig.from_yaml(tmp_path / "config.yaml") == PretrainConfig(max_steps=7)
    (tmp_path / "config.yaml").write_text("")
    assert PretrainConfig.from_yaml(tmp_path / "config.yaml") == PretrainConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("learning_rat: 0.1", r"'learning_rat' \(did you mean 'learning_rate'\?\)"),
        ("learning_rate: 1e-3", r"learning_rate is '1e-3'; expected is float \(YAML wants 1.0e-3"),
        ("max_steps: 2.5", "max_steps is 2.5; expected is int"),
        ("second_pass: 1", "second_pass is 1; expected is bool"),
        ("hidden_size: true", "hidden_size is True; expected is int"),
        ("dropout: 2", "dropout is 2; expected is a share"),
        ("monitor: loss", "monitor is 'loss'; expected is 'knn_accuracy' or 'nmi'"),
        ("batch_tokens: 700", "batch_tokens is 700; expected is at least 1024"),
        ("divergence: 0.5", "divergence is 0.5; expected is above 1, or 0"),
        ("patience: 0", "patience is 0; expected is at least 1"),
        ("- 1\n- 2", "holds list; expected are names and values"),
        ("a: [", "is no YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_what_is_wrong_is_told(text, says, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        PretrainConfig.from_yaml(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        PretrainConfig.from_yaml(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "config"), [("published", PretrainConfig.published()), ("small", PretrainConfig())]
)
def test_run_files_that_ship(name, config, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(shipped(name))
    run = RunFile.read(path)
    assert run.config == config
    assert run.data == {"cells": tmp_path / "corpus"}
    # every setting is in it, so that it can be read as a table of what there is
    assert all(f"\n  {item.name}:" in shipped(name) for item in dataclasses.fields(config))


def test_there_is_no_other_run_file():
    with pytest.raises(ConfigError, match="There is no run file 'huge'; there are 'published', 's"):
        shipped("huge")


def test_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: [a.h5ad, /elsewhere/b]\nout: model\nloggers: csv\n")
    run = RunFile.read(path)
    assert {name: str(p) for name, p in run.data.items()} == {
        "a": str(tmp_path / "a.h5ad"),
        "b": "/elsewhere/b",
    }
    assert run.checkpoints == tmp_path / "model" / "checkpoints"
    assert run.loggers == ("csv",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("out: model", "data must be given"),
        ("config: {}", "data and out must be given"),
        ("data: a\nout: b\nstratgy: ddp", r"'stratgy' \(did you mean 'strategy'\?\)"),
        ("data: a\nout: b\nconfig: {lr: 1}", "Unknown settings of PretrainConfig: 'lr'"),
        ("data: a\nout: b\nconfig: 3", "config is 3; expected are names and values"),
        ("data: {a: 3}\nout: b", r"data is \{'a': 3\}; expected is a path"),
        ("data: a\nout: b\nnum_nodes: 0", "num_nodes is 0; expected is a whole number from 1"),
        ("data: a\nout: b\nweights_dtype: int8", "weights_dtype is 'int8'"),
    ],
)
def test_what_is_wrong_with_a_run_is_told(text, says, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        RunFile.read(path)
