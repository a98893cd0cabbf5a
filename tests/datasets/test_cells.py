"""The real cells that ship: what their docstrings say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

from sccello_tools import datasets
from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@pytest.mark.parametrize("load", [datasets.pancreas_tritschler, datasets.pbmc3k_subsample])
def test_cells_are_labelled_counts(load: Callable[[], AnnData]) -> None:
    adata = load()
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.data, np.round(adata.X.data))
    assert adata.X.data.min() > 0
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    ontology = CellOntology.load()
    pairs = adata.obs[["cell_type_ontology_term_id", "cell_type"]].drop_duplicates()
    for term, name in pairs.itertuples(index=False):
        assert ontology.current(term) == term
        assert ontology.name(term) == name


def test_pbmc3k_subsample_has_at_most_ninety_of_a_label() -> None:
    counts = datasets.pbmc3k_subsample().obs["original_label"].value_counts()
    assert counts.max() == 90
    assert counts["Dendritic"] == 36
    assert counts["Megakaryocytes"] == 13
