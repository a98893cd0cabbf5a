"""`sccello report` from counts and from an annotated file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello


@pytest.fixture
def report(run):
    return lambda *arguments: run("--quiet", "report", *arguments)


def test_from_counts_to_a_page(report, tmp_path):
    cells = sccello.datasets.pancreas_tritschler()[::8].copy()
    cells.write_h5ad(tmp_path / "islets.h5ad")
    before = (tmp_path / "islets.h5ad").read_bytes()
    out = tmp_path / "new" / "islets.html"
    code, printed, said = report(
        *(tmp_path / "islets.h5ad", "-o", out, "--label-key", "cell_type", "--batch-key", "donor"),
        *("--cells", 2, "--json"),
    )
    assert code == 0, said
    summary = json.loads(printed)
    assert summary["cells"] == cells.n_obs == sum(summary["types"].values())
    assert summary["bytes"] == out.stat().st_size
    assert summary["markers"]
    page = out.read_text(encoding="utf-8")
    assert "<title>islets</title>" in page
    for section in (
        "composition",
        "samples",
        "umap",
        "confidence",
        "labels",
        "markers",
        "parameters",
    ):
        assert f'<section id="{section}"' in page
    assert "INS" in page  # insulin, a marker of B cells
    assert (tmp_path / "islets.h5ad").read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["islets.html"]


@pytest.fixture
def annotated(adata, tmp_path):
    """Annotated and with a UMAP, so that no model is needed."""
    names = np.array(["B cell", "neuron"])
    adata.obs["sccello_cell_type"] = pd.Categorical(names[np.arange(30) % 2])
    adata.obs["mine"] = pd.Categorical(["cluster 1", "cluster 2", "cluster 3"] * 10)
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(30, 2))
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def test_existing_results_are_shown(report, annotated, tmp_path):
    out = tmp_path / "page.html"
    code, printed, _ = report(
        *(annotated, "-o", out, "--no-markers", "--title", "A & B", "--model", "none-such")
    )
    assert code == 0
    assert printed.startswith(f"{out}: 30 cells, 2 cell types, ")
    assert "<h1>A &amp; B</h1>" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--label-key", "celltype"], 1, "--label-key: obs has no column 'celltype'"),
        (["--batch-key", "batch"], 1, "--batch-key: obs has no column 'batch'"),
        (
            ["--label-key", "mine"],
            1,
            "obs['mine']",
        ),
        (["--genes", "0"], 2, "Invalid value"),
    ],
)
def test_errors(report, annotated, tmp_path, arguments, code, says):
    found, printed, said = report(annotated, "-o", tmp_path / "x.html", "--no-markers", *arguments)
    assert (found, printed) == (code, "")
    assert says in " ".join(said.split())
    assert "Traceback" not in said
    assert not (tmp_path / "x.html").exists()


def test_an_existing_page_is_kept(report, annotated, tmp_path):
    (tmp_path / "x.html").write_text("precious")
    code, _, said = report(annotated, "-o", tmp_path / "x.html", "--no-markers")
    assert code == 1
    assert "--overwrite" in said
    assert report(annotated, "-o", tmp_path / "x.html", "--no-markers", "--overwrite")[0] == 0
