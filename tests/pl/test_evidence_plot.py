"""`pl.evidence`: bars of contributions, dots of deciding genes."""

from __future__ import annotations

import numpy as np
import pytest

import sccello_tools as sccello
from sccello_tools import get, pl
from sccello_tools.errors import GroupError, NotFoundError


@pytest.fixture(scope="module")
def annotated():
    adata = sccello.datasets.pancreas_tritschler()[::6].copy()
    sccello.tl.annotate_novel(adata)
    return adata


def test_bars_are_the_mean_contributions(annotated):
    table = get.annotation_df(annotated, "cell_type", n_markers=0)
    figure = pl.evidence(annotated, "cell_type", show=False)
    ax = figure.axes[0]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(4, -1)
    for row, source in enumerate(("embedding", "ontology", "markers", "prior")):
        np.testing.assert_allclose(widths[row], table[source], rtol=1e-5, atol=1e-6)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0].startswith("pancreatic A cell\nnot ")


def test_dots_are_fractions_of_cells_with_a_count(annotated):
    figure = pl.evidence(annotated, "cell_type", n_markers=2, show=False)
    ax = figure.axes[1]
    genes = [label.get_text() for label in ax.get_xticklabels()]
    assert {"GCG", "INS", "SST"} <= set(genes)
    areas = ax.collections[0].get_sizes().reshape(-1, len(genes))
    groups = annotated.obs["cell_type"].astype("category").cat.categories
    column = np.flatnonzero(annotated.var_names == "ENSG00000254647")  # insulin
    if not len(column):
        column = np.flatnonzero(annotated.var_names == "INS")
    for row, group in enumerate(groups):
        own = annotated[annotated.obs["cell_type"] == group]
        detected = (own.X[:, column].toarray() > 0).mean()
        assert areas[row, genes.index("INS")] == pytest.approx(90 * detected + 0.5, rel=1e-4)


def test_predicted_types_are_the_groups_by_default(annotated):
    figure = pl.evidence(annotated, show=False)
    shown = {label.get_text().split("\n")[0] for label in figure.axes[0].get_yticklabels()}
    assert shown == set(annotated.obs["sccello_cell_type"].cat.categories)


def test_without_counts_there_is_one_panel(explained):
    assert len(pl.evidence(explained, "truth", show=False).axes) == 1


def test_missing_input(annotated, cells):
    with pytest.raises(NotFoundError, match=r"sccello_cell_type_evidence.*tl\.annotate_novel"):
        pl.evidence(cells, "truth", show=False)
    with pytest.raises(GroupError, match="'cluster'"):
        pl.evidence(annotated, "cluster", show=False)
