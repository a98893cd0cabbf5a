"""`sccello perturb` from file to table and file."""

from __future__ import annotations

import json

import anndata
import pandas as pd
import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.cli.app import app

INS, GCG = "ENSG00000254647", "ENSG00000115263"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    adata = sccello.datasets.pancreas_tritschler()
    types = ["type B pancreatic cell", "pancreatic A cell"]
    adata = adata[adata.obs["cell_type"].isin(types)][::12].copy()
    path = tmp_path_factory.mktemp("cells") / "in.h5ad"
    adata.write_h5ad(path)
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, ["perturb", *map(str, arguments)])


def test_a_table_with_a_row_for_each_group_and_gene(source, tmp_path):
    out = tmp_path / "shifts.csv"
    result = run(
        source, "-o", out, "--gene", INS, "--gene", f"{INS}+{GCG}", "--groupby", "cell_type",
        "--cells", 3, "--controls", 0, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    assert set(table["symbol"]) == {"INS", "INS+GCG"}
    assert len(table) == 4
    found = json.loads(result.stdout)
    assert found["groups"]["type B pancreatic cell"]["INS"] > 0


def test_a_file_with_the_result(source, tmp_path):
    out = tmp_path / "out.h5ad"
    result = run(
        source, "-o", out, "--gene", GCG, "--mode", "overexpress", "--groupby", "cell_type",
        "--toward", "pancreatic A cell", "--cells", 3, "--controls", 4,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "GCG" in result.stdout
    table = sccello.get.perturbation_df(anndata.read_h5ad(out), "type B pancreatic cell")
    assert table["toward"].iloc[0] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--gene", "nope"], 1, "nope"),
        ([], 2, "--gene"),
        (["--gene", INS, "--groupby", "nothing"], 1, "--groupby"),
        (["--gene", INS, "--toward", "nowhere"], 1, "nowhere"),
    ],
)
def test_mistakes(source, tmp_path, arguments, code, message):
    result = run(source, "-o", tmp_path / "out.csv", *arguments)
    assert result.exit_code == code
    assert message in result.output
    assert not (tmp_path / "out.csv").exists()
