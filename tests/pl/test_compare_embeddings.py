from __future__ import annotations

import warnings
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import sccello_tools as sccello


@pytest.fixture(autouse=True)
def _no_screen():
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    types = np.repeat(["alpha", "beta", "acinar"], [20, 12, 8])
    centre = np.repeat(np.eye(3) * 8, [20, 12, 8], axis=0)
    adata = AnnData(
        obs=pd.DataFrame({"cell_type": pd.Categorical(types)}, index=[f"c{i}" for i in range(40)])
    )
    adata.obsm["X_one"] = (centre + rng.normal(size=(40, 3))).astype(np.float32)
    adata.obsm["X_two"] = rng.normal(size=(40, 5))
    return adata


def draw(adata, keys=("X_one", "X_two"), **options):
    return sccello.pl.compare_embeddings(
        adata, list(keys), color="cell_type", **{"show": False} | options
    )


def colours(ax) -> list[str]:
    return [to_hex(c.get_facecolor()[0]) for c in ax.collections]


def test_a_panel_each_with_title_axes_and_one_legend(adata):
    before = adata.copy()
    figure = draw(adata, titles={"X_two": "The second"})
    assert [ax.get_title() for ax in figure.axes] == ["X_one", "The second"]
    for ax in figure.axes:
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP 1", "UMAP 2")
        assert ax.get_legend() is None
        # every cell is drawn, and inside the panel
        points = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
        assert points.shape == (40, 2)
        assert np.isfinite(points).all()
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert ((points > (left, bottom)) & (points < (right, top))).all()
        assert [len(c.get_offsets()) for c in ax.collections] == [20, 12, 8]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "alpha (20)",
        "beta (12)",
        "acinar (8)",
    ]
    assert colours(figure.axes[0]) == colours(figure.axes[1])
    assert len(set(colours(figure.axes[0]))) == 3
    assert list(adata.obsm) == list(before.obsm)
    assert not adata.uns
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_types_that_are_apart_are_drawn_apart(adata):
    figure = draw(adata, ["X_one"])
    groups = [np.asarray(c.get_offsets()) for c in figure.axes[0].collections]
    spread = max(np.linalg.norm(g - g.mean(0), axis=1).mean() for g in groups)
    gaps = [np.linalg.norm(a.mean(0) - b.mean(0)) for a, b in pairwise(groups)]
    assert min(gaps) > 2 * spread


def test_more_groups_than_named_colours_have_colours_of_their_own(adata):
    adata.obs["cell_type"] = [f"type {i % 13:02}" for i in range(40)]
    figure = draw(adata, ["X_one"])
    assert len(set(colours(figure.axes[0]))) == 13


def test_a_seed_decides(adata):
    def points(**options):
        return np.concatenate(
            [
                np.asarray(c.get_offsets())
                for c in draw(adata, ["X_two"], **options).axes[0].collections
            ]
        )

    one = points(seed=1)
    np.testing.assert_array_equal(points(seed=1), one)
    assert np.abs(points(seed=2) - one).max() > 1e-3


def test_cells_with_nan_are_left_out_of_their_panel(adata):
    adata.obsm["X_two"][3] = np.nan
    figure = draw(adata)
    drawn = [
        sum(
            np.isfinite(np.asarray(c.get_offsets(), dtype=float).astype(float)).all(1).sum()
            for c in ax.collections
        )
        for ax in figure.axes
    ]
    shown = [
        sum(int((~np.ma.getmaskarray(c.get_offsets())).all(1).sum()) for c in ax.collections)
        for ax in figure.axes
    ]
    assert drawn[0] == 40
    assert min(drawn[1], shown[1]) == 39


def test_the_file_is_written_and_the_figure_let_go(adata, tmp_path):
    for ending in ("png", "pdf"):
        figure = draw(adata, ["X_one"], save=tmp_path / f"x.{ending}", show=None)
        assert (tmp_path / f"x.{ending}").stat().st_size > 5_000
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    image = plt.imread(tmp_path / "x.png")
    assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 10
    assert plt.get_fignums() == []
    figure.savefig(tmp_path / "again.png")


@pytest.mark.parametrize(
    ("options", "shown"), [({}, 1), ({"show": False}, 0), ({"show": True, "save": "x.png"}, 1)]
)
def test_shown_unless_told_not_to_or_saved(adata, tmp_path, monkeypatch, options, shown):
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    sccello.pl.compare_embeddings(adata, ["X_one"], color="cell_type", **options)
    assert len(calls) == shown
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("n_cells", [4, 9, 12])
def test_few_cells(adata, n_cells):
    figure = draw(adata[:n_cells].copy(), ["X_one"])
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == n_cells


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            {"keys": ["X_pca"]},
            KeyError,
            r"adata\.obsm has no 'X_pca' \(keys: \['X_one', 'X_two'\]\)\. Call tl\.embed",
        ),
        ({"color": "celltype"}, KeyError, r"no column 'celltype' \(columns: \['cell_type'\]\)"),
        ({"keys": []}, ValueError, r"keys is \[\]; expected is a list with at least one key"),
        ({"keys": "X_one"}, ValueError, "keys is 'X_one'; expected is a list"),
        (
            {"keys": ["bad"]},
            ValueError,
            r"adata\.obsm\['bad'\] has 3 cells without NaN; UMAP needs at least 4",
        ),
    ],
)
def test_what_cannot_be_drawn_leaves_no_figure_behind(adata, change, error, says):
    adata.obsm["bad"] = np.full((40, 2), np.nan)
    adata.obsm["bad"][:3] = 1
    if "bad" not in change.get("keys", []):
        del adata.obsm["bad"]
    with pytest.raises(error, match=says):
        sccello.pl.compare_embeddings(
            adata, **{"keys": ["X_one"], "color": "cell_type", "show": False} | change
        )
    assert plt.get_fignums() == []


def test_users_own_warning_filters_stay(adata):
    before = list(warnings.filters)
    draw(adata, ["X_one"])
    assert list(warnings.filters) == before


@pytest.mark.parametrize("n_keys", [1, 2])
def test_the_legend_of_long_names_stays_inside_the_figure(adata, monkeypatch, n_keys):
    points = np.random.default_rng(0).normal(size=(40, 2))
    monkeypatch.setattr("sccello_tools.pl._compare_embeddings._umap", lambda *args: points)
    adata.obs["cell_type"] = [f"pancreatic stellate cell of kind {i % 8}" for i in range(40)]
    figure = draw(adata, ["X_one", "X_two"][:n_keys])
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert 0 <= box.y0 < box.y1 <= min(ax.get_window_extent().y0 for ax in figure.axes)
    assert {float(mark.get_sizes()[0]) for mark in legend.legend_handles} == {30.0}
