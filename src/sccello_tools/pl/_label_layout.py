"""Labels that do not overlap: pushed apart from where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._figures import figure_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from numpy.typing import NDArray

_ROUNDS = 400
_GAP = 3.0  # pixels between labels
_OFF = 4.0  # pixels from an anchor to its label
_PULL = 0.02  # share of the way home that a label takes each round


def spread_labels(ax: Axes, texts: Sequence[Text], anchors: NDArray[np.floating]) -> None:
    """Move texts until none covers another, and draw a line to the anchor of each that had to go far.

    Parameters
    ----------
    ax
        Axes whose limits are final.
    texts
        Labels, centred on their anchors.
    anchors
        (n, 2) in data coordinates.
    """
    if not texts:
        return
    figure_of(ax).draw_without_rendering()  # sizes of texts are known once they are laid out
    boxes = [text.get_window_extent() for text in texts]
    half = np.array([[box.width / 2 + _GAP, box.height / 2 + _GAP] for box in boxes])
    places = ax.transData.transform(anchors)
    home = places + np.stack([np.zeros(len(half)), half[:, 1] + _OFF], axis=1)  # above the dot
    frame = ax.get_window_extent()
    low = np.array([frame.x0, frame.y0]) + half
    high = np.maximum(np.array([frame.x1, frame.y1]) - half, low)
    at = _push_apart(home, half, low, high, places)
    to_data = ax.transData.inverted()
    for text, place, start, size in zip(texts, at, places, half):
        text.set_position(tuple(to_data.transform(place)))
        if np.any(
            np.abs(place - start) > size + 3 * _OFF
        ):  # the anchor lies well outside the label
            ax.annotate(
                "",
                xy=tuple(to_data.transform(start)),
                xytext=tuple(to_data.transform(place)),
                arrowprops={
                    "arrowstyle": "-",
                    "color": "0.5",
                    "lw": 0.5,
                    "ls": (0, (3, 2)),
                    "shrinkB": 2,
                },
                zorder=text.get_zorder() - 0.5,
            )


def _push_apart(
    home: NDArray[np.floating],
    half: NDArray[np.floating],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
    dots: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Relax (n, 2) centres of boxes with (n, 2) half sizes until none overlap, inside bounds, and, if it can be, off the dots."""
    rng = np.random.default_rng(0)
    # boxes at one and the same place have no direction to part in
    at = np.clip(home + rng.normal(0, 0.5, home.shape), low, high)
    reach = half[:, None] + half[None]  # (n, n, 2)
    for number in range(_ROUNDS):
        apart = at[:, None] - at[None]
        overlap = reach - np.abs(apart)
        hit = np.logical_and(overlap[..., 0] > 0, overlap[..., 1] > 0)
        np.fill_diagonal(hit, val=False)
        if number and not hit.any() and not _off_dots(at, half, dots).any():
            break
        # each pair parts along the axis that takes the shorter way; sideways counts double, lines of text are long
        shorter_x = overlap[..., 0] < overlap[..., 1]
        push = np.zeros_like(apart)
        push[..., 0] = np.where(hit & shorter_x, np.sign(apart[..., 0]) * overlap[..., 0], 0)
        push[..., 1] = np.where(hit & ~shorter_x, np.sign(apart[..., 1]) * overlap[..., 1], 0)
        if number < _ROUNDS * 0.7:  # dots give way to labels in the end, labels to each other never
            push += _off_dots(at, half, dots)
        pull = _PULL * (home - at) * (number < _ROUNDS * 0.7)
        at = np.clip(at + 0.5 * push.sum(axis=1) + pull, low, high)
    return at


def _off_dots(
    at: NDArray[np.floating], half: NDArray[np.floating], dots: NDArray[np.floating]
) -> NDArray[np.floating]:
    """How far each label would have to go, up or down, to uncover each dot: (n, n_dots, 2)."""
    apart = at[:, None] - dots[None]
    overlap = half[:, None] + _OFF - np.abs(apart)
    hit = np.logical_and(overlap[..., 0] > 0, overlap[..., 1] > 0)
    push = np.zeros_like(apart)
    push[..., 1] = np.where(hit, np.where(apart[..., 1] < 0, -1, 1) * overlap[..., 1], 0)
    return push
