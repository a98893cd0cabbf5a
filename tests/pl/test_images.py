"""Figures against baselines that somebody has looked at. UMAP coordinates are given, because they differ between machines."""

from __future__ import annotations

import os

import matplotlib as mpl
import numpy as np
import pytest

from sccello_tools import pl

DRAWN_WITH = "3.11"


@pytest.fixture(autouse=True)
def _style(same_style):
    return same_style


PICTURES = {
    "umap_on_data": lambda cells: pl.ontology_umap(cells, "truth", show=False),
    "umap_tree": lambda cells: pl.ontology_umap(cells, legend_loc="tree", show=False),
    "umap_legend_level": lambda cells: pl.ontology_umap(
        cells, level=1, legend_loc="right margin", show=False
    ),
    "novelty": lambda cells: pl.novelty(cells, show=False),
    "tree": lambda cells: pl.ontology_tree(cells, key="truth", show=False),
    "tree_by_confidence": lambda cells: pl.ontology_tree(
        cells, color="sccello_cell_type_confidence", show=False
    ),
    "confusion": lambda cells: pl.confusion(cells, "truth", show=False),
    "confidence": lambda cells: pl.confidence(cells, "truth", ncols=2, show=False),
}
OTHERS = ("training", "embedding_quality", "marker_genes", "go_enrichment", "drug_response")


same_matplotlib = pytest.mark.skipif(
    not mpl.__version__.startswith(DRAWN_WITH),
    reason=f"the baselines were drawn with matplotlib {DRAWN_WITH}, whose text differs",
)


@same_matplotlib
@pytest.mark.parametrize("name", list(PICTURES))
def test_as_the_baseline(cells, difference, tolerance, name):
    assert difference(PICTURES[name](cells), name) < tolerance


@same_matplotlib
@pytest.mark.parametrize("name", OTHERS)
def test_as_the_baseline_without_cells(plots, difference, tolerance, name):
    assert difference(plots[name](show=False), name) < tolerance


@pytest.mark.skipif("SCCELLO_NEW_BASELINES" in os.environ, reason="draws wrong figures on purpose")
def test_changed_figures_exceed_the_tolerance(cells, scores, difference, tolerance):
    """Exchanged colours, rows in another order, other data."""
    wrong = dict(zip(cells.obs["truth"].cat.categories, ("#ffffff", "#000000") * 3))
    assert (
        difference(pl.ontology_umap(cells, "truth", palette=wrong, show=False), "umap_on_data")
        > tolerance
    )
    swapped = scores[::-1]
    assert difference(pl.embedding_quality(swapped, show=False), "embedding_quality") > tolerance
    shuffled = cells[:, :].copy()
    shuffled.obs["truth"] = np.random.default_rng(1).permutation(shuffled.obs["truth"])
    assert difference(pl.confusion(shuffled, "truth", show=False), "confusion") > tolerance
