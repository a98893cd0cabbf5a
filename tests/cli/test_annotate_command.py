"""`sccello annotate`, on shipped cells."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.cli import app


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
    assert again.exit_code == 1
    assert "--overwrite" in again.output


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


def test_one_candidate_stands_for_its_descendants(files, tmp_path):
    out = tmp_path / "out.h5ad"
    result = call(files / "query.h5ad", "-o", out, "--candidate", "pancreatic endocrine cell")
    assert result.exit_code == 0, result.output
    below = sccello.ontology.CellOntology.load().descendants("CL:0008024")
    terms = anndata.read_h5ad(out).obs["sccello_cell_type_ontology_term_id"]
    assert set(terms) <= below


def test_a_tissue_is_recorded(files, tmp_path):
    out = tmp_path / "out.h5ad"
    result = call(files / "query.h5ad", "-o", out, "--tissue", "pancreas", "--json")
    assert result.exit_code == 0, result.output
    assert list(anndata.read_h5ad(out).uns["sccello_cell_type"]["tissue"]) == ["pancreas"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--reference", "r.h5ad", "--label-key", "x", "--tissue", "blood"], "--tissue"),
        (["--reference", "r.h5ad", "--label-key", "x", "--candidate", "T cell"], "--candidate"),
        (["--reference", "r.h5ad"], "--label-key"),
        (["--label-key", "x"], "--reference"),
        (["--level", "broad"], "'broad'"),
    ],
)
def test_options_that_cannot_be_combined(files, tmp_path, options, says):
    result = call(files / "query.h5ad", "-o", tmp_path / "out.h5ad", *options)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out.h5ad").exists()


def test_numbered_clusters_as_groups_and_as_labels(files, tmp_path):
    """Leiden clusters that were saved as integers."""
    query, reference = (anndata.read_h5ad(files / f"{n}.h5ad") for n in ("query", "reference"))
    query.obs["leiden"] = np.arange(query.n_obs) % 3
    reference.obs["leiden"] = np.arange(reference.n_obs) % 2 + 7
    query.write_h5ad(tmp_path / "q.h5ad")
    reference.write_h5ad(tmp_path / "r.h5ad")
    out = tmp_path / "out.h5ad"
    result = call(tmp_path / "q.h5ad", "-o", out, "--groupby", "leiden")
    assert result.exit_code == 0, result.output
    found = anndata.read_h5ad(out).obs
    assert (
        found.groupby("leiden", observed=True)["sccello_cell_type_cluster"].nunique() == 1
    ).all()
    options = ["--reference", tmp_path / "r.h5ad", "--label-key", "leiden", "--overwrite"]
    result = call(tmp_path / "q.h5ad", "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert set(anndata.read_h5ad(out).obs["sccello_cell_type"]) <= {"7", "8"}


def test_a_column_that_does_not_exist(files, tmp_path):
    result = call(files / "query.h5ad", "-o", tmp_path / "out.h5ad", "--groupby", "leiden")
    assert result.exit_code == 1
    assert "--groupby: obs has no column 'leiden'" in result.output


FIELDS = {
    "title": "Islets",
    "assay_ontology_term_id": "EFO:0009899",
    "development_stage_ontology_term_id": "unknown",
    "disease_ontology_term_id": "PATO:0000461",
    "donor_id": "@donor",
    "is_primary_data": "false",
    "self_reported_ethnicity_ontology_term_id": "unknown",
    "sex_ontology_term_id": "unknown",
    "suspension_type": "@suspension",
    "tissue_ontology_term_id": "UBERON:0000006",
    "tissue_type": "tissue",
}


def settings(**changes):
    values = {**FIELDS, **changes}
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


@pytest.mark.filterwarnings("ignore:.*not genes of GENCODE")
def test_files_for_archives(files, tmp_path):
    out, cas = tmp_path / "out.h5ad", tmp_path / "cas.json"
    options = ["--cellxgene", "--cas", cas, *settings(author_name="Ada Lovelace")]
    result = call(files / "query.h5ad", "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "cellxgene-schema validate" in result.output
    obs = anndata.read_h5ad(out).obs
    cells = anndata.read_h5ad(files / "query.h5ad")
    assert obs["donor_id"].astype(str).tolist() == cells.obs["donor"].astype(str).tolist()
    assert (obs["cell_type_ontology_term_id"] == obs["sccello_cell_type_ontology_term_id"]).all()
    document = json.loads(cas.read_text())
    counted = {a["cell_label"]: len(a["cell_ids"]) for a in document["annotations"]}
    assert counted == obs["sccello_cell_type"].value_counts().to_dict()


def test_missing_fields_are_reported_before_the_annotation(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sccello.tl, "annotate_novel", None)  # would fail if it were called
    out = tmp_path / "out.h5ad"
    result = call(files / "query.h5ad", "-o", out, "--cellxgene", "--set", "tissue_type=tissue")
    assert result.exit_code == 1
    assert "10 required fields" in result.output
    assert "--set NAME=VALUE" in result.output
    result = call(files / "query.h5ad", "-o", out, "--cas", tmp_path / "cas.json")
    assert result.exit_code == 1
    assert "author_name is missing" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "title=x"], "--cellxgene"),
        (["--cellxgene", "--set", "title"], "NAME=VALUE"),
        (["--cellxgene", "--workers", "1"], "--cellxgene applies to a single file"),
        (["--cellxgene", "-o", "out.zarr"], ".h5ad files only"),
    ],
)
def test_options_of_archives(files, tmp_path, options, says):
    result = call(files / "query.h5ad", "-o", tmp_path / "out.h5ad", *options)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())
