"""Marker genes by rank and Gene Ontology terms as dots: what the figures say, read off the figures."""

from __future__ import annotations

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from sccello_tools import pl

mpl.use("agg")
KEY = "sccello_marker_genes"
N_GENES = 40


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture
def marked():
    names = [f"g{i}" for i in range(N_GENES)]
    groups = ["a", "b", "c", "d"]
    values = pd.DataFrame({g: np.linspace(2 + i, -1, N_GENES) for i, g in enumerate(groups)})
    fields = ("scores", "mean_scores", "logfoldchanges", "pvals", "pvals_adj", "shares")
    result = {field: values.to_records(index=False) for field in (*fields, "reference_shares")}
    result["names"] = pd.DataFrame(dict.fromkeys(groups, names)).to_records(index=False)
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(N_GENES)]}, index=names)
    return anndata.AnnData(np.zeros((1, N_GENES), dtype=np.float32), var=var, uns={KEY: result})


@pytest.fixture
def table():
    def row(group, go_id, count, fdr, folded=""):
        return (group, go_id, f"name of {go_id}", count, 10, fdr, folded)

    rows = [
        row("a", "GO:1", 8, 1e-9),
        row("a", "GO:2", 7, 1e-8, "GO:1"),
        row("a", "GO:3", 4, 1e-4),
        row("b", "GO:3", 6, 1e-6),
        row("b", "GO:4", 2, 1e-2),
    ]
    columns = ["group", "go_id", "name", "study_count", "study_n", "fdr", "folded_into"]
    made = pd.DataFrame(rows, columns=columns)
    made["group"] = pd.Categorical(made["group"], categories=["b", "a", "empty"])
    return made


def names_in(ax):
    return [text.get_text() for text in ax.texts]


def test_a_panel_for_each_group_with_its_first_genes_named(marked):
    figure = pl.marker_genes(marked, n_names=5, show=False)
    panels = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in panels] == ["a", "b", "c", "d"]
    for ax in panels:
        assert names_in(ax) == ["g0", "g1", "g2", "g3", "g4"]
    for i, ax in enumerate(panels):
        drawn = ax.collections[0].get_offsets()
        np.testing.assert_allclose(drawn[:, 1], np.linspace(2 + i, -1, N_GENES)[:30])


def test_known_markers_are_named_wherever_they_rank(marked):
    figure = pl.marker_genes(
        marked, "b", known={"b": ["S20", "S1"]}, symbols="symbol", n_names=2, show=False
    )
    texts = figure.axes[0].texts
    assert [t.get_text() for t in texts] == ["S0", "S1", "S20"]
    assert [t.get_fontweight() for t in texts] == ["normal", "bold", "bold"]


def test_names_stand_inside_their_panel(marked):
    figure = pl.marker_genes(marked, n_names=10, show=False)
    figure.canvas.draw()
    for ax in [ax for ax in figure.axes if ax.axison]:
        frame = ax.get_window_extent()
        for text in ax.texts:
            box = text.get_window_extent()
            assert box.y1 <= frame.y1 + 1
            assert frame.x0 - 1 <= box.x0


def test_terms_of_all_groups_without_the_folded_ones(table):
    figure = pl.go_enrichment(table, show=False)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"name of GO:{i}" for i in (1, 3, 4)]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a"]
    assert len(ax.collections[0].get_offsets()) == 4
    folded = pl.go_enrichment(table, folded=True, show=False)
    assert len(folded.axes[0].get_yticklabels()) == 4


def test_dots_grow_with_the_share_of_genes_and_darken_with_significance(table):
    dots = pl.go_enrichment(table, show=False).axes[0].collections[0]
    shares = np.array([0.8, 0.4, 0.6, 0.2])
    np.testing.assert_allclose(dots.get_sizes(), 20 + 180 * shares / 0.8)
    np.testing.assert_allclose(dots.get_array(), [9, 4, 6, 2])


def test_only_so_many_terms_of_each_group(table):
    figure = pl.go_enrichment(table, n_terms=1, show=False)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["name of GO:1", "name of GO:3"]
    assert len(figure.axes[0].collections[0].get_offsets()) == 3


def test_figures_are_saved(marked, table, tmp_path):
    pl.marker_genes(marked, save=tmp_path / "m.png")
    pl.go_enrichment(table, save=tmp_path / "g.svg")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "g.svg").read_text()


def test_what_cannot_be_drawn(marked, table):
    with pytest.raises(KeyError, match="no column 'name'"):
        pl.marker_genes(marked, symbols="name", show=False)
    with pytest.raises(KeyError, match="no group 'z'"):
        pl.marker_genes(marked, "z", show=False)
    with pytest.raises(ValueError, match="no column 'group'"):
        pl.go_enrichment(pd.DataFrame({"x": [1]}), show=False)
    with pytest.raises(ValueError, match="holds no enriched term"):
        pl.go_enrichment(table.head(0), show=False)
