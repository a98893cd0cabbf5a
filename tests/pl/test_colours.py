"""Colours: near for relatives, apart for every reader."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from sccello_tools.ontology import CellOntology
from sccello_tools.pl._colour_vision import VISIONS, luminance, oklch_to_srgb, seen
from sccello_tools.pl._lineage_colours import lineage_colours
from sccello_tools.pl._term_tree import TermTree

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
    colours = lineage_colours(tree)
    return np.array([mpl.colors.to_rgb(colours[term]) for term in tree.leaves_in_order])


@pytest.mark.parametrize("terms", [PANCREAS, BLOOD])
@pytest.mark.parametrize("vision", list(VISIONS))
def test_types_differ_for_every_reader(terms, vision):
    lab = seen(drawn(terms))[list(VISIONS).index(vision)]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert apart.min() > 0.07  # Oklab; 0.02 is just told apart side by side


@pytest.mark.parametrize("n_types", [8, 30, 60])
def test_neighbours_differ_in_grey_and_none_is_lost_on_white(n_types):
    rgb = drawn(sorted(CellOntology.load().descendants("CL:0000542"))[:n_types])
    lightness = seen(rgb)[0, :, 0]
    assert np.abs(np.diff(lightness)).min() > 0.14
    assert lightness.max() < 0.9
    assert (1.05 / (luminance(rgb) + 0.05)).min() > 1.3
    assert len(np.unique(rgb, axis=0)) == n_types


def test_what_colour_spaces_must_satisfy():
    grey = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]])
    np.testing.assert_allclose(seen(grey)[0, :, 1:], 0, atol=1e-4)  # grey has no colour
    np.testing.assert_allclose(seen(grey)[:, 2, 0], 1, atol=1e-2)  # white is white to all
    assert list(luminance(grey)[[0, 2]]) == pytest.approx([0, 1])
    # there and back, for a colour that the screen has
    lab = seen(oklch_to_srgb(0.6, 0.1, 1.0)[None])[0, 0]
    np.testing.assert_allclose(lab, [0.6, 0.1 * np.cos(1.0), 0.1 * np.sin(1.0)], atol=1e-3)
    # red and green of like lightness are near for the green-blind, and far for the others
    pair = np.stack([oklch_to_srgb(0.6, 0.12, 0.5), oklch_to_srgb(0.6, 0.12, 2.4)])
    gaps = dict(zip(VISIONS, np.linalg.norm(np.diff(seen(pair), axis=1)[:, 0], axis=-1)))
    assert gaps["deutan"] < 0.5 * gaps["usual"]
