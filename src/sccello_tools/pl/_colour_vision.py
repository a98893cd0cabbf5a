"""Colours as eyes see them: Oklab, and what red-blind, green-blind and blue-blind readers, and grey print, make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Machado, Oliveira and Fernandes (2009), severity 1: linear sRGB to linear sRGB
_PROTAN = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)
_DEUTAN = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
_TRITAN = (
    (1.255528, -0.076749, -0.178779),
    (-0.078411, 0.930809, 0.147602),
    (0.004733, 0.691367, 0.303900),
)
VISIONS = {
    "usual": np.eye(3),
    "protan": np.array(_PROTAN),
    "deutan": np.array(_DEUTAN),
    "tritan": np.array(_TRITAN),
}
"""Matrix on linear sRGB for each kind of colour vision."""

# Ottosson (2020), Oklab
_TO_CONE = np.array(
    (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
)
_CONE_TO_LAB = np.array(
    (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
)
_LAB_TO_CONE = np.linalg.inv(_CONE_TO_LAB)
_TO_LINEAR = np.linalg.inv(_TO_CONE)
_TOLERANCE = 1e-4  # how far out of the screen's range a channel may be before it counts


def oklch_to_srgb(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    """Return sRGB in [0, 1], shape (3,); chroma gives way where the screen has no such colour. Hue is in radians."""
    while True:
        lab = np.array([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])
        linear = _TO_LINEAR @ (_LAB_TO_CONE @ lab) ** 3
        if chroma < 0.01 or (linear.min() >= -_TOLERANCE and linear.max() <= 1 + _TOLERANCE):
            break
        chroma *= 0.95
    linear = np.clip(linear, 0, 1)
    return np.asarray(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


def seen(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return Oklab of colours, shape (n, 3), as each of :data:`VISIONS` has them: shape (n_visions, n, 3)."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    changed = np.clip(np.stack([linear @ matrix.T for matrix in VISIONS.values()]), 0, 1)
    return np.asarray(np.cbrt(changed @ _TO_CONE.T) @ _CONE_TO_LAB.T)


def luminance(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return relative luminance, shape (n,), as in WCAG 2: what grey print leaves."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))
