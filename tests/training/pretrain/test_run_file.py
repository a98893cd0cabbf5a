"""Configurations and runs as YAML: round trips and errors."""

from __future__ import annotations

import pytest

from sccello_tools.cli._pretrain import bundled_run
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
        ("learning_rate: 1e-3", r"learning_rate.*'1e-3'.*1\.0e-3"),
        ("max_steps: 2.5", r"max_steps.*2\.5"),
        ("- 1\n- 2", "list"),
        ("a: [", "not a valid YAML file"),
        ("a: !!python/object/apply:os.system ['true']", "not a valid YAML file"),
    ],
)
def test_errors_name_file_and_setting(text, says, tmp_path):
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
    path.write_text(bundled_run(name))
    run = RunFile.read(path)
    assert run.config == config
    assert run.data == {"cells": tmp_path / "corpus"}
    # it lists all settings
    assert all(f"\n  {item}:" in bundled_run(name) for item in type(config).model_fields)
    assert all(f"\n{item}:" in bundled_run(name) for item in type(run).model_fields)


def test_unknown_bundled_run_lists_those_that_exist():
    with pytest.raises(ConfigError, match=r"'huge'.*'published', 'small'"):
        bundled_run("huge")


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


def test_start_from_is_a_folder_next_to_the_file_or_a_name(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: a.h5ad\nout: model\nstart_from: first\n")
    assert RunFile.read(path).start_from == "first"
    (tmp_path / "first").mkdir()
    assert RunFile.read(path).start_from == str(tmp_path / "first")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("out: model", "'data' is missing"),
        ("config: {}", "'data' is missing; 'out' is missing"),
        ("data: a\nout: b\nstratgy: ddp", r"'stratgy' \(did you mean 'strategy'\?\)"),
        ("data: a\nout: b\nconfig: {n_layer: 1}", r"'n_layer' \(did you mean 'n_layers'\?\)"),
        ("data: a\nout: b\nconfig: 3", "config.*3"),
        ("data: {a: 3}\nout: b", r"data.*\{'a': 3\}"),
        ("data: a\nout: b\nnum_nodes: 0", "num_nodes is 0"),
        ("data: a\nout: b\nweights_dtype: int8", "weights_dtype is 'int8'"),
        ("data: a\nout: b\nloggers: [csv, mlflow]", "loggers.*'mlflow'"),
        ("data: a\nout: b\nbatch_cells: 5\ntau: 0.1", "batch_cells, tau.*under config"),
        ("data: a\nout: b\nconfig: {n_workers: 2}", "n_workers.*top level"),
    ],
)
def test_errors_in_a_run(text, says, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        RunFile.read(path)
