"""Marker scores of cells, without a model."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import linregress

import sccello_tools as sccello
from sccello_tools.annotation import Background, CellMarkers
from sccello_tools.errors import ArgumentError, LabelError, NotCountsError
from sccello_tools.tl import score_markers
from sccello_tools.tokens import GeneVocabulary, match_gene_names

TERMS = ["CL:0000169", "CL:0000171", "CL:0000236"]
KEY = "sccello_marker_scores"


@pytest.fixture
def cells():
    return sccello.datasets.pancreas_tritschler()[:20].copy()


def expected_scores(adata, markers: dict[str, list[str]]) -> np.ndarray:
    """t-values of scipy's linear regression of standardised expression on marker weights, gene by gene."""
    table = CellMarkers.from_dict(markers).table
    tokens = match_gene_names(adata.var_names).tokens
    counts = np.zeros((adata.n_obs, 25_427))
    dense = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
    for column in np.flatnonzero(tokens >= 0):
        counts[:, tokens[column]] += dense[:, column]
    background = Background.load()
    usable = np.zeros(25_427, dtype=bool)
    usable[tokens[tokens >= 0]] = True
    usable &= background.sd > 0
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    z = np.clip((x - background.mean) / (background.sd + 0.1), -1, 6)[:, usable]
    token_of = GeneVocabulary.load().token_of
    out = np.zeros((adata.n_obs, len(markers)))
    for i, term in enumerate(sorted(markers)):
        weight = np.zeros(25_427)
        rows = table[table["cell_type_ontology_term_id"] == term]
        weight[[token_of[gene] for gene in rows["gene_id"]]] = rows["weight"]
        for cell in range(adata.n_obs):
            fit = linregress(weight[usable], z[cell])
            out[cell, i] = fit.slope / fit.stderr
    return out


def test_scores_are_t_values(cells):
    markers = {
        "CL:0000169": ["INS", "IAPP", "PDX1"],
        "CL:0000171": ["GCG", "ARX"],
        "CL:0000236": ["MS4A1"],
    }
    score_markers(cells, markers)
    assert cells.obsm[KEY].columns.tolist() == sorted(markers)
    np.testing.assert_allclose(
        cells.obsm[KEY], expected_scores(cells, markers), rtol=2e-3, atol=2e-3
    )


def test_every_kind_of_matrix_and_chunk_gives_the_same(cells, tmp_path, write_zarr, monkeypatch):
    score_markers(cells, terms=TERMS)
    expected = cells.obsm[KEY].to_numpy()
    dask_array = pytest.importorskip("dask.array")
    monkeypatch.setattr("sccello_tools.tl._score_markers._CHUNK", 7)
    x = cells.X
    others = {
        "csc": sparse.csc_matrix(x),
        "dense": x.toarray(),
        "dask": dask_array.from_array(x.toarray(), chunks=(6, 500)),
    }
    for name, matrix in others.items():
        other = anndata.AnnData(matrix, obs=cells.obs[[]], var=cells.var)
        score_markers(other, terms=TERMS)
        np.testing.assert_allclose(other.obsm[KEY], expected, rtol=1e-4, atol=1e-4, err_msg=name)
    plain = anndata.AnnData(x, obs=cells.obs[[]], var=cells.var)
    plain.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r+")
    score_markers(backed, terms=TERMS)
    np.testing.assert_allclose(backed.obsm[KEY], expected, rtol=1e-4, atol=1e-4)
    backed.file.close()


def test_a_table_and_a_dict_of_markers(cells):
    markers = {"type B pancreatic cell": ["INS", "IAPP", "no such gene"], "CL:0000171": ["GCG"]}
    rows = [(term, gene) for term, genes in markers.items() for gene in genes]
    score_markers(cells, markers)
    score_markers(cells, pd.DataFrame(rows, columns=["cell_type", "symbol"]), key_added="table")
    pd.testing.assert_frame_equal(cells.obsm[KEY], cells.obsm["table"])
    beta = cells.obs["cell_type"] == "type B pancreatic cell"
    assert (
        cells.obsm[KEY].loc[beta, "CL:0000169"].mean()
        > cells.obsm[KEY].loc[~beta, "CL:0000169"].mean()
    )
    assert cells.uns[KEY]["n_measured"].tolist() == [2, 1]


def test_genes_that_are_not_measured_do_not_count(cells):
    markers = {"CL:0000169": ["INS", "IAPP"], "CL:0000171": ["GCG"]}
    without = cells[
        :, cells.var_names[match_gene_names(cells.var_names).gene_ids != "ENSG00000115263"]
    ].copy()
    score_markers(without, markers)
    assert (without.obsm[KEY]["CL:0000171"] == 0).all()  # glucagon was its only marker
    expected = expected_scores(without, {"CL:0000169": ["INS", "IAPP"]})[:, 0]
    np.testing.assert_allclose(without.obsm[KEY]["CL:0000169"], expected, rtol=2e-3, atol=2e-3)


def test_cells_without_counts_have_no_scores(cells):
    cells.X = cells.X.multiply(np.arange(20)[:, None] != 3).tocsr()
    score_markers(cells, terms=TERMS)
    assert cells.obsm[KEY].isna().all(axis=1).tolist() == [i == 3 for i in range(20)]


def test_terms(cells):
    score_markers(cells, terms="pancreatic endocrine cell")
    below = sccello.ontology.CellOntology.load().descendants("CL:0008024")
    assert set(cells.obsm[KEY]) <= set(below)
    assert {"CL:0000169", "CL:0000171"} <= set(cells.obsm[KEY])
    with pytest.raises(LabelError, match="have no markers: CL:0000255"):
        score_markers(cells, terms=["B cell", "CL:0000255"])
    with pytest.raises(LabelError, match="flux"):
        score_markers(cells, {"flux capacitor": ["INS"]})


def test_invalid_input(cells):
    for markers in ({"B cell": ["not a gene"]}, {}, [("B cell", "CD19")], {"B cell": "CD19"}):
        with pytest.raises(ArgumentError):
            score_markers(cells, markers)
    cells.X = cells.X * 0.5
    with pytest.raises(NotCountsError):
        score_markers(cells, terms=TERMS)
    assert KEY not in cells.obsm


def test_a_copy_and_the_disk(cells, tmp_path):
    changed = score_markers(cells, terms=TERMS, copy=True)
    assert KEY not in cells.obsm
    changed.write_h5ad(tmp_path / "cells.h5ad")
    back = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(back.obsm[KEY], changed.obsm[KEY])
