"""`get.annotation_df`: one row per cell or per group."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.errors import ArgumentError, GroupError, NotFoundError
from sccello_tools.get import annotation_df
from sccello_tools.tokens import GeneVocabulary, match_gene_names

NAMES = ["B cell", "T cell"]
STATUSES = ["known", "novel_subtype", "unknown"]


@pytest.fixture
def adata():
    adata = anndata.AnnData(np.zeros((6, 1), dtype=np.float32))
    types = ["T cell", "T cell", "B cell", "B cell", None, "T cell"]
    ids = {"T cell": "CL:0000084", "B cell": "CL:0000236"}
    adata.obs["sccello_cell_type"] = pd.Categorical(types, categories=NAMES)
    adata.obs["sccello_cell_type_ontology_term_id"] = pd.Categorical([ids.get(t) for t in types])
    adata.obs["sccello_cell_type_confidence"] = np.float32([0.9, 0.7, 0.5, 0.6, np.nan, 0.2])
    status = ["known", "known", "novel_subtype", "unknown", None, "known"]
    adata.obs["sccello_cell_type_status"] = pd.Categorical(status, categories=STATUSES)
    adata.obs["sccello_novelty"] = np.float32([0, 1, 2, 3, np.nan, 1])
    adata.obs["donor"] = pd.Categorical(list("aaabbb"), categories=["b", "a", "none"])
    return adata


def test_one_row_per_cell(adata):
    table = annotation_df(adata)
    assert table.index.equals(adata.obs_names)
    assert table["cell_type"].isna().tolist() == [False] * 4 + [True, False]
    assert table["ontology_term_id"].iloc[:3].tolist() == ["CL:0000084", "CL:0000084", "CL:0000236"]
    assert list(table["status"].cat.categories) == STATUSES
    np.testing.assert_array_equal(table["novelty"], adata.obs["sccello_novelty"])
    assert table["confidence"].dtype == np.float32


def test_one_row_per_group(adata):
    table = annotation_df(adata, "donor")
    assert table.index.tolist() == ["b", "a", "none"]
    assert table.index.name == "donor"
    a, b, empty = table.loc["a"], table.loc["b"], table.loc["none"]
    assert (a["n_cells"], a["cell_type"], a["ontology_term_id"]) == (3, "T cell", "CL:0000084")
    assert a["fraction"] == pytest.approx(2 / 3)
    assert a["confidence"] == pytest.approx(0.7)
    assert a["novelty"] == pytest.approx(1)
    assert [a[s] for s in STATUSES] == pytest.approx([2 / 3, 1 / 3, 0])
    # equally frequent types: the first by name; a cell without annotation counts
    assert (b["n_cells"], b["cell_type"]) == (3, "B cell")
    assert b["fraction"] == pytest.approx(1 / 3)
    assert [b[s] for s in STATUSES] == pytest.approx([1 / 3, 0, 1 / 3])
    assert empty["n_cells"] == 0
    assert pd.isna(empty["cell_type"])
    assert np.isnan(empty["fraction"])


def test_an_annotation_without_status_and_novelty_under_another_key(adata):
    adata.obs["mine"] = ["x"] * 6
    table = annotation_df(adata, key="mine")
    assert (table["cell_type"] == "x").all()
    assert table[["ontology_term_id", "confidence", "status"]].isna().all().all()
    assert table.columns.tolist() == annotation_df(adata).columns.tolist()


def test_numbered_groups(adata):
    adata.obs["leiden"] = [10, 2, 2, 10, 2, 2]
    assert annotation_df(adata, "leiden").index.tolist() == ["2", "10"]


def test_missing_columns(adata):
    with pytest.raises(NotFoundError, match=r"'other'.*key=.*tl\.annotate_novel"):
        annotation_df(adata, key="other")
    with pytest.raises(GroupError, match=r"'cluster'.*'donor'.*groupby="):
        annotation_df(adata, "cluster")


def test_evidence_and_markers_of_cells_and_groups():
    adata = sccello.datasets.pancreas_tritschler()[::6].copy()
    sccello.tl.annotate_novel(adata)
    cells = annotation_df(adata, n_markers=2)
    contributions = adata.obsm["sccello_cell_type_evidence"]
    for source in ("embedding", "ontology", "markers", "prior"):
        np.testing.assert_array_equal(cells[source], contributions[source])
    assert cells["supporting_markers"].str.count(",").max() == 1
    beta = cells["cell_type"] == "type B pancreatic cell"
    assert (cells.loc[beta, "supporting_markers"].str.contains("INS")).mean() > 0.9
    # a gene without a count is missing, one with a count supports
    match, symbols = match_gene_names(adata.var_names), GeneVocabulary.load().symbol_of
    columns: dict[str, list[int]] = {}
    for column, gene in enumerate(match.gene_ids.tolist()):
        columns.setdefault(symbols.get(gene, gene), []).append(column)
    counts = adata.X[:20].toarray()
    for genes, detected in (("supporting_markers", True), ("missing_markers", False)):
        for row, names in enumerate(cells[genes].iloc[:20]):
            for symbol in filter(None, names.split(", ")):
                assert (counts[row, columns[symbol]].sum() > 0) == detected
    groups = annotation_df(adata, "cell_type", n_markers=3)
    assert groups.loc["pancreatic A cell", "supporting_markers"].startswith("GCG")
    own = cells[
        (adata.obs["cell_type"] == "pancreatic A cell")
        & (cells["cell_type"] == "pancreatic A cell")
    ]
    assert groups.loc["pancreatic A cell", "markers"] == pytest.approx(
        own["markers"].mean(), rel=1e-4
    )
    assert annotation_df(adata, n_markers=0)["supporting_markers"].isna().all()
    adata.X = adata.X * 0.3
    assert annotation_df(adata)["supporting_markers"].isna().all()
    with pytest.raises(ArgumentError, match="n_markers must be >= 0"):
        annotation_df(adata, n_markers=-1)


def test_a_group_has_the_term_of_its_cluster():
    adata = sccello.datasets.pancreas_tritschler()[::6].copy()
    sccello.tl.annotate_novel(adata, groupby="cell_type")
    table = annotation_df(adata, "cell_type", n_markers=0)
    expected = adata.obs.groupby("cell_type", observed=True)["sccello_cell_type_cluster"].first()
    assert table["cell_type"].to_dict() == expected.astype(str).to_dict()
