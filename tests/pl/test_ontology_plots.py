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
    n_novel = (cells.obs["sccello_cell_type_status"] == "novel_subtype").sum()
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
    assert texts[texts.index("type B pancreatic cell") + 1] == "30"


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


def test_types_roll_up_to_a_level(cells):
    figure = pl.ontology_umap(cells, "truth", level=1, show=False)
    names = {t.get_text().replace("\n", " ") for t in figure.axes[0].texts if t.get_text()}
    assert len(names) < 6
    assert "lymphocyte" in names or "T cell" in names
    # one colour a category of the column all the same, equal for types that were drawn as one
    colours = dict(zip(cells.obs["truth"].cat.categories, cells.uns["truth_colors"]))
    assert len(colours) == 6
    assert len(set(colours.values())) == len(names)
    with pytest.raises(ValueError, match="level is -1"):
        pl.ontology_umap(cells, "truth", level=-1, show=False)


def test_colours_are_kept_and_can_be_ones_own(cells):
    pl.ontology_umap(cells, "truth", show=False)
    names = cells.obs["truth"].cat.categories
    pl.ontology_umap(cells, "truth", palette={names[0]: "black"}, show=False)
    assert cells.uns["truth_colors"][0] == "#000000"
    changed = list(cells.uns["truth_colors"])
    pl.ontology_umap(cells, "truth", palette="uns", show=False)
    assert list(cells.uns["truth_colors"]) == changed
    del cells.uns["truth_colors"]
    with pytest.raises(ValueError, match="has 0 colours for 6 types"):
        pl.ontology_umap(cells, "truth", palette="uns", show=False)


def test_novel_cells_are_hollow_while_points_are_large_and_darker_when_small(cells):
    novel = (cells.obs["sccello_cell_type_status"] == "novel_subtype").to_numpy()
    full, hollow = pl.ontology_umap(cells, "truth", show=False).axes[0].collections
    assert (len(full.get_offsets()), len(hollow.get_offsets())) == ((~novel).sum(), novel.sum())
    assert {tuple(c) for c in hollow.get_facecolor()} == {(1.0, 1.0, 1.0, 1.0)}
    many = anndata.concat([cells] * 40, index_unique="-")
    full, dark = pl.ontology_umap(many, "truth", show=False).axes[0].collections
    assert dark.get_facecolor()[:, :3].max() <= 0.51
    assert all(collection.get_rasterized() for collection in (full, dark))


def test_cells_without_an_embedding_have_no_place_on_a_computed_map(cells):
    del cells.obsm["X_umap"]
    cells.obsm["X_sccello"] = np.random.default_rng(0).normal(size=(180, 4)).astype(np.float32)
    cells.obsm["X_sccello"][7] = np.nan
    pl.ontology_umap(cells, "truth", show=False)
    missing = np.isnan(cells.obsm["X_umap"]).any(axis=1)
    assert np.flatnonzero(missing).tolist() == [7]


def test_a_users_axes_stay_open_and_are_not_shown(cells, tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    figure, axes = plt.subplots(1, 3)
    assert pl.ontology_umap(cells, "truth", ax=axes[0]) is figure
    assert pl.confusion(cells, "truth", ax=axes[1], save=tmp_path / "x.png") is figure
    assert pl.ontology_tree(cells, key="truth", ax=axes[2]) is figure
    assert plt.fignum_exists(figure.number)
    assert calls == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda a, **o: pl.ontology_umap(a, "truth", **o),
        lambda a, **o: pl.ontology_tree(a, key="truth", **o),
        lambda a, **o: pl.confusion(a, "truth", **o),
        pl.confidence,
    ],
)
def test_a_figure_that_was_shown_is_returned_on_request_only(cells, monkeypatch, draw):
    """A notebook draws a returned figure: returned and shown, it would be there twice."""
    from matplotlib import pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    assert draw(cells) is None
    assert draw(cells, return_fig=True) is not None
    assert draw(cells, show=False) is not None
    assert draw(cells, show=False, return_fig=False) is None


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
    with pytest.raises(GroupError, match="no numeric column 'truth'"):
        pl.ontology_tree(cells, key="truth", color="truth", show=False)
    with pytest.raises(GroupError, match="terms alone have no columns"):
        pl.ontology_tree([CD4, CD8], color="x", show=False)
    with pytest.raises(GroupError, match="no terms to draw"):
        pl.ontology_tree([], show=False)


def test_sixty_types_stay_legible(ontology):
    """Names in the tree are of full size, inside the figure, and cover each other nowhere; so are labels on the map."""
    rng = np.random.default_rng(0)
    terms = sorted(ontology.descendants("CL:0000542"))[:60]
    codes = rng.integers(0, 60, 2_000)
    adata = anndata.AnnData(np.zeros((2_000, 1), dtype=np.float32))
    adata.obs["t"] = pd.Categorical.from_codes(codes, [ontology.name(t) for t in terms])
    adata.obsm["X_umap"] = rng.normal(size=(60, 2))[codes] * 8 + rng.normal(size=(2_000, 2))
    for label, panel in (("tree", 1), ("on data", 0)):
        figure = pl.ontology_umap(adata, "t", label=label, show=False)
        figure.canvas.draw()
        texts = [t for t in figure.axes[panel].texts if t.get_text()]
        assert len(texts) >= 60
        assert min(t.get_fontsize() for t in texts) >= 6
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


def test_lineages_are_parted_by_lines_in_the_confusion(cells):
    ax = pl.confusion(cells, "truth", show=False).axes[0]
    rows = [t.get_text().split("  (")[0] for t in ax.get_yticklabels()]
    # lymphocytes, endocrine cells and neurons: two lines across, two down
    parting = [line for line in ax.lines if line.get_color() == "0.25"]
    across = {
        float(line.get_ydata()[0]) for line in parting if line.get_ydata()[0] == line.get_ydata()[1]
    }
    assert len(across) == 2
    kin = [
        "pancreatic" if "pancreatic" in name else name if name == "neuron" else "lymphocyte"
        for name in rows
    ]
    changes = {i + 0.5 for i, (a, b) in enumerate(itertools.pairwise(kin)) if a != b}
    assert across == changes


def test_a_dollar_in_a_name_is_a_dollar(cells):
    cells.obs["mine"] = (
        cells.obs["truth"].cat.rename_categories({"neuron": "$\\frac{$x$"}).astype(str)
    )
    figure = pl.confusion(cells, "mine", show=False)
    figure.canvas.draw()
    assert any("$" in t.get_text() for t in figure.axes[0].get_yticklabels())
    pl.ontology_umap(cells, "mine", label="legend", show=False).canvas.draw()


def test_cells_that_nothing_is_known_of_are_drawn_all_the_same(cells):
    cells.obs["sccello_novelty"] = np.float32("nan")
    cells.obs["sccello_cell_type_confidence"] = np.float32("nan")
    figure = pl.confidence(cells, show=False)
    assert "no cell has a novelty" in [t.get_text() for t in figure.axes[1].texts]
    with pytest.raises(GroupError, match="No cell has a confidence and a term in both"):
        pl.confidence(cells, "truth", show=False)
    for column in ("sccello_cell_type", "sccello_cell_type_ontology_term_id"):
        cells.obs[column] = pd.Categorical([None] * cells.n_obs)
    assert len(pl.ontology_umap(cells, show=False).axes[0].collections) >= 1
