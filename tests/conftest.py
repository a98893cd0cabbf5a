"""Fixtures that several folders of tests share; all of them small."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sccello_tools.data import GeneVocabulary

N_CELLS, N_GENES = 30, 900


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the numbers that the published code printed."""
    return Path(__file__).parent / "data" / "golden"


@pytest.fixture(scope="session")
def dense_counts() -> np.ndarray:
    """Made-up raw counts, float32 (30, 900), between 0 and 200, none of the cells empty."""
    rng = np.random.default_rng(7)
    depth = rng.uniform(0.2, 3, size=(N_CELLS, 1))
    abundance = rng.lognormal(-1, 1.5, size=(1, N_GENES))
    return np.minimum(rng.poisson(depth * abundance), 200).astype(np.float32)


@pytest.fixture(scope="session")
def gene_ids() -> list[str]:
    """Ensembl ids of `dense_counts`' columns, in no order."""
    genes = GeneVocabulary.load().gene_ids
    return np.random.default_rng(8).choice(genes, N_GENES, replace=False).tolist()


@pytest.fixture
def adata(dense_counts: np.ndarray, gene_ids: list[str]) -> anndata.AnnData:
    """AnnData of `dense_counts` as CSR, with Ensembl ids; a test may change it."""
    obs = pd.DataFrame(
        {"donor": pd.Categorical(["a", "b", "c"] * (N_CELLS // 3))},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    return anndata.AnnData(
        sparse.csr_matrix(dense_counts), obs=obs, var=pd.DataFrame(index=gene_ids)
    )


@pytest.fixture
def zarr_v3():
    """Let anndata write zarr's current format, of which it would otherwise say that it is about to become the default."""
    pytest.importorskip("zarr")
    with anndata.settings.override(zarr_write_format=3):
        yield
