"""What all plots have in common: arguments, saving, showing, styles."""

from __future__ import annotations

import inspect
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from sccello_tools import pl
from sccello_tools.errors import ArgumentError

NAMES = list(pl.__all__)


def test_every_plot_is_covered_here(plots):
    assert sorted(plots) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shared_arguments_are_keyword_only_and_documented(name):
    function = getattr(pl, name)
    parameters = inspect.signature(function).parameters
    for argument in ("figsize", "show", "save", "return_fig"):
        assert parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[argument].default is None
    assert "%(" not in function.__doc__
    documented = function.__doc__.partition("Returns\n")[0]
    assert not [
        p for p in parameters if f"\n{p}\n" not in documented.replace("vmin, vmax", "vmin\nvmax\n")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_saved_into_new_folders(plots, tmp_path, name):
    figure = plots[name](save=tmp_path / "figures" / "today" / "a.png")
    assert (tmp_path / "figures" / "today" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    figure.savefig(tmp_path / "again.png")  # a saved figure can still be used


@pytest.mark.parametrize(
    ("save", "written"),
    [(True, "novelty.pdf"), (".svg", "novelty.svg"), ("x", "x.png"), (Path("n/x.svg"), "n/x.svg")],
)
def test_names_of_saved_figures(plots, tmp_path, monkeypatch, save, written):
    monkeypatch.chdir(tmp_path)
    plots["novelty"](save=save, color="status")
    assert Path(written).stat().st_size > 1000
    plots["novelty"](save=False, show=False)


@pytest.mark.parametrize("save", ["x.xlsx", ".", "new/"])
def test_a_file_that_cannot_be_written_is_refused_before_drawing(
    plots, tmp_path, monkeypatch, save
):
    monkeypatch.chdir(tmp_path)
    for name, draw in plots.items():
        with pytest.raises(ArgumentError, match="save="):
            draw(save=save)
        assert plt.get_fignums() == [], name


@pytest.mark.parametrize("name", NAMES)
def test_show_and_return_fig(plots, tmp_path, monkeypatch, name):
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    draw = plots[name]

    def outcome(**options):
        calls.clear()
        figure = draw(**options)
        plt.close("all")
        return len(calls), figure is not None

    assert outcome() == (1, False)
    assert outcome(show=False) == (0, True)
    assert outcome(return_fig=True) == (0, True)
    assert outcome(show=True, return_fig=True) == (1, True)
    assert outcome(show=False, return_fig=False) == (0, False)
    assert outcome(save=tmp_path / "a.png") == (0, True)
    assert outcome(save=tmp_path / "a.png", show=True) == (1, False)


WITH_AX = {
    "compare_embeddings": {},
    "confusion": {},
    "consensus": {},
    "drug_response": {},
    "go_enrichment": {},
    "novelty": {"color": "novelty"},
    "ontology_tree": {},
    "ontology_umap": {},
    "perturbation": {},
}


@pytest.mark.parametrize("name", list(WITH_AX))
def test_axes_of_the_user_are_drawn_into_and_stay_open(plots, monkeypatch, name):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown"))
    outer, axes = plt.subplots(1, 2)
    assert plots[name](ax=axes[1], **WITH_AX[name]) is outer
    assert axes[1].has_data()
    assert not axes[0].has_data()
    assert plt.fignum_exists(outer.number)
    subfigure = plt.figure().subfigures(1, 2)[0]
    assert plots[name](ax=subfigure.subplots(), **WITH_AX[name]) is subfigure.figure
    removed = outer.add_subplot()
    removed.remove()
    with pytest.raises(ArgumentError, match="does not belong to a figure"):
        plots[name](ax=removed, **WITH_AX[name])


@pytest.mark.parametrize("name", NAMES)
def test_figsize(plots, name):
    assert plots[name](figsize=(7, 6), show=False).get_size_inches().tolist() == [7, 6]


@pytest.mark.parametrize(
    "name", [n for n in NAMES if "legend_loc" in inspect.signature(getattr(pl, n)).parameters]
)
def test_legend_loc(plots, name):
    with pytest.raises(ArgumentError, match="legend_loc must be one of"):
        plots[name](legend_loc="middle", show=False)
    for loc in ("none", None):
        figure = plots[name](legend_loc=loc, show=False)
        # the key to hollow cells is not the legend of the types
        legends = [t.get_text() for x in figure.findobj(mpl.legend.Legend) for t in x.get_texts()]
        assert not [text for text in legends if "not a known type" not in text]
    plots[name](legend_loc="lower left", show=False).canvas.draw()
    plots[name](legend_loc="right margin", show=False).canvas.draw()


def luminance(color):
    rgb = np.array(mpl.colors.to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


@pytest.mark.parametrize("style", ["default", "dark_background", "Solarize_Light2", "grayscale"])
@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in {"confusion", "consensus", "embedding_quality"}]
)
def test_text_is_readable_in_every_style(plots, name, style):
    with plt.style.context(style):
        figure = plots[name](show=False)
        for ax in figure.axes:
            ground = ax.get_facecolor()
            for text in ax.texts:
                pair = sorted((luminance(text.get_color()), luminance(ground)))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) > 2.2, text.get_text()


@pytest.mark.parametrize("n_cells", [1, 2, 3])
def test_few_cells(cells, n_cells):
    few = cells[[0, 45, 100][:n_cells]].copy()
    few.obsm["X_sccello"] = np.random.default_rng(0).normal(size=(n_cells, 8)).astype(np.float32)
    del few.obsm["X_umap"]
    for draw in (
        pl.novelty,
        pl.ontology_umap,
        lambda a, **o: pl.compare_embeddings(a, ["X_sccello"], color="truth", **o),
    ):
        with pytest.warns(UserWarning, match=f"UMAP needs 4 cells, got {n_cells}"):
            draw(few, show=False).canvas.draw()
    assert "X_umap" not in few.obsm
    for draw in (pl.confidence, pl.confusion):
        draw(few, "truth", show=False).canvas.draw()
    pl.ontology_tree(few, color="sccello_novelty", show=False).canvas.draw()
