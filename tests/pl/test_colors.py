"""Colours: similar for related types, different in every colour vision, and the palettes of scanpy."""

from __future__ import annotations

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from cycler import cycler

from sccello_tools.errors import ArgumentError
from sccello_tools.ontology import CellOntology
from sccello_tools.pl.colors import (
    VISIONS,
    category_colors,
    distinct_colors,
    keep_colors,
    lineage_colors,
    oklch_to_srgb,
    simulate_vision,
)
from sccello_tools.pl.term_tree import TermTree

PANCREAS = [
    "CL:0000171",
    "CL:0000169",
    "CL:0000173",
    "CL:0002275",
    "CL:0002064",
    "CL:0002079",
    "CL:0002410",
    "CL:0000115",
]
BLOOD = [
    "CL:0000624",
    "CL:0000625",
    "CL:0000236",
    "CL:0000623",
    "CL:0001054",
    "CL:0000451",
    "CL:0000233",
    "CL:0000899",
    "CL:0000815",
]


def drawn(terms):
    tree = TermTree.of(terms, CellOntology.load())
    colors = lineage_colors(tree)
    return np.array([mpl.colors.to_rgb(colors[term]) for term in tree.selected_in_order])


def luminance(rgb):
    """Relative luminance of WCAG 2."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def smallest_distance(rgb, vision):
    lab = simulate_vision(rgb)[list(VISIONS).index(vision)]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return distances[np.triu_indices(len(lab), 1)].min()


@pytest.mark.parametrize("vision", list(VISIONS))
def test_colors_differ_in_every_color_vision(vision):
    # Oklab; a difference of 0.02 is just noticeable side by side
    assert smallest_distance(drawn(PANCREAS), vision) > 0.07
    assert smallest_distance(drawn(BLOOD), vision) > 0.07
    distinct = np.array([mpl.colors.to_rgb(c) for c in distinct_colors(20)])
    assert smallest_distance(distinct, vision) > 0.03


@pytest.mark.parametrize("n_types", [8, 30, 60])
def test_neighbours_differ_in_grey_and_are_visible_on_white_and_black(n_types):
    rgb = drawn(sorted(CellOntology.load().descendants("CL:0000542"))[:n_types])
    lightness = simulate_vision(rgb)[0, :, 0]
    assert np.abs(np.diff(lightness)).min() > 0.14
    assert (1.05 / (luminance(rgb) + 0.05)).min() > 1.3
    assert ((luminance(rgb) + 0.05) / 0.05).min() > 1.3
    assert len(np.unique(rgb, axis=0)) == n_types


def test_color_spaces():
    grey = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]])
    np.testing.assert_allclose(simulate_vision(grey)[0, :, 1:], 0, atol=1e-4)
    np.testing.assert_allclose(simulate_vision(grey)[:, 2, 0], 1, atol=1e-2)
    # a colour of sRGB and back
    lab = simulate_vision(oklch_to_srgb(0.6, 0.1, 1.0)[None])[0, 0]
    np.testing.assert_allclose(lab, [0.6, 0.1 * np.cos(1.0), 0.1 * np.sin(1.0)], atol=1e-3)
    # red and green of the same lightness are similar in deuteranopia only
    pair = np.stack([oklch_to_srgb(0.6, 0.12, 0.5), oklch_to_srgb(0.6, 0.12, 2.4)])
    gaps = dict(zip(VISIONS, np.linalg.norm(np.diff(simulate_vision(pair), axis=1)[:, 0], axis=-1)))
    assert gaps["deutan"] < 0.5 * gaps["normal"]


NAMES = ["a", "b", "c"]


@pytest.fixture
def adata():
    adata = anndata.AnnData(np.zeros((3, 1), dtype=np.float32))
    adata.obs["x"] = pd.Categorical(NAMES)
    return adata


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        ("Set1", [mpl.colors.to_hex(c) for c in mpl.colormaps["Set1"].colors[:3]]),
        ("viridis", [mpl.colors.to_hex(mpl.colormaps["viridis"](x)) for x in (0.0, 0.5, 1.0)]),
        (["red", "#00FF00", "k"], ["#ff0000", "#00ff00", "#000000"]),
        (cycler(color=["red", "lime", "k"]), ["#ff0000", "#00ff00", "#000000"]),
        ({"b": "red"}, ["#111111", "#ff0000", "#333333"]),
        ("lineage", ["#111111", "#222222", "#333333"]),
        (None, ["#111111", "#222222", "#333333"]),
    ],
)
def test_palettes_of_all_kinds(adata, palette, expected):
    default = ["#111111", "#222222", "#333333"]
    assert category_colors(adata, "x", NAMES, palette, default) == expected


def test_stored_colors_are_used_if_they_fit_and_never_replaced(adata):
    default = ["#111111", "#222222", "#333333"]
    stored = ["red", "lime", "blue"]
    adata.uns["x_colors"] = np.array(stored, dtype=object)
    assert category_colors(adata, "x", NAMES, None, default) == ["#ff0000", "#00ff00", "#0000ff"]
    assert category_colors(adata, "x", NAMES, "lineage", default) == default
    keep_colors(adata, "x", default)
    assert list(adata.uns["x_colors"]) == stored
    for unusable in (stored[:2], [*stored, "k"], ["red", "lime", "no colour"]):
        adata.uns["x_colors"] = unusable
        assert category_colors(adata, "x", NAMES, None, default) == default
        assert list(adata.uns["x_colors"]) == unusable


@pytest.mark.parametrize("palette", ["tab21", ["red", "rde", "blue"], {"a": 7.5}, []])
def test_palettes_that_do_not_exist(adata, palette):
    with pytest.raises(ArgumentError, match="palette"):
        category_colors(adata, "x", NAMES, palette)


def test_a_short_palette_is_repeated_with_a_warning(adata):
    with pytest.warns(UserWarning, match="2 colours for 3 categories"):
        assert category_colors(adata, "x", NAMES, ["red", "blue"])[2] == "#ff0000"
