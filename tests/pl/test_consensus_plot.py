"""Agreement of annotators with their consensus."""

from __future__ import annotations

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import sccello_tools as sccello
from sccello_tools import pl
from sccello_tools.errors import NotFoundError
from sccello_tools.ontology import CellOntology


def test_fractions_of_cells_that_agree(voted):
    figure = pl.consensus(voted, show=False)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "B cell  (4)", "T cell  (4)", "no consensus  (1)",
    ]  # fmt: skip
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c", "mean agreement"]
    values = ax.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(
        values,
        [[1, 1, np.nan, 1], [1, 0.75, 0.75, (1 + 2 / 3 + 1 + 2 / 3) / 4], [np.nan] * 3 + [0]],
    )


def test_subset_axes_and_file(voted, tmp_path):
    _, ax = plt.subplots()
    assert pl.consensus(voted[:4], ax=ax, show=False) is ax.figure
    pl.consensus(voted, save=tmp_path / "new" / "c.png")
    assert (tmp_path / "new" / "c.png").stat().st_size > 1000
    with pytest.raises(NotFoundError, match=r"tl\.consensus"):
        pl.consensus(voted, key="other")


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_forty_types(style):
    ontology = CellOntology.load()
    rng = np.random.default_rng(0)
    terms = [t for t in ontology if ontology.depth(t) > 5][:400:10]
    obs = pd.DataFrame(
        {
            key: rng.permutation(np.repeat(terms, 3)) if key == "b" else np.repeat(terms, 3)
            for key in "abc"
        }
    )
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
    sccello.tl.consensus(adata, list("abc"))
    with mpl.style.context(style):
        figure = pl.consensus(adata, show=False)
        figure.canvas.draw()
    assert len(figure.axes[0].get_yticklabels()) == 40
