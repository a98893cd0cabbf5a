"""Cells to draw, and pictures to compare with. `SCCELLO_NEW_BASELINES=1 pytest tests/pl/test_images.py` draws the baselines anew: look at them."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from sccello_tools.ontology import CellOntology

BASELINES = Path(__file__).parent / "baseline"
# The font comes with matplotlib. Without hinting its outlines hardly depend on the machine; what is left is for the tolerance.
STYLE = {
    "backend": "agg",
    "font.family": "DejaVu Sans",
    "text.hinting": "none",
    "savefig.dpi": 55,
}
TOLERANCE = 7.0  # root of the mean squared difference, of 255; a colour changed or a label moved gives more, see test_images


@pytest.fixture(scope="session")
def ontology():
    return CellOntology.load()


@pytest.fixture
def cells(ontology):
    """Six types in blobs, with an annotation that is mostly right."""
    rng = np.random.default_rng(0)
    terms = np.array(
        ["CL:0000624", "CL:0000625", "CL:0000236", "CL:0000169", "CL:0000171", "CL:0000540"]
    )
    codes = np.repeat(np.arange(6), 30)
    adata = anndata.AnnData(np.zeros((180, 1), dtype=np.float32))
    names = [ontology.name(t) for t in terms]
    adata.obs["truth"] = pd.Categorical.from_codes(codes, names)
    given = np.where(rng.random(180) < 0.8, codes, (codes + 1) % 6)
    adata.obs["sccello_cell_type"] = pd.Categorical.from_codes(given, names)
    adata.obs["sccello_cell_type_ontology_term_id"] = pd.Categorical.from_codes(given, terms)
    adata.obs["sccello_cell_type_confidence"] = rng.random(180).astype(np.float32)
    adata.obs["sccello_novelty"] = rng.normal(size=180).astype(np.float32)
    status = np.where(adata.obs["sccello_novelty"] > 1, "novel_subtype", "known")
    adata.obs["sccello_cell_type_status"] = pd.Categorical(status)
    centres = rng.normal(size=(6, 2)) * 8
    adata.obsm["X_umap"] = centres[codes] + rng.normal(size=(180, 2))
    return adata


@pytest.fixture
def same_style():
    with mpl.rc_context(STYLE):
        yield


@pytest.fixture(scope="session")
def tolerance() -> float:
    return TOLERANCE


@pytest.fixture
def difference(tmp_path):
    """Root mean square difference of a figure from its baseline."""
    from matplotlib.testing.compare import calculate_rms

    def compare(figure, name: str) -> float:
        drawn = tmp_path / f"{name}.png"
        with mpl.rc_context(STYLE):
            figure.savefig(drawn)
        expected = BASELINES / f"{name}.png"
        if os.environ.get("SCCELLO_NEW_BASELINES"):
            expected.write_bytes(drawn.read_bytes())
        images = [np.asarray(mpl.image.imread(path))[..., :3] * 255 for path in (expected, drawn)]
        assert images[0].shape == images[1].shape
        return float(calculate_rms(*images))

    return compare
