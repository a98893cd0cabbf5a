"""What the plots of the ontology show, read off the figures; and the pictures themselves, by eye once and by these facts since."""

from __future__ import annotations

import itertools

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from sccello_tools import pl
from sccello_tools.errors import GroupError
from sccello_tools.ontology import CellOntology
from sccello_tools.pl._lineage_colours import lineage_colours
from sccello_tools.pl._term_tree import TermTree

mpl.use("agg")
CD4, CD8, T, B, BETA, ALPHA, NEURON = (
    "CL:0000624",
    "CL:0000625",
    "CL:0000084",
    "CL:0000236",
    "CL:0000169",
    "CL:0000171",
    "CL:0000540",
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def ontology():
    return CellOntology.load()


@pytest.fixture
def cells(ontology):
    """Six types in blobs, with an annotation that is mostly right."""
    rng = np.random.default_rng(0)
    terms = np.array([CD4, CD8, B, BETA, ALPHA, NEURON])
    codes = np.repeat(np.arange(6), 30)
    adata = anndata.AnnData(np.zeros((180, 1), dtype=np.float32))
    names = [ontology.name(t) for t in terms]
    adata.obs["truth"] = pd.Categorical.from_codes(codes, names)
    given = np.where(rng.random(180) < 0.8, codes, (codes + 1) % 6)
    adata.obs["sccello_cell_type"] = pd.Categorical.from_codes(given, names)
    adata.obs["sccello_cell_type_ontology_term_id"] = pd.Categorical.from_codes(given, terms)
    adata.obs["sccello_cell_type_confidence"] = rng.random(180).astype(np.float32)
    adata.obs["sccello_novelty"] = rng.normal(size=180).astype(np.float32)
    status = np.where(adata.obs["sccello_novelty"] > 1, "novel, of a known kind", "known type")
    adata.obs["sccello_cell_type_status"] = pd.Categorical(status)
    centres = rng.normal(size=(6, 2)) * 8
    adata.obsm["X_umap"] = centres[codes] + rng.normal(size=(180, 2))
    return adata


def test_the_tree_keeps_what_is_asked_and_where_it_parts(ontology):
    tree = TermTree.of([CD4, CD8, B], ontology)
    assert tree.terms == {CD4, CD8, B}
    for node in set(tree.order) - tree.terms:
        assert sum(parent == node for parent in tree.parent.values()) >= 2
    for node, parent in tree.parent.items():
        assert parent in ontology.ancestors(node)
        assert tree.order.index(parent) < tree.order.index(node)
    assert tree.distance(CD4, CD8) < tree.distance(CD4, B)


def test_ties_are_to_ancestors_and_near_relatives_only(ontology):
    assert (T, CD4) in TermTree.of([T, CD4, B], ontology).links()
    # a neuron shares nothing but "cell" with a B cell
    assert all(NEURON not in pair for pair in TermTree.of([CD4, B, NEURON], ontology).links())


def test_relatives_are_near_in_hue_and_all_colours_differ(ontology):
    terms = [CD4, CD8, B, BETA, ALPHA, NEURON]
    colours = lineage_colours(TermTree.of(terms, ontology))
    rgb = {term: np.array(mpl.colors.to_rgb(colour)) for term, colour in colours.items()}
    gaps = [np.abs(rgb[a] - rgb[b]).sum() for a, b in itertools.combinations(terms, 2)]
    assert min(gaps) > 0.1
    hue = {t: mpl.colors.rgb_to_hsv(c)[0] for t, c in rgb.items()}
    turn = lambda a, b: min(abs(hue[a] - hue[b]), 1 - abs(hue[a] - hue[b]))  # noqa: E731
    assert turn(CD4, CD8) < turn(CD4, BETA)
    # sixty types still differ, pairwise
    many = sorted(ontology.descendants("CL:0000542"))[:60]
    shades = lineage_colours(TermTree.of(many, ontology))
    assert len(set(shades.values())) == len(many)


def test_labels_of_the_umap_do_not_overlap(cells):
    cells.obsm["X_umap"] *= 0.3  # crowded
    figure = pl.ontology_umap(cells, "truth", show=False)
    figure.canvas.draw()
    texts = [t for t in figure.axes[0].texts if t.get_text()]
    assert {t.get_text().replace("\n", " ").replace("- ", "-") for t in texts} == {
        name.replace("- ", "-") for name in cells.obs["truth"].cat.categories
    }
    boxes = [t.get_window_extent() for t in texts]
    for a, b in itertools.combinations(boxes, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 1 or height <= 1


def test_the_umap_marks_novel_cells_and_keeps_colours(cells):
    figure = pl.ontology_umap(cells, show=False, label="legend")
    n_novel = (cells.obs["sccello_cell_type_status"] == "novel, of a known kind").sum()
    shown = [t.get_text() for legend in figure.findobj(mpl.legend.Legend) for t in legend.texts]
    assert f"novel ({n_novel})" in shown
    assert len(cells.uns["sccello_cell_type_colors"]) == 6
    assert any("type B pancreatic cell" in text for text in shown)


def test_the_umap_with_its_tree(cells):
    figure = pl.ontology_umap(cells, "truth", label="tree", show=False)
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match="two panels"):
        pl.ontology_umap(cells, "truth", label="tree", ax=figure.axes[0], show=False)


def test_the_umap_into_given_axes_and_a_file(cells, tmp_path):
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots()
    assert pl.ontology_umap(cells, "truth", ax=ax, show=False) is figure
    pl.ontology_umap(cells, "truth", save=tmp_path / "umap.png")
    assert (tmp_path / "umap.png").stat().st_size > 10_000
    assert plt.get_fignums() == [figure.number]


def test_without_a_basis_the_next_step_is_named(cells):
    del cells.obsm["X_umap"]
    with pytest.raises(KeyError, match=r"Call tl\.embed\(adata\) first"):
        pl.ontology_umap(cells, "truth", show=False)
    with pytest.raises(GroupError, match="no column 'nothing'"):
        pl.ontology_umap(cells, "nothing", show=False)


def test_the_tree_counts_cells(cells):
    figure = pl.ontology_tree(cells, key="truth", show=False)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "type B pancreatic cell  30" in texts


def test_confusion_is_in_ontology_order_and_frames_what_is_right(cells, ontology):
    cells.obs["sccello_cell_type"] = (
        cells.obs["truth"].astype(str).replace({ontology.name(CD4): ontology.name(T)})
    )
    del cells.obs["sccello_cell_type_ontology_term_id"]
    figure = pl.confusion(cells, "truth", show=False)
    ax = figure.axes[0]
    rows = [t.get_text().split("  (")[0] for t in ax.get_yticklabels()]
    assert abs(rows.index(ontology.name(CD4)) - rows.index(ontology.name(CD8))) == 1
    assert abs(rows.index(ontology.name(BETA)) - rows.index(ontology.name(ALPHA))) == 1
    frames = [p for p in ax.patches if not p.get_fill()]
    dotted = [p for p in frames if p.get_linestyle() == ":"]
    # five types are given as they are; "T cell" is right but broad for CD4 and, in theory, CD8 T cells
    assert len(frames) - len(dotted) == 5
    assert len(dotted) == 2
    shares = ax.images[0].get_array()
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_confidence_has_four_panels_with_the_truth_and_two_without(cells):
    assert len(pl.confidence(cells, "truth", show=False).axes) == 4
    assert len(pl.confidence(cells, show=False).axes) == 2
    del cells.obs["sccello_novelty"]
    assert len(pl.confidence(cells, show=False).axes) == 1


def test_plots_of_what_is_not_there(cells):
    with pytest.raises(GroupError, match="no column 'other_confidence'"):
        pl.confidence(cells, key="other", show=False)
    with pytest.raises(GroupError, match="is numeric"):
        pl.confusion(cells, "sccello_novelty", show=False)
    cells.obs["truth"] = pd.Categorical([None] * 180, categories=["B cell"])
    with pytest.raises(GroupError, match="No cell has a value in both"):
        pl.confusion(cells, "truth", show=False)
