"""`sccello annotate`, on shipped cells."""

from __future__ import annotations

import json

import anndata
import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.__main__ import app


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    cells = sccello.datasets.pancreas_tritschler()
    cells[::12].copy().write_h5ad(folder / "query.h5ad")
    cells[1::5].copy().write_h5ad(folder / "reference.h5ad")
    return folder


def call(*arguments):
    return CliRunner().invoke(app, ["--quiet", "annotate", *map(str, arguments)])


def test_terms_are_written_and_counted(files, tmp_path):
    out = tmp_path / "out.h5ad"
    result = call(files / "query.h5ad", "-o", out, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    back = anndata.read_h5ad(out)
    assert summary["cells"] == summary["annotated"] == back.n_obs == sum(summary["types"].values())
    assert back.obs["sccello_cell_type"].value_counts()[next(iter(summary["types"]))] > 0
    assert sum(summary["status"].values()) == back.n_obs
    again = call(files / "query.h5ad", "-o", out)
    assert isinstance(again.exception, FileExistsError)


def test_from_a_reference(files, tmp_path):
    out = tmp_path / "out.h5ad"
    result = call(
        files / "query.h5ad",
        *("-o", out, "--reference", files / "reference.h5ad", "--label-key", "cell_type"),
    )
    assert result.exit_code == 0, result.output
    assert "cells annotated" in result.stdout
    back = anndata.read_h5ad(out)
    assert back.uns["sccello_cell_type"]["method"] == "nearest reference cells"


def test_one_candidate_stands_for_all_below(files, tmp_path):
    out = tmp_path / "out.h5ad"
    result = call(files / "query.h5ad", "-o", out, "--candidate", "pancreatic endocrine cell")
    assert result.exit_code == 0, result.output
    below = sccello.ontology.CellOntology.load().descendants("CL:0008024")
    terms = anndata.read_h5ad(out).obs["sccello_cell_type_ontology_term_id"]
    assert set(terms) <= below


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--level", "deep"], "--level is 'deep'"),
        (["--reference", "x.h5ad", "--candidate", "B cell"], "brings its own labels"),
    ],
)
def test_options_that_do_not_go(files, tmp_path, options, says):
    result = CliRunner().invoke(
        app,
        ["annotate", str(files / "query.h5ad"), "-o", str(tmp_path / "o.h5ad"), *options],
        env={"COLUMNS": "200"},
    )
    assert result.exit_code == 2
    assert says in result.output
    assert not (tmp_path / "o.h5ad").exists()


def test_a_tissue_rules_types_of_other_organs_out(files, tmp_path):
    out = tmp_path / "out.h5ad"
    result = call(files / "query.h5ad", "-o", out, "--tissue", "pancreas", "--json")
    assert result.exit_code == 0, result.output
    assert list(anndata.read_h5ad(out).uns["sccello_cell_type"]["tissue"]) == ["pancreas"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--reference", "r.h5ad", "--label-key", "x", "--tissue", "blood"], "leave --tissue out"),
        (
            ["--reference", "r.h5ad", "--label-key", "x", "--candidate", "T cell"],
            "leave --candidate out",
        ),
        (["--reference", "r.h5ad"], "--label-key must name the column"),
        (["--level", "broad"], "expected is 'auto' or 'type'"),
    ],
)
def test_options_that_do_not_go_together(files, tmp_path, options, says):
    result = call(files / "query.h5ad", "-o", tmp_path / "out.h5ad", *options)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out.h5ad").exists()
