"""Colours that follow lineage: close terms, close hues; lightness parts what hue leaves close, for colour-blind readers and grey print."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from ._colour_vision import oklch_to_srgb, seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._term_tree import TermTree

# Not lighter, or it is lost on white; not darker, or all hues look black.
_LIGHTNESS = tuple(np.linspace(0.38, 0.87, 14).tolist())
_CHROMA = 0.15
_FIRST_HUE = 0.45  # radians: an orange red
_HUES = 1.72 * np.pi  # not the whole circle, or the last lineage would look like the first
_GREY_STEP = 0.15  # lightness between a term and the one before it


def lineage_colours(tree: TermTree) -> dict[str, str]:
    """Give each asked term of a tree a colour as ``#rrggbb``.

    Hue goes around with the order of the tree, in steps as wide as the terms are apart. Of some lightnesses each term takes, in turn,
    the one that parts it best from those before it, in the eyes of the reader who sees least of the difference.
    """
    terms = tree.leaves_in_order
    steps = [tree.distance(a, b) ** 0.5 for a, b in itertools.pairwise(terms)]
    place = np.concatenate([[0.0], np.cumsum(steps)])
    hues = _FIRST_HUE + _HUES * place / max(place[-1], 1.0)
    chosen: list[NDArray[np.float64]] = []
    views: list[NDArray[np.float64]] = []
    last = 0.0
    for number, hue in enumerate(hues):
        levels = [x for x in _LIGHTNESS if abs(x - last) >= _GREY_STEP or not number]
        choices = np.array([oklch_to_srgb(x, _CHROMA, float(hue)) for x in levels])
        as_seen = seen(choices)  # (n_visions, n_levels, 3)
        best = (
            _farthest(as_seen, views) if views else int(np.argmin(np.abs(np.array(levels) - 0.6)))
        )
        chosen.append(choices[best])
        views.append(as_seen[:, best])
        last = levels[best]
    return {term: _hex(rgb) for term, rgb in zip(terms, chosen)}


def _farthest(choices: NDArray[np.float64], taken: list[NDArray[np.float64]]) -> int:
    """Index of the choice whose nearest taken colour is farthest, worst vision first."""
    others = np.stack(taken, axis=1)  # (n_visions, n_taken, 3)
    apart = choices[:, :, None] - others[:, None]  # (n_visions, n_levels, n_taken, 3)
    gap = np.linalg.norm(apart, axis=-1)
    return int(gap.min(axis=(0, 2)).argmax())


def _hex(rgb: NDArray[np.float64]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)
