"""`pl.compare_embeddings`, `pl.novelty` and the placement of labels."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from sccello_tools import pl
from sccello_tools.errors import ArgumentError, NotFoundError
from sccello_tools.pl._umap import _stack, label_centers


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    sizes = [20, 12, 8]
    types = pd.Categorical(np.repeat(["alpha", "beta", "acinar"], sizes))
    adata = AnnData(obs=pd.DataFrame({"cell_type": types}, index=[f"c{i}" for i in range(40)]))
    center = np.repeat(np.eye(3) * 8, sizes, axis=0)
    adata.obsm["X_one"] = (center + rng.normal(size=(40, 3))).astype(np.float32)
    adata.obsm["X_two"] = rng.normal(size=(40, 5))
    return adata


def draw(adata, keys=("X_one", "X_two"), **options):
    options = {"color": "cell_type", "show": False} | options
    return pl.compare_embeddings(adata, keys, **options)


def points_of(ax):
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def colors_of(ax):
    return {to_hex(color) for c in ax.collections for color in c.get_facecolor()}


def legend_of(figure):
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend() is not None]
    return {
        text.get_text(): to_hex(handle.get_markerfacecolor())
        for text, handle in zip(legend.get_texts(), legend.legend_handles)
    }


def test_one_panel_per_embedding_and_one_legend(adata):
    before = adata.copy()
    figure = draw(adata, {"X_one": "First", "X_two": "Second"})
    assert [ax.get_title() for ax in figure.axes] == ["First", "Second"]
    for ax in figure.axes:
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP 1", "UMAP 2")
        points = points_of(ax)
        assert points.shape == (40, 2)
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert ((points > (left, bottom)) & (points < (right, top))).all()
    assert list(legend_of(figure)) == ["acinar (8)", "alpha (20)", "beta (12)"]
    assert colors_of(figure.axes[0]) == colors_of(figure.axes[1]) == set(legend_of(figure).values())
    # nothing is written
    assert list(adata.obsm) == list(before.obsm)
    assert not adata.uns
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_separate_types_are_drawn_apart(adata):
    ax = draw(adata, ["X_one"]).axes[0]
    colors = np.concatenate([c.get_facecolor() for c in ax.collections])
    groups = [points_of(ax)[(colors == color).all(axis=1)] for color in np.unique(colors, axis=0)]
    spread = max(np.linalg.norm(g - g.mean(0), axis=1).mean() for g in groups)
    gaps = [np.linalg.norm(a.mean(0) - b.mean(0)) for a, b in pairwise(groups)]
    assert min(gaps) > 2 * spread


@pytest.mark.parametrize("values", [np.arange(40) % 13, [f"t{i % 13}" for i in range(40)]])
def test_many_groups_have_different_colors(adata, values):
    adata.obs["cell_type"] = values
    assert len(set(legend_of(draw(adata, ["X_one"])).values())) == 13


def test_stored_colors_and_palettes(adata):
    adata.uns["cell_type_colors"] = ["#111111", "#222222", "#333333"]
    assert set(legend_of(draw(adata, ["X_one"])).values()) == {"#111111", "#222222", "#333333"}
    shown = legend_of(draw(adata, ["X_one"], palette={"beta": "red"}))
    assert shown["beta (12)"] == "#ff0000"
    assert list(adata.uns["cell_type_colors"]) == ["#111111", "#222222", "#333333"]


def test_rng_decides(adata):
    def points(rng):
        return points_of(draw(adata, ["X_two"], rng=rng).axes[0])

    one = points(1)
    np.testing.assert_array_equal(points(1), one)
    assert np.abs(points(2) - one).max() > 1e-3
    generator = np.random.default_rng(0)
    assert np.abs(points(generator) - points(generator)).max() > 1e-3


def test_missing_embeddings_and_missing_groups(adata):
    adata.obsm["X_two"][3] = np.nan
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.remove_categories("beta")
    figure = draw(adata)
    drawn = [np.ma.masked_invalid(points_of(ax)).compressed().size // 2 for ax in figure.axes]
    assert drawn == [40, 39]
    assert "missing (12)" in legend_of(figure)


@pytest.mark.parametrize("n_cells", [4, 9, 12])
def test_umap_of_few_cells(adata, n_cells):
    assert len(points_of(draw(adata[:n_cells].copy(), ["X_one"]).axes[0])) == n_cells


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"keys": ["X_pca"]}, NotFoundError, r"'X_pca'.*'X_one', 'X_two'.*tl\.embed"),
        ({"color": "celltype"}, NotFoundError, r"'celltype'.*'cell_type'.*color="),
        ({"color": ["cell_type"]}, ArgumentError, r"one column.*\['cell_type'\]"),
        ({"keys": []}, ArgumentError, r"at least one key"),
        ({"keys": "X_one"}, ArgumentError, "at least one key"),
        ({"palette": "no_such_map"}, ArgumentError, "no_such_map"),
    ],
)
def test_errors_leave_no_figure_open(adata, change, error, says):
    with pytest.raises(error, match=says):
        draw(adata, **{"keys": ["X_one"]} | change)
    assert plt.get_fignums() == []


def test_axes_for_one_embedding_only(adata):
    with pytest.raises(ArgumentError, match="one embedding"):
        draw(adata, ax=plt.subplots()[1])


def test_warning_filters_of_the_user_are_unchanged(adata):
    before = list(warnings.filters)
    draw(adata, ["X_one"])
    assert list(warnings.filters) == before


def test_a_legend_of_long_names_stays_inside_the_figure(adata, monkeypatch):
    points = np.random.default_rng(0).normal(size=(40, 2))
    monkeypatch.setattr(
        "sccello_tools.pl._compare_embeddings.compute_umap", lambda *_, **__: points
    )
    adata.obs["cell_type"] = [f"pancreatic stellate cell, subtype {i % 30}" for i in range(40)]
    for keys in (["X_one"], ["X_one", "X_two"]):
        figure = draw(adata, keys)
        figure.canvas.draw()
        (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend() is not None]
        box = legend.get_window_extent()
        assert max(ax.get_window_extent().x1 for ax in figure.axes) <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_novelty_shows_values_and_status(cells):
    cells.obs.loc[cells.obs_names[:3], ["sccello_novelty", "sccello_cell_type_status"]] = np.nan
    figure = pl.novelty(cells, show=False)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["Novelty", "Status"]
    n_novel = int((cells.obs["sccello_cell_type_status"] == "novel_subtype").sum())
    assert list(legend_of(figure)) == [
        f"known ({177 - n_novel})",
        f"novel_subtype ({n_novel})",
        "missing (3)",
    ]
    # ascending: the most novel cells are drawn last, missing ones first
    values = cells.obs["sccello_novelty"].to_numpy()
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")
    np.testing.assert_allclose(points_of(figure.axes[0]), cells.obsm["X_umap"][order])
    colors = figure.axes[0].collections[0].get_facecolor()
    assert {to_hex(c) for c in colors[:3]} == {"#bdbdbd"}
    bright = colors[3:, :3].mean(axis=1)  # viridis becomes lighter
    assert bright[-20:].mean() > bright[:20].mean() + 0.2


def test_novelty_arguments(cells):
    one = pl.novelty(cells, "status", palette={"known": "red"}, show=False)
    assert "#ff0000" in legend_of(one).values()
    limited = pl.novelty(cells, "novelty", vmin=-5, vmax=7, show=False)
    assert limited.axes[1].get_ylim() == (-5, 7)
    with pytest.raises(ArgumentError, match="'novelty', 'status' or both"):
        pl.novelty(cells, "confidence", show=False)
    with pytest.raises(ArgumentError, match="one panel"):
        pl.novelty(cells, ax=plt.subplots()[1])
    with pytest.raises(NotFoundError, match=r"'mine_status'.*tl\.annotate_novel"):
        pl.novelty(cells, key="mine", show=False)
    del cells.obs["sccello_novelty"]
    with pytest.raises(NotFoundError, match=r"'sccello_novelty'.*tl\.annotate_novel"):
        pl.novelty(cells, show=False)


def overlaps(texts):
    boxes = [t.get_window_extent() for t in texts]
    return [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)]


@pytest.mark.parametrize("size", [(3, 3), (8, 5), (10, 8)])
@pytest.mark.parametrize("n", [1, 3, 20, 40])
def test_labels_never_overlap_and_stay_in_their_axes(n, size):
    """Crowded and identical centers, long names, small axes; each label has a line to its center."""
    rng = np.random.default_rng(n)
    at = {i: rng.normal(size=2) * (0.01 if i % 3 else 1) for i in range(n)}
    names = {
        i: f"type {i}" + " of a very long name that wraps" * (i % 4 == 0 and n < 40) for i in at
    }
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    ax.scatter(*np.array(list(at.values())).T)
    label_centers(ax, names, at)
    figure.canvas.draw()
    texts = [t for t in ax.texts if t.get_text().startswith("type")]
    assert len(texts) == n
    assert not overlaps(texts)
    frame = ax.get_window_extent()
    if size != (3, 3):  # where there is no room, text is cut rather than drawn over other text
        for text in texts:
            box = text.get_window_extent()
            assert box.y0 >= frame.y0 - 1
            assert box.y1 <= frame.y1 + 1
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1
    ends = {tuple(np.round([line.get_xdata()[1], line.get_ydata()[1]], 9)) for line in ax.lines}
    assert ends == {tuple(np.round(xy, 9)) for xy in at.values()}


def test_stacked_labels_are_as_close_to_their_centers_as_possible():
    apart = _stack(np.array([10.0, 50.0, 90.0]), np.array([10.0, 10.0, 10.0]), 100)
    np.testing.assert_allclose(apart, [10, 50, 90])
    together = _stack(np.array([50.0, 50.0, 50.0]), np.array([10.0, 20.0, 10.0]), 100)
    np.testing.assert_allclose(together, [35, 50, 65])
    at_the_edge = _stack(np.array([99.0, 99.0]), np.array([10.0, 10.0]), 100)
    np.testing.assert_allclose(at_the_edge, [85, 95])
