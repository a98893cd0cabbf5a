"""What the plots of the ontology show; the figures themselves are compared in test_images.py."""

from __future__ import annotations

import itertools

import anndata
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sccello_tools import pl
from sccello_tools.errors import ArgumentError, GroupError, NotFoundError
from sccello_tools.pl.colors import lineage_colors
from sccello_tools.pl.term_tree import TermTree

CD4, CD8, T, B, BETA, ALPHA, NEURON = (
    "CL:0000624",
    "CL:0000625",
    "CL:0000084",
    "CL:0000236",
    "CL:0000169",
    "CL:0000171",
    "CL:0000540",
)


def test_the_tree_has_the_terms_and_their_common_ancestors(ontology):
    tree = TermTree.of([CD4, CD8, B], ontology)
    assert tree.terms == {CD4, CD8, B}
    for node in set(tree.order) - tree.terms:
        assert sum(parent == node for parent in tree.parent.values()) >= 2
    for node, parent in tree.parent.items():
        assert parent in ontology.ancestors(node)
        assert tree.order.index(parent) < tree.order.index(node)
    assert tree.distance(CD4, CD8) < tree.distance(CD4, B)


def test_links_are_to_ancestors_and_close_relatives(ontology):
    assert (T, CD4) in TermTree.of([T, CD4, B], ontology).links()
    # a neuron shares nothing but "cell" with a B cell
    assert all(NEURON not in pair for pair in TermTree.of([CD4, B, NEURON], ontology).links())


def test_relatives_have_similar_hues_and_all_colors_differ(ontology):
    terms = [CD4, CD8, B, BETA, ALPHA, NEURON]
    colours = lineage_colors(TermTree.of(terms, ontology))
    rgb = {term: np.array(mpl.colors.to_rgb(colour)) for term, colour in colours.items()}
    gaps = [np.abs(rgb[a] - rgb[b]).sum() for a, b in itertools.combinations(terms, 2)]
    assert min(gaps) > 0.1
    hue = {t: mpl.colors.rgb_to_hsv(c)[0] for t, c in rgb.items()}
    turn = lambda a, b: min(abs(hue[a] - hue[b]), 1 - abs(hue[a] - hue[b]))  # noqa: E731
    assert turn(CD4, CD8) < turn(CD4, BETA)
    # sixty types still differ, pairwise
    many = sorted(ontology.descendants("CL:0000542"))[:60]
    shades = lineage_colors(TermTree.of(many, ontology))
    assert len(set(shades.values())) == len(many)


def text_in(ax):
    return {t.get_text().replace("\n", " ") for t in ax.texts}


def legend_of(figure):
    legends = figure.findobj(mpl.legend.Legend)
    return [text.get_text() for legend in legends for text in legend.texts]


def test_names_beside_the_cells(cells):
    names = set(cells.obs["truth"].cat.categories)
    figure = pl.ontology_umap(cells, "truth", show=False)
    assert text_in(figure.axes[0]) == {*names, "UMAP"}
    # a column of ids is labelled with names
    figure = pl.ontology_umap(cells, "sccello_cell_type_ontology_term_id", show=False)
    assert text_in(figure.axes[0]) == {*names, "UMAP"}
    # a name without a term is labelled, too
    cells.obs["mine"] = cells.obs["truth"].cat.rename_categories({"neuron": "cluster 7"})
    assert "cluster 7" in text_in(pl.ontology_umap(cells, "mine", show=False).axes[0])


def test_novel_cells_are_marked_and_colors_stored(cells):
    figure = pl.ontology_umap(cells, show=False, legend_loc="right margin")
    n_novel = (cells.obs["sccello_cell_type_status"] == "novel_subtype").sum()
    assert f"not a known type ({n_novel})" in legend_of(figure)
    assert len(cells.uns["sccello_cell_type_colors"]) == 6
    counts = cells.obs["sccello_cell_type"].value_counts()
    assert {f"{name} ({n})" for name, n in counts.items()} <= set(legend_of(figure))


def test_the_umap_with_its_tree(cells):
    figure = pl.ontology_umap(cells, "truth", legend_loc="tree", show=False)
    assert len(figure.axes) == 2
    assert set(cells.obs["truth"].cat.categories) <= text_in(figure.axes[1])
    with pytest.raises(ArgumentError, match="two panels"):
        pl.ontology_umap(cells, "truth", legend_loc="tree", ax=figure.axes[0], show=False)


def test_nothing_of_a_saved_figure_is_cut_off(cells, tmp_path):
    path = tmp_path / "a.png"
    pl.ontology_umap(cells, "truth", legend_loc="tree", title="TYPES", save=path)
    image = plt.imread(path)[..., :3]
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge == 1).all()


def test_several_columns(cells):
    figure = pl.ontology_umap(cells, ["truth", "sccello_cell_type"], show=False)
    assert [ax.get_title("left") for ax in figure.axes] == ["truth", "sccello_cell_type"]
    both = pl.ontology_umap(cells, ["truth", "sccello_cell_type"], legend_loc="tree", show=False)
    assert len(both.axes) == 4
    with pytest.raises(ArgumentError, match="several columns"):
        pl.ontology_umap(cells, ["truth", "sccello_cell_type"], ax=figure.axes[0], show=False)
    with pytest.raises(ArgumentError, match="color is empty"):
        pl.ontology_umap(cells, [], show=False)
    with pytest.raises(GroupError, match="'nothing'"):
        pl.ontology_umap(cells, ["truth", "nothing"], show=False)


def test_the_basis(cells):
    cells.obsm["X_pca"] = np.random.default_rng(0).normal(size=(180, 5))
    ax = pl.ontology_umap(cells, "truth", basis="X_pca", legend_loc=None, show=False).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC 1", "PC 2")
    with pytest.raises(NotFoundError, match=r"'X_tsne'.*basis="):
        pl.ontology_umap(cells, "truth", basis="X_tsne", show=False)
    cells.obsm["X_line"] = np.zeros((180, 1))
    with pytest.raises(ArgumentError, match=r"'X_line'.*\(180, 1\).*basis="):
        pl.ontology_umap(cells, "truth", basis="X_line", show=False)
    del cells.obsm["X_umap"]
    with pytest.raises(NotFoundError, match=r"tl\.embed"):
        pl.ontology_umap(cells, "truth", show=False)


def test_edges_connect_relatives_up_to_25_types(cells, ontology):
    def dark_lines(adata, key, **options):
        # leaders to labels are lighter than edges
        ax = pl.ontology_umap(adata, key, legend_loc=None, show=False, **options).axes[0]
        return [line for line in ax.lines if len(line.get_xdata()) == 2]

    assert len(dark_lines(cells, "truth")) == 3
    assert not dark_lines(cells, "truth", edges=False)
    terms = sorted(ontology.descendants("CL:0000542"))[:30]
    many = anndata.AnnData(np.zeros((90, 1), dtype=np.float32))
    many.obs["t"] = pd.Categorical.from_codes(np.arange(90) % 30, [ontology.name(t) for t in terms])
    many.obsm["X_umap"] = np.random.default_rng(0).normal(size=(90, 2))
    assert not dark_lines(many, "t")
    assert dark_lines(many, "t", edges=True)


def test_the_tree_counts_cells(cells):
    figure = pl.ontology_tree(cells, key="truth", show=False)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts[texts.index("type B pancreatic cell") + 1] == "30"


def test_confusion_is_in_ontology_order_and_frames_correct_predictions(cells, ontology):
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


def test_missing_columns(cells):
    with pytest.raises(GroupError, match=r"'other_confidence'.*tl\.annotate_novel"):
        pl.confidence(cells, key="other", show=False)
    with pytest.raises(GroupError, match=r"'sccello_novelty'.* numeric"):
        pl.confusion(cells, "sccello_novelty", show=False)
    cells.obs["truth"] = pd.Categorical([None] * 180, categories=["B cell"])
    with pytest.raises(GroupError, match=r"No cell.*'truth'"):
        pl.confusion(cells, "truth", show=False)


def test_types_are_rolled_up_to_a_level(cells):
    figure = pl.ontology_umap(cells, "truth", level=1, show=False)
    names = text_in(figure.axes[0]) - {"UMAP"}
    assert len(names) < 6
    assert "lymphocyte" in names or "T cell" in names
    # colours of ancestors are not those of the column's categories
    assert "truth_colors" not in cells.uns
    with pytest.raises(ArgumentError, match=r"level.*-1"):
        pl.ontology_umap(cells, "truth", level=-1, show=False)


def test_colors_of_the_user_are_kept(cells):
    names = cells.obs["truth"].cat.categories
    mine = [f"#{i}{i}{i}{i}{i}{i}" for i in range(1, 7)]
    cells.uns["truth_colors"] = list(mine)
    for options in ({}, {"palette": "tab20"}, {"palette": {names[0]: "red"}}, {"level": 0}):
        pl.ontology_umap(cells, "truth", show=False, **options)
        pl.ontology_tree(cells, key="truth", show=False)
        pl.confusion(cells, "truth", show=False)
        assert list(cells.uns["truth_colors"]) == mine
    legend = pl.ontology_umap(cells, "truth", legend_loc="right margin", show=False)
    (box,) = legend.findobj(mpl.legend.Legend)
    colors = {handle.get_markerfacecolor() for handle in box.legend_handles[:6]}
    assert colors == set(mine)


def test_views_stay_views(cells):
    cells.obsm["X_sccello"] = np.random.default_rng(0).normal(size=(180, 4)).astype(np.float32)
    del cells.obsm["X_umap"]
    view = cells[cells.obs["truth"] != "B cell"]
    pl.ontology_umap(view, "truth", show=False)
    pl.novelty(view, show=False)
    assert view.is_view
    assert list(cells.obsm) == ["X_sccello"]
    assert "truth_colors" not in cells.uns


def test_colors_stay_after_removing_a_type(cells):
    pl.ontology_umap(cells, "truth", show=False)
    before = dict(zip(cells.obs["truth"].cat.categories, cells.uns["truth_colors"]))
    part = cells[cells.obs["truth"] != "B cell"].copy()
    pl.ontology_umap(part, "truth", show=False)
    after = dict(zip(part.obs["truth"].cat.categories, part.uns["truth_colors"]))
    assert len(after) == 5
    assert after.items() <= before.items()


def test_novel_cells_are_hollow_while_points_are_large_and_darker_when_small(cells):
    novel = (cells.obs["sccello_cell_type_status"] == "novel_subtype").to_numpy()
    filled, hollow = pl.ontology_umap(cells, "truth", show=False).axes[0].collections
    assert (len(filled.get_offsets()), len(hollow.get_offsets())) == ((~novel).sum(), novel.sum())
    assert {tuple(c) for c in hollow.get_facecolor()} == {(1.0, 1.0, 1.0, 1.0)}
    many = anndata.concat([cells] * 40, index_unique="-")
    filled, dark = pl.ontology_umap(many, "truth", show=False).axes[0].collections
    assert dark.get_facecolor()[:, :3].max() <= 0.51
    assert all(collection.get_rasterized() for collection in (filled, dark))


def test_cells_without_an_embedding_have_no_coordinates(cells):
    del cells.obsm["X_umap"]
    cells.obsm["X_sccello"] = np.random.default_rng(0).normal(size=(180, 4)).astype(np.float32)
    cells.obsm["X_sccello"][7] = np.nan
    pl.ontology_umap(cells, "truth", show=False)
    missing = np.isnan(cells.obsm["X_umap"]).any(axis=1)
    assert np.flatnonzero(missing).tolist() == [7]


def test_the_tree_has_dots_by_cells_and_the_mean_of_a_column(cells):
    cells = cells[np.r_[0:30, 30:35, 60:90]].copy()
    figure = pl.ontology_tree(cells, key="truth", color="sccello_novelty", show=False)
    ax = figure.axes[0]
    means = cells.obs.groupby("truth", observed=True)["sccello_novelty"].mean()
    texts = [t.get_text() for t in ax.texts]
    for name, mean in means.items():
        assert f"{(cells.obs['truth'] == name).sum()}  {mean:.2f}" in texts, name
    dots = {line.get_markersize() for line in ax.lines if line.get_marker() == "o"}
    assert len(dots) == 3  # joints, five cells, thirty cells
    with pytest.raises(GroupError, match=r"numeric column 'truth'.*color="):
        pl.ontology_tree(cells, key="truth", color="truth", show=False)
    with pytest.raises(ArgumentError, match="'x' needs an AnnData"):
        pl.ontology_tree([CD4, CD8], color="x", show=False)
    with pytest.raises(GroupError, match="no Cell Ontology terms"):
        pl.ontology_tree([], show=False)


def test_sixty_types_stay_legible(ontology):
    """Names in the tree and beside the cells are inside the figure and do not overlap."""
    rng = np.random.default_rng(0)
    terms = sorted(ontology.descendants("CL:0000542"))[:60]
    codes = rng.integers(0, 60, 2_000)
    adata = anndata.AnnData(np.zeros((2_000, 1), dtype=np.float32))
    adata.obs["t"] = pd.Categorical.from_codes(codes, [ontology.name(t) for t in terms])
    adata.obsm["X_umap"] = rng.normal(size=(60, 2))[codes] * 8 + rng.normal(size=(2_000, 2))
    for loc, panel in (("tree", 1), ("on data", 0)):
        figure = pl.ontology_umap(adata, "t", legend_loc=loc, show=False)
        figure.canvas.draw()
        texts = [t for t in figure.axes[panel].texts if t.get_text()]
        assert len(texts) >= 60
        assert min(t.get_fontsize() for t in texts) >= 5
        boxes = np.array([t.get_window_extent().extents for t in texts])
        assert (boxes[:, :2] >= -1).all()
        assert (boxes[:, 2:] <= np.array(figure.bbox.size) + 1).all()
        width = np.minimum(boxes[:, None, 2], boxes[:, 2]) - np.maximum(
            boxes[:, None, 0], boxes[:, 0]
        )
        height = np.minimum(boxes[:, None, 3], boxes[:, 3]) - np.maximum(
            boxes[:, None, 1], boxes[:, 1]
        )
        covered = np.triu((width > 1) & (height > 1.5), 1)
        assert covered.sum() == 0, [texts[i].get_text() for i in np.argwhere(covered)[:, 0]]


def test_lines_separate_lineages_in_the_confusion(cells):
    ax = pl.confusion(cells, "truth", show=False).axes[0]
    rows = [t.get_text().split("  (")[0] for t in ax.get_yticklabels()]
    # lymphocytes, endocrine cells and neurons: two lines across, two down
    lines = [c.get_segments() for c in ax.collections]
    long = [
        s for segments in lines for s in segments if s[0][0] == -0.75
    ]  # cross the strip of colours
    across = {float(segment[0][1]) for segment in long}
    assert len(across) == 2
    kin = [
        "pancreatic" if "pancreatic" in name else name if name == "neuron" else "lymphocyte"
        for name in rows
    ]
    changes = {i + 0.5 for i, (a, b) in enumerate(itertools.pairwise(kin)) if a != b}
    assert across == changes


def test_names_may_contain_dollar_signs(cells):
    cells.obs["mine"] = (
        cells.obs["truth"].cat.rename_categories({"neuron": "$\\frac{$x$"}).astype(str)
    )
    figure = pl.confusion(cells, "mine", show=False)
    figure.canvas.draw()
    assert any("$" in t.get_text() for t in figure.axes[0].get_yticklabels())
    for loc in ("right margin", "on data"):
        pl.ontology_umap(cells, "mine", legend_loc=loc, show=False).canvas.draw()


def test_cells_without_any_result_are_drawn(cells):
    cells.obs["sccello_novelty"] = np.float32("nan")
    cells.obs["sccello_cell_type_confidence"] = np.float32("nan")
    figure = pl.confidence(cells, show=False)
    assert "no cell has a novelty" in [t.get_text() for t in figure.axes[1].texts]
    with pytest.raises(GroupError, match=r"No cell has a confidence.*pp\.map_cell_types"):
        pl.confidence(cells, "truth", show=False)
    for column in ("sccello_cell_type", "sccello_cell_type_ontology_term_id"):
        cells.obs[column] = pd.Categorical([None] * cells.n_obs)
    assert len(pl.ontology_umap(cells, show=False).axes[0].collections) >= 1
