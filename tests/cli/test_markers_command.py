"""`sccello markers`, on a few made-up cells and a tiny model."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello


@pytest.fixture
def markers(run):
    return lambda *arguments: run("--quiet", "markers", *arguments)


@pytest.fixture
def source(adata, tmp_path):
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.fixture
def options(tiny_model_folder):
    return ("--model", tiny_model_folder, "--cells", 2, "--method", "fast")


def test_a_table_with_a_line_for_each_group_and_gene(markers, source, adata, tmp_path, options):
    code, printed, _ = markers(
        source, "-o", tmp_path / "m.csv", "--groupby", "donor", "--genes", 4, *options, "--json"
    )
    assert code == 0
    said = json.loads(printed)
    table = pd.read_csv(tmp_path / "m.csv")
    assert table["group"].tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert said["cells"] == {"a": 10, "b": 10, "c": 10}
    expected = adata.copy()
    sccello.tl.marker_genes(expected, "donor", model=options[1], method="fast", n_cells_per_group=2)
    best = sccello.get.marker_genes_df(expected, n_genes=4)
    assert table["names"].tolist() == best["names"].tolist()
    np.testing.assert_allclose(table["scores"], best["scores"], rtol=1e-4)
    assert said["top"]["a"] == table["symbol"][:4].tolist()


def test_an_h5ad_that_scanpy_reads(markers, source, tmp_path, options):
    out = tmp_path / "m.h5ad"
    code, printed, _ = markers(source, "-o", out, "--groupby", "donor", *options)
    assert code == 0
    assert "uns['sccello_marker_genes']" in printed
    back = anndata.read_h5ad(out)
    import scanpy as sc

    frame = sc.get.rank_genes_groups_df(back, "a", key="sccello_marker_genes")
    assert len(frame) == back.n_vars


def test_numbered_clusters(markers, adata, tmp_path, options):
    adata.obs["leiden"] = np.arange(adata.n_obs) % 3
    adata.write_h5ad(tmp_path / "in.h5ad")
    arguments = (tmp_path / "in.h5ad", "--groupby", "leiden", *options)
    assert markers(*arguments, "-o", tmp_path / "m.csv", "--reference", 1)[0] == 0
    assert set(pd.read_csv(tmp_path / "m.csv")["group"]) == {0, 2}
    code, _, said = markers(*arguments, "-o", tmp_path / "n.csv", "--reference", 5)
    assert code == 1
    assert "'5'" in said


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--groupby", "leiden"], 1, "--groupby: obs has no column 'leiden'"),
        (["--groupby", "donor", "--reference", "z"], 1, "'z'"),
        (["--groupby", "donor", "--method", "exact"], 2, "'exact'"),
        ([], 2, "--groupby"),
    ],
)
def test_errors(markers, source, tmp_path, options, arguments, code, says):
    found, printed, said = markers(source, "-o", tmp_path / "m.csv", *options, *arguments)
    assert (found, printed) == (code, "")
    assert says in " ".join(said.split())
    assert "Traceback" not in said
    assert not (tmp_path / "m.csv").exists()


def test_an_existing_table_is_kept(markers, source, tmp_path, options):
    (tmp_path / "m.tsv").write_text("precious")
    code, _, said = markers(source, "-o", tmp_path / "m.tsv", "--groupby", "donor", *options)
    assert code == 1
    assert "--overwrite" in said
    assert (tmp_path / "m.tsv").read_text() == "precious"
