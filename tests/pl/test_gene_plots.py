"""Marker genes by rank and Gene Ontology terms as dots: what the figures show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sccello_tools import pl
from sccello_tools.errors import ArgumentError, NotFoundError


def names_in(ax):
    return [text.get_text() for text in ax.texts]


def test_a_panel_for_each_group_with_its_first_genes_named(marked):
    figure = pl.marker_genes(marked, n_labels=5, show=False)
    panels = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in panels] == ["a", "b", "c", "d"]
    for ax in panels:
        assert names_in(ax) == ["g0", "g1", "g2", "g3", "g4"]
    for i, ax in enumerate(panels):
        drawn = ax.collections[0].get_offsets()
        np.testing.assert_allclose(drawn[:, 1], np.linspace(2 + i, -1, 40)[:30])


def test_known_markers_are_named_wherever_they_rank(marked):
    figure = pl.marker_genes(
        marked, "b", known={"b": ["S20", "S1"]}, gene_symbols="symbol", n_labels=2, show=False
    )
    texts = figure.axes[0].texts
    assert [t.get_text() for t in texts] == ["S0", "S1", "S20"]
    assert [t.get_fontweight() for t in texts] == ["normal", "bold", "bold"]


def test_names_stand_inside_their_panel(marked):
    figure = pl.marker_genes(marked, n_labels=10, show=False)
    figure.canvas.draw()
    for ax in [ax for ax in figure.axes if ax.axison]:
        frame = ax.get_window_extent()
        for text in ax.texts:
            box = text.get_window_extent()
            assert box.y1 <= frame.y1 + 1
            assert frame.x0 - 1 <= box.x0


def test_terms_of_all_groups_without_the_folded_ones(terms):
    figure = pl.go_enrichment(terms, show=False)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"name of GO:{i}" for i in (1, 3, 4)]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a"]
    assert len(ax.collections[0].get_offsets()) == 4
    folded = pl.go_enrichment(terms, folded=True, show=False)
    assert len(folded.axes[0].get_yticklabels()) == 4


def test_dots_grow_with_the_share_of_genes_and_darken_with_significance(terms):
    dots = pl.go_enrichment(terms, show=False).axes[0].collections[0]
    shares = np.array([0.8, 0.4, 0.6, 0.2])
    np.testing.assert_allclose(dots.get_sizes(), 20 + 180 * shares / 0.8)
    np.testing.assert_allclose(dots.get_array(), [9, 4, 6, 2])


def test_only_so_many_terms_of_each_group(terms):
    figure = pl.go_enrichment(terms, n_terms=1, show=False)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["name of GO:1", "name of GO:3"]
    assert len(figure.axes[0].collections[0].get_offsets()) == 3


def test_ensembl_ids_are_shown_as_symbols(marked):
    names = marked.uns["sccello_marker_genes"]["names"].copy()
    for group in "abcd":
        names[group][0] = "ENSG00000115263.14"
    marked.uns["sccello_marker_genes"]["names"] = names
    marked.var_names = ["ENSG00000115263.14", *marked.var_names[1:]]
    assert names_in(pl.marker_genes(marked, "a", n_labels=2, show=False).axes[0]) == ["GCG", "g1"]


def test_what_cannot_be_drawn(marked, terms):
    with pytest.raises(NotFoundError, match=r"'name'.*gene_symbols="):
        pl.marker_genes(marked, gene_symbols="name", show=False)
    with pytest.raises(NotFoundError, match=r"'z'.*'a', 'b'"):
        pl.marker_genes(marked, "z", show=False)
    with pytest.raises(ArgumentError, match=r"'group'.*tl\.enrich_go"):
        pl.go_enrichment(pd.DataFrame({"x": [1]}), show=False)
    with pytest.raises(ArgumentError, match="max_fdr"):
        pl.go_enrichment(terms.head(0), show=False)
