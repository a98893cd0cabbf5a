"""Volcano plots and matrices of perturbation effects."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from sccello_tools import pl
from sccello_tools.errors import ArgumentError, NotFoundError


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_several_groups_are_a_matrix(effects):
    figure = pl.perturbation(effects(), gene_symbols="symbol", show=False)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["group 0", "group 1", "group 2"]
    assert {t.get_text() for t in ax.get_yticklabels()} == {f"S{i}" for i in range(12)}
    dots = ax.collections[0]
    assert len(dots.get_offsets()) == 35  # one perturbation changes no cell
    assert dots.get_clim() == pytest.approx((-dots.get_clim()[1], dots.get_clim()[1]))


def test_one_group_is_a_volcano_plot(effects):
    adata = effects()
    figure = pl.perturbation(adata, "group 1", n_labels=4, show=False)
    ax = figure.axes[0]
    table = adata.uns["sccello_perturbation"]["table"]
    rows = table["group"] == "group 1"
    expected = np.log2(table["shift"][rows] / table["control_shift"][rows])
    np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets()[:, 0]), np.sort(expected))
    assert len(texts(ax)) == 4
    assert texts(ax).count(table["perturbation"][rows][np.abs(expected).argmax()]) == 1


def test_volcano_plots_of_several_groups_toward_a_target(effects):
    figure = pl.perturbation(effects(4, toward=True), kind="volcano", ncols=2, show=False)
    drawn = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in drawn] == [f"group {i}" for i in range(4)]
    assert "target" in drawn[-1].get_xlabel()


@pytest.mark.parametrize("kind", ["volcano", "matrix"])
def test_labels_of_a_volcano_do_not_overlap_and_the_figure_is_given(kind, effects):
    _, ax = plt.subplots(figsize=(4.6, 3.8))
    figure = pl.perturbation(effects(1, 9), kind=kind, ax=ax, show=False)
    assert figure is ax.figure
    if kind == "volcano":
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in ax.texts]
        overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
        assert not overlaps


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("n_groups", [3, 40])
def test_styles_and_many_groups(style, n_groups, effects):
    with mpl.style.context(style):
        for kind in ("matrix", "volcano"):
            figure = pl.perturbation(effects(n_groups), kind=kind, show=False)
            figure.canvas.draw()


def test_files(tmp_path, effects):
    assert pl.perturbation(effects(), save=tmp_path / "new" / "p.png", return_fig=False) is None
    assert (tmp_path / "new" / "p.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "pie"}, ArgumentError, "'volcano', 'matrix'"),
        ({"value": "pval"}, ArgumentError, "'log2_ratio', 'toward'"),
        ({"value": "toward"}, ArgumentError, "toward="),
        ({"groups": "z"}, NotFoundError, "'z'"),
        ({"key": "other"}, NotFoundError, "tl.perturb"),
        ({"gene_symbols": "nope"}, NotFoundError, "nope"),
    ],
)
def test_invalid_options(options, error, message, effects):
    with pytest.raises(error, match=message):
        pl.perturbation(effects(), show=False, **options)
    _, ax = plt.subplots()
    with pytest.raises(ArgumentError, match="groups="):
        pl.perturbation(effects(), kind="volcano", ax=ax, show=False)
