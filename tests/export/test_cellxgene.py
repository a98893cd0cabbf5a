from __future__ import annotations

import os
import shutil
import subprocess

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sccello_tools.errors import NotFoundError, SchemaError
from sccello_tools.export import cellxgene
from sccello_tools.files import write_any

VALIDATOR = os.environ.get("SCCELLO_CELLXGENE_SCHEMA") or shutil.which("cellxgene-schema")


def normalised(adata):
    found = adata.X.copy().astype(np.float32)
    found.data = np.log1p(found.data / 7)
    return found


def test_types_genes_and_counts(annotated, values):
    ready = cellxgene(annotated, values)
    types = ready.obs["cell_type_ontology_term_id"].astype(str)
    own = annotated.obs["sccello_cell_type_ontology_term_id"].astype(object)
    assert types.tolist() == own.fillna("unknown").tolist()
    assert types.iloc[1] == "unknown"
    assert ready.var_names.tolist() == annotated.var_names.tolist()
    assert ready.uns["organism_ontology_term_id"] == "NCBITaxon:9606"
    assert not ready.var["feature_is_filtered"].any()
    assert ready.X.dtype == np.float32
    assert ready.X.format == "csr"
    assert (ready.X != annotated.X).nnz == 0
    assert ready.raw is None
    assert ready.uns["sccello_cell_type"]["model"] == "tiny"
    assert "sccello_cell_type_confidence" in ready.obs
    assert list(ready.obsm) == ["X_sccello"]


def test_terms_that_name_no_type(annotated, values):
    terms = annotated.obs["sccello_cell_type_ontology_term_id"].astype(object)
    terms.iloc[2:5] = ["CL:0000255", "my type", ""]  # eukaryotic cell
    annotated.obs["sccello_cell_type_ontology_term_id"] = pd.Categorical(terms)
    found = cellxgene(annotated, values).obs["cell_type_ontology_term_id"]
    assert (found.iloc[1:5] == "unknown").all()
    assert (found.iloc[5:] != "unknown").all()


def test_reserved_names(annotated, values):
    annotated.obs["cell_type_ontology_term_id"] = "CL:0000540"
    annotated.obs["cell_type"] = "neuron"
    annotated.obs["assay"] = "10x 3' v3"  # derived by the portal from the next column
    annotated.obs["assay_ontology_term_id"] = "EFO:0009922"
    annotated.obs["sex"] = "female"
    annotated.obs["__index"] = 1
    annotated.obs["score"] = pd.array([1, None] * 15, dtype="Int64")
    annotated.obs["mixed"] = ["a", np.nan] * 15
    obs = cellxgene(annotated, values).obs
    assert set(obs["author_cell_type_ontology_term_id"]) == {"CL:0000540"}
    assert set(obs["author_cell_type"]) == {"neuron"}
    assert set(obs["author_sex"]) == {"female"}
    assert not {"assay", "author_assay", "cell_type", "sex", "__index"} & set(obs)
    assert "index" in obs
    assert obs["score"].dtype == np.float64
    assert obs["mixed"].isna().sum() == 15
    for name in obs:
        assert obs[name].dtype != object


def test_genes_that_are_not_accepted(annotated, values):
    names = annotated.var_names.tolist()
    names[0] = "ENSG00000005955"  # retired
    names[1] = f"{names[1]}.7"
    names[2] = "no gene"
    names[3] = names[4]  # repeats a gene
    annotated.var_names = names
    totals = np.asarray(annotated.X.sum(axis=0)).ravel()
    with pytest.warns(UserWarning, match=r"2 of .* variables .*'no gene'.* and 1 repeat") as caught:
        ready = cellxgene(annotated, values)
    assert len([w for w in caught if "left out" in str(w.message)]) == 1
    assert ready.n_vars == annotated.n_vars - 3
    assert ready.var_names[0] == names[1].removesuffix(".7")
    assert ready.var["original_name"].iloc[0] == names[1]
    kept = int(3 + totals[3:5].argmax())
    assert ready[:, names[4]].X.sum() == totals[kept]


def test_counts_in_a_layer(annotated, values):
    annotated.layers["counts"] = annotated.X.copy()
    annotated.X = normalised(annotated)
    ready = cellxgene(annotated, values, layer="counts")
    assert (annotated.layers["counts"] != ready.raw.X).nnz == 0
    np.testing.assert_allclose(ready.X.toarray(), annotated.X.toarray(), rtol=1e-6)
    assert "feature_is_filtered" not in ready.raw.var
    assert not ready.layers


def test_counts_in_raw_with_more_genes(annotated, values):
    annotated.raw = annotated
    part = annotated[:, 100:].copy()
    part.X = normalised(part)
    ready = cellxgene(part, values, layer="raw.X")
    assert ready.var_names.tolist() == annotated.var_names.tolist()
    assert ready.var["feature_is_filtered"].tolist() == [True] * 100 + [False] * part.n_vars
    assert (ready.raw.X != annotated.raw.X).nnz == 0
    assert ready.X[:, :100].nnz == 0
    np.testing.assert_allclose(ready.X[:, 100:].toarray(), part.X.toarray(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "csc", "int", "zeros"])
def test_any_matrix(annotated, values, kind):
    expected = annotated.X.toarray()
    if kind == "zeros":
        annotated.X = sparse.csr_matrix((np.append(annotated.X.data, 0), np.append(annotated.X.indices, 1), np.append(annotated.X.indptr[:-1], annotated.X.nnz + 1)), annotated.shape)  # fmt: skip
        expected = annotated.X.toarray()
    else:
        annotated.X = {
            "dense": expected,
            "csc": sparse.csc_matrix(expected),
            "int": annotated.X.astype(np.int64),
        }[kind]
    before = annotated.copy()
    ready = cellxgene(annotated, values)
    np.testing.assert_array_equal(ready.X.toarray(), expected)
    assert ready.X.format == "csr"
    assert (ready.X.data != 0).all()
    assert annotated.X.dtype == before.X.dtype


def test_cells_without_counts_are_left_out(annotated, values):
    annotated.X = sparse.csr_matrix(annotated.X.toarray() * (np.arange(30) != 4)[:, None])
    with pytest.warns(UserWarning, match="1 of 30 cells have no counts"):
        ready = cellxgene(annotated, values)
    assert ready.n_obs == 29
    assert annotated.obs_names[4] not in ready.obs_names


def test_embeddings_that_are_not_accepted(annotated, values):
    annotated.obsm["X_one"] = np.ones((30, 1))
    annotated.obsm["X_inf"] = np.full((30, 2), np.inf)
    annotated.obsm["other"] = np.ones((30, 2))
    annotated.obsm["X_table"] = pd.DataFrame({"a": np.ones(30)}, index=annotated.obs_names)
    annotated.obsm["X_umap"] = np.ones((30, 2))
    annotated.uns["donor_colors"] = ["#000000"]
    annotated.uns["empty"] = {}
    ready = cellxgene(annotated, {**values, "default_embedding": "X_umap"})
    assert set(ready.obsm) == {"X_sccello", "X_umap"}
    assert ready.uns["default_embedding"] == "X_umap"
    assert not {"donor_colors", "empty"} & set(ready.uns)
    with pytest.raises(SchemaError, match=r"'X_tsne'.*X_umap"):
        cellxgene(annotated, {**values, "default_embedding": "X_tsne"})
    for key in list(annotated.obsm):
        del annotated.obsm[key]
    with pytest.raises(SchemaError, match=r"tl\.embed"):
        cellxgene(annotated, values)


def test_refusals(annotated, values):
    with pytest.raises(SchemaError, match="11 required fields"):
        cellxgene(annotated)
    with pytest.raises(NotFoundError, match=r"tl\.annotate_novel"):
        cellxgene(annotated, values, key="other")
    doubled = annotated.copy()
    doubled.X = sparse.vstack([doubled.X[:29], doubled.X[:1]]).tocsr()
    with pytest.raises(SchemaError, match=r"1 cells have the same counts.*'cell29'"):
        cellxgene(doubled, values)
    fractions = annotated.copy()
    fractions.X = normalised(fractions)
    with pytest.raises(SchemaError, match="layer="):
        cellxgene(fractions, values)


def test_mouse_genes_are_refused(annotated, values):
    from sccello_tools.tokens.orthologs import MouseOrthologs

    symbols = list(MouseOrthologs.load().genes_by_symbol)[: annotated.n_vars]
    annotated.var_names = symbols
    with pytest.raises(SchemaError, match="mouse"):
        cellxgene(annotated, values)


@pytest.mark.slow
@pytest.mark.skipif(
    VALIDATOR is None,
    reason="cellxgene-schema not found; install it, or set SCCELLO_CELLXGENE_SCHEMA to its path",
)
@pytest.mark.parametrize("layer", [None, "raw.X"])
def test_the_validator_accepts_the_file(annotated, values, tmp_path, layer):
    annotated.obs["cell_type"] = "neuron"
    annotated.obs["n"] = np.arange(30)
    annotated.var_names = ["ENSG00000005955", *annotated.var_names[1:]]
    if layer is not None:
        annotated.raw = annotated
        annotated = annotated[:, 20:].copy()
        annotated.X = normalised(annotated)
    with pytest.warns(UserWarning, match="GENCODE"):
        ready = cellxgene(annotated, values, layer=layer)
    path = tmp_path / "cells.h5ad"
    write_any(ready, path)
    assert anndata.read_h5ad(path).shape == ready.shape
    done = subprocess.run(
        [str(VALIDATOR), "validate", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is_valid=True" in done.stderr
    if layer is None:  # the validator sees what is wrong
        ready.obs["tissue_ontology_term_id"] = pd.Categorical(["UBERON:9999999"] * 30)
        write_any(ready, path)
        done = subprocess.run(
            [str(VALIDATOR), "validate", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
