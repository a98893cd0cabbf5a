"""The pictures themselves, against baselines that were looked at. Maps are given, not computed: UMAP differs between machines."""

from __future__ import annotations

import os

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from sccello_tools import pl

DRAWN_WITH = "3.11"


@pytest.fixture(autouse=True)
def _closed(same_style):
    yield
    plt.close("all")


def curve() -> pd.DataFrame:
    step = np.arange(1, 301)
    noise = np.random.default_rng(0).normal(0, 0.2, (300, 2))
    loss = 8 * np.exp(-step / 80) + noise[:, 0] + 2
    return pd.DataFrame(
        {
            "step": step,
            "loss": loss,
            "masked_gene": 0.7 * loss,
            "coherence": 0.3 * loss + 0.3 * noise[:, 1],
            "type_accuracy": 1 - np.exp(-step / 90),
            "val_type_accuracy": np.where(step % 50 == 0, 0.9 * (1 - np.exp(-step / 90)), np.nan),
        }
    )


def scores() -> pd.DataFrame:
    values = {
        "nmi": [0.785, 0.616],
        "ari": [0.7, 0.574],
        "asw": [0.55, 0.43],
        "avg_bio": [0.678, 0.54],
    }
    batch = {
        "asw_batch": [0.88, 0.8],
        "graph_connectivity": [0.95, np.nan],
        "avg_batch": [0.915, 0.2],
    }
    return pd.DataFrame(values | batch, index=["scCello", "PCA"])


PICTURES = {
    "umap_on_data": lambda cells: pl.ontology_umap(cells, "truth", show=False),
    "umap_tree": lambda cells: pl.ontology_umap(cells, label="tree", show=False),
    "umap_legend_level": lambda cells: pl.ontology_umap(cells, level=1, label="legend", show=False),
    "tree": lambda cells: pl.ontology_tree(cells, key="truth", show=False),
    "tree_by_confidence": lambda cells: pl.ontology_tree(
        cells, color="sccello_cell_type_confidence", show=False
    ),
    "confusion": lambda cells: pl.confusion(cells, "truth", show=False),
    "confidence": lambda cells: pl.confidence(cells, "truth", ncols=2, show=False),
    "training": lambda _: pl.training(curve(), show=False),
    "embedding_quality": lambda _: pl.embedding_quality(scores(), show=False),
}


@pytest.mark.skipif(
    not mpl.__version__.startswith(DRAWN_WITH),
    reason=f"the baselines were drawn with matplotlib {DRAWN_WITH}, whose text differs",
)
@pytest.mark.parametrize("name", list(PICTURES))
def test_as_it_was_looked_at(cells, difference, tolerance, name):
    assert difference(PICTURES[name](cells), name) < tolerance


@pytest.mark.skipif("SCCELLO_NEW_BASELINES" in os.environ, reason="draws wrong pictures on purpose")
def test_the_tolerance_tells_a_changed_picture(cells, difference, tolerance):
    """What a fault would do: colours exchanged, labels gone, panels in another order."""
    wrong = dict(zip(cells.obs["truth"].cat.categories, ("#ffffff", "#000000") * 3))
    assert (
        difference(pl.ontology_umap(cells, "truth", palette=wrong, show=False), "umap_on_data")
        > tolerance
    )
    swapped = scores()[::-1]
    assert difference(pl.embedding_quality(swapped, show=False), "embedding_quality") > tolerance
    shuffled = cells[:, :].copy()
    shuffled.obs["truth"] = np.random.default_rng(1).permutation(shuffled.obs["truth"])
    assert difference(pl.confusion(shuffled, "truth", show=False), "confusion") > tolerance
