"""``sccello pretrain``: from a YAML file to a model, and on from its checkpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.cli import app

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "hidden_size": 8, "n_layers": 1, "n_heads": 2, "max_length": 32, "max_steps": 4,
    "batch_cells": 6, "n_negatives": 32, "stream": True,
}  # fmt: skip


def run(*arguments: str):
    return CliRunner().invoke(app, ["--quiet", "pretrain", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cells = sccello.datasets.pancreas_tritschler()[:80].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    sccello.pp.build_corpus(tmp_path / "cells.h5ad", tmp_path / "corpus", cells_per_shard=30)
    values = {"data": {"study": "corpus"}, "out": "model", "checkpoint_every": 2, "config": CONFIG}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def test_a_file_trains_a_model_and_resumes(folder: Path) -> None:
    path = str(folder / "run.yaml")
    result = run(path, "--json", "--devices", "1")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["steps"] == 4
    model = sccello.models.load(folder / "model")
    assert model.entry.training_data.n_cells == 80
    curve = pd.read_csv(folder / "model" / "training_curve.csv")
    assert curve["step"].tolist() == [1, 2, 3, 4]
    refused = run(path)
    assert refused.exit_code == 1
    assert "--resume" in refused.output
    again = run(path, "--resume")
    assert again.exit_code == 0, again.output
    resumed = pd.read_csv(folder / "model" / "training_curve.csv")
    pd.testing.assert_frame_equal(resumed, curve)


def test_overwriting_starts_from_the_first_step(folder: Path) -> None:
    path = str(folder / "run.yaml")
    assert run(path).exit_code == 0
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(text.replace("max_steps: 4", "max_steps: 3"))
    assert run(path).exit_code == 1
    result = run(path, "--overwrite")
    assert result.exit_code == 0, result.output
    curve = pd.read_csv(folder / "model" / "training_curve.csv")
    assert curve["step"].tolist() == [1, 2, 3]


def test_h5ad_files_with_options(folder: Path) -> None:
    values = yaml.safe_load((folder / "run.yaml").read_text())
    del values["config"]["stream"]
    values |= {"data": ["cells.h5ad"], "validation": "cells.h5ad", "min_matched": 10, "counts": "trust"}  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    result = run(str(folder / "run.yaml"))
    assert result.exit_code == 0, result.output


def test_the_published_run_is_printed() -> None:
    result = run("--print-config", "published")
    assert result.exit_code == 0
    values = yaml.safe_load(result.stdout)
    assert values["config"]["hidden_size"] == 256
    wrong = run("--print-config", "huge")
    assert wrong.exit_code == 1
    assert "'published', 'small'" in wrong.output


def test_errors_in_the_run_file(tmp_path: Path) -> None:
    assert run().exit_code == 2
    (tmp_path / "run.yaml").write_text("data: nowhere\nout: model\nconfig: {max_step: 3}\n")
    result = run(str(tmp_path / "run.yaml"))
    assert result.exit_code == 1
    assert "'max_steps'" in result.output
    assert not (tmp_path / "model").exists()
