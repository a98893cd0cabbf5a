from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

TERMS = {"CL:0000084": "T cell", "CL:0000236": "B cell"}


@pytest.fixture
def annotated(adata):
    """Cells with the columns that tl.annotate_novel writes; the second has no annotation."""
    from sccello_tools.export.gencode import accepted_ids

    adata = adata[:, accepted_ids(adata.var_names.tolist()) != ""].copy()
    rng = np.random.default_rng(0)
    terms = np.array(list(TERMS))[np.arange(adata.n_obs) % 2].astype(object)
    terms[1] = np.nan
    adata.obs["sccello_cell_type_ontology_term_id"] = pd.Categorical(terms)
    adata.obs["sccello_cell_type"] = pd.Categorical([TERMS.get(term) for term in terms])
    confidence = rng.random(adata.n_obs).astype(np.float32)
    confidence[1] = np.nan
    adata.obs["sccello_cell_type_confidence"] = confidence
    status = np.where(np.arange(adata.n_obs) < 10, "unknown", "known").astype(object)
    status[1] = np.nan
    adata.obs["sccello_cell_type_status"] = pd.Categorical(status)
    adata.obsm["X_sccello"] = rng.normal(size=(adata.n_obs, 4)).astype(np.float32)
    adata.uns["sccello_cell_type"] = {
        "model": "tiny",
        "weights_sha256": "abc",
        "method": "known types",
    }
    return adata


@pytest.fixture
def values():
    return {
        "title": "Synthetic cells",
        "assay_ontology_term_id": "EFO:0009922",
        "development_stage_ontology_term_id": "unknown",
        "disease_ontology_term_id": "PATO:0000461",
        "donor_id": "@donor",
        "is_primary_data": False,
        "self_reported_ethnicity_ontology_term_id": "unknown",
        "sex_ontology_term_id": "PATO:0000383",
        "suspension_type": "cell",
        "tissue_ontology_term_id": "UBERON:0000178",
        "tissue_type": "tissue",
    }
