"""`sccello drug` from file to file."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.cli import app

KEY = "sccello_drug_response"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "in.h5ad"
    sccello.datasets.pancreas_tritschler()[:24].copy().write_h5ad(path)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, ["--quiet", "drug", *map(str, arguments)])


def test_predictions_for_groups(source, tmp_path):
    out = tmp_path / "out.h5ad"
    done = run(source, "-o", out, "--groupby", "cell_type", "--center", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    groups = sccello.get.drug_response_df(anndata.read_h5ad(out))
    assert (said["groups"], said["drugs"]) == groups.shape
    assert said["predicted"] == said["groups"]
    assert said["model"] == "gdsc-small"


def test_cells_and_named_drugs(source, tmp_path):
    out = tmp_path / "out.h5ad"
    done = run(source, "-o", out, "--drug", "erlotinib", "--drug", "Gefitinib")
    assert done.exit_code == 0, done.output
    assert "Erlotinib" in done.stdout
    table = anndata.read_h5ad(out).obsm[KEY]
    assert table.columns.tolist() == ["Erlotinib", "Gefitinib"]
    assert np.isfinite(table.to_numpy()).all()


def test_new_drugs_by_smiles(source, tmp_path):
    done = run(
        source, "-o", tmp_path / "o.h5ad", "--groupby", "cell_type", "--smiles", "ethanol=CCO"
    )
    assert done.exit_code == 0, done.output
    assert anndata.read_h5ad(tmp_path / "o.h5ad").uns[KEY]["drugs"].tolist() == ["ethanol"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smiles", "CCO"], "NAME=SMILES"),
        (["--center"], "--groupby"),
        (["--smiles", "a=CCO", "--drug", "Erlotinib"], "--drug"),
    ],
)
def test_options_that_cannot_be_combined(source, tmp_path, options, message):
    done = run(source, "-o", tmp_path / "o.h5ad", *options)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ").replace("│", "")
    assert not (tmp_path / "o.h5ad").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drug", "Unobtainin"], "'Unobtainin'"),
        (["--smiles", "a=C1CC"], "C1CC"),
        (["--groupby", "cluster"], "'cluster'"),
    ],
)
def test_errors_leave_no_file(source, tmp_path, options, message):
    done = run(source, "-o", tmp_path / "o.h5ad", *options)
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "o.h5ad").exists()
