"""Colours that follow lineage: close terms, close hues; neighbours differ in lightness, so that they part in grey, too."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._term_tree import TermTree

# Lightness of neighbouring terms, in turn: far enough apart for grey print and for readers who see few hues.
_LIGHTNESS = (0.52, 0.74, 0.63, 0.84)
_CHROMA = 0.14
_FIRST_HUE = (
    0.35  # radians: starts at a red, leaves yellow, which is poor on white, to dark terms only
)
_HUES = 1.75 * np.pi  # not the whole circle, or the last lineage would look like the first


def lineage_colours(tree: TermTree) -> dict[str, str]:
    """Give each asked term of a tree a colour as ``#rrggbb``.

    Hue goes around with the order of the tree, in steps as wide as the terms are apart.
    """
    terms = tree.leaves_in_order
    steps = [tree.distance(a, b) ** 0.7 for a, b in itertools.pairwise(terms)]
    place = np.concatenate([[0.0], np.cumsum(steps)])
    hues = _FIRST_HUE + _HUES * place / max(place[-1], 1.0)
    colours = {}
    for number, (term, hue) in enumerate(zip(terms, hues)):
        lightness = _LIGHTNESS[number % len(_LIGHTNESS)]
        colours[term] = _hex(_srgb(lightness, _CHROMA, float(hue)))
    return colours


def _srgb(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    """Oklch (Ottosson 2020) to sRGB; chroma gives way where the screen has no such colour."""
    while True:
        a, b = chroma * np.cos(hue), chroma * np.sin(hue)
        cone = np.array(
            [
                lightness + 0.3963377774 * a + 0.2158037573 * b,
                lightness - 0.1055613458 * a - 0.0638541728 * b,
                lightness - 0.0894841775 * a - 1.2914855480 * b,
            ]
        )
        linear = (
            np.array(
                [
                    [4.0767416621, -3.3077115913, 0.2309699292],
                    [-1.2684380046, 2.6097574011, -0.3413193965],
                    [-0.0041960863, -0.7034186147, 1.7076147010],
                ]
            )
            @ cone**3
        )
        if chroma < 0.01 or (linear.min() >= -1e-4 and linear.max() <= 1 + 1e-4):
            break
        chroma *= 0.95
    linear = np.clip(linear, 0, 1)
    found: NDArray[np.float64] = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return found


def _hex(rgb: NDArray[np.float64]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)
