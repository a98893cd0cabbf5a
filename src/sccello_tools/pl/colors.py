"""Colours: perceptual distances for all kinds of colour vision, colours by lineage, and the colours of a column's categories."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.counts import warn_user
from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    from anndata import AnnData
    from numpy.typing import NDArray

    from .term_tree import TermTree

    class Cycler(Protocol):
        """A ``cycler.Cycler``."""

        def by_key(self) -> dict[str, list[Any]]:
            """Return the values by property."""

    Palette: TypeAlias = str | Sequence[str] | Mapping[str, str] | Cycler

UNKNOWN = "#bdbdbd"
"""Colour of cells without a category and of names that are not Cell Ontology terms."""
# Okabe and Ito's palette without black and grey, which are text and missing values here
_FEW = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")

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
    "normal": np.eye(3),
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
_TOLERANCE = 1e-4  # of a channel outside the sRGB range


def oklch_to_srgb(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    """Convert a colour to sRGB in [0, 1], shape (3,); chroma is reduced where sRGB has no such colour. Hue in radians."""
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


def simulate_vision(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Oklab coordinates of colours, shape (n, 3), for each of :data:`VISIONS`: shape (n_visions, n, 3)."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    changed = np.clip(np.stack([linear @ matrix.T for matrix in VISIONS.values()]), 0, 1)
    return np.asarray(np.cbrt(changed @ _TO_CONE.T) @ _CONE_TO_LAB.T)


# Limits of lightness: readable both on white and on black
_LIGHTNESS = tuple(np.linspace(0.38, 0.87, 14).tolist())
_CHROMA = 0.15
_FIRST_HUE = 0.45  # radians: orange red
_HUES = 1.72 * np.pi  # less than the full circle, so that the last colour differs from the first
_LIGHTNESS_STEP = 0.15  # minimum difference in lightness between consecutive colours


def lineage_colors(tree: TermTree) -> dict[str, str]:
    """Assign a colour to each term of a tree: hue follows the order of the tree, so that related types have related hues."""
    terms = tree.selected_in_order
    steps = [tree.distance(a, b) ** 0.5 for a, b in itertools.pairwise(terms)]
    return dict(zip(terms, _spread(np.cumsum([0.0, *steps]))))


def distinct_colors(n: int) -> list[str]:
    """Return ``n`` colours as ``#rrggbb`` that differ for readers with any colour vision."""
    return list(_FEW[:n]) if n <= len(_FEW) else _spread(np.arange(n, dtype=float))


def _spread(positions: NDArray[np.float64]) -> list[str]:
    """Colours with hue proportional to position.

    The lightness of each is chosen among a few levels to maximise the smallest Oklab distance to the colours before it, in the
    colour vision where that distance is smallest.
    """
    hues = _FIRST_HUE + _HUES * positions / max(positions[-1] if len(positions) else 0.0, 1.0)
    chosen: list[str] = []
    views: list[NDArray[np.float64]] = []
    last = 0.0
    for number, hue in enumerate(hues):
        levels = [x for x in _LIGHTNESS if abs(x - last) >= _LIGHTNESS_STEP or not number]
        choices = np.array([oklch_to_srgb(x, _CHROMA, float(hue)) for x in levels])
        lab = simulate_vision(choices)  # (n_visions, n_levels, 3)
        if views:
            gaps = np.linalg.norm(lab[:, :, None] - np.stack(views, axis=1)[:, None], axis=-1)
            best = int(gaps.min(axis=(0, 2)).argmax())
        else:
            best = int(np.argmin(np.abs(np.array(levels) - 0.6)))
        chosen.append("#" + "".join(f"{round(255 * value):02x}" for value in choices[best]))
        views.append(lab[:, best])
        last = levels[best]
    return chosen


def category_colors(
    adata: AnnData | None,
    key: str,
    names: Sequence[str],
    palette: Palette | None,
    default: Sequence[str] | None = None,
) -> list[str]:
    """Return one colour per category as ``#rrggbb``.

    Parameters
    ----------
    adata
        Annotated data whose ``uns[key + "_colors"]`` is used if ``palette`` is None and the number of colours fits.
    key
        Column that the categories belong to.
    names
        Categories.
    palette
        Colours as in scanpy: the name of a matplotlib colormap, a sequence of colours, a cycler, or a mapping from categories to
        colours; ``"lineage"`` selects ``default``, whatever is stored.
    default
        Colours without a palette; distinct colours if None.

    Raises
    ------
    ArgumentError
        If the palette does not exist or contains something that is not a colour.
    """
    import matplotlib as mpl

    default = distinct_colors(len(names)) if default is None else default
    if palette is None:
        stored = [] if adata is None else [str(c) for c in adata.uns.get(f"{key}_colors", ())]
        fits = len(stored) == len(names) and all(map(mpl.colors.is_color_like, stored))
        return [mpl.colors.to_hex(c) for c in stored] if fits else list(default)
    if isinstance(palette, str):
        if palette == "lineage":
            return list(default)
        return _from_colormap(palette, len(names))
    given: Any = palette
    if isinstance(given, Mapping):
        return [_hex(given[name]) if name in given else d for name, d in zip(names, default)]
    colors = [_hex(c) for c in (given if isinstance(given, Sequence) else given.by_key()["color"])]
    if not colors:
        msg = "palette is empty. Pass at least one colour."
        raise ArgumentError(msg)
    if len(colors) < len(names):
        warn_user(
            f"palette has {len(colors)} colours for {len(names)} categories of {key!r}: some share a colour."
        )
    return [colors[i % len(colors)] for i in range(len(names))]


def keep_colors(adata: AnnData, key: str, colors: Sequence[str]) -> None:
    """Store colours as ``adata.uns[key + "_colors"]``, where scanpy looks for them.

    Existing colours are never replaced, and nothing is written to a view, which would turn it into a copy.
    """
    if f"{key}_colors" not in adata.uns and not adata.is_view:
        adata.uns[f"{key}_colors"] = np.array(colors, dtype=object)


def _from_colormap(name: str, n: int) -> list[str]:
    import matplotlib as mpl

    if name not in mpl.colormaps:
        msg = (
            f"palette must be the name of a matplotlib colormap, 'lineage', a sequence of colours or a mapping from categories to "
            f"colours, got {name!r}. Names are, for example, 'tab20', 'Set2' or 'viridis'."
        )
        raise ArgumentError(msg)
    cmap = mpl.colormaps[name]
    if isinstance(cmap, mpl.colors.ListedColormap) and cmap.N < 256:  # qualitative
        return [mpl.colors.to_hex(cmap(i % cmap.N)) for i in range(n)]
    return [mpl.colors.to_hex(cmap(x)) for x in np.linspace(0, 1, n)]


def _hex(color: Any) -> str:
    import matplotlib as mpl

    if not mpl.colors.is_color_like(color):
        msg = f"palette contains {color!r}, which is not a matplotlib colour. Pass names such as 'red' or '#rrggbb'."
        raise ArgumentError(msg)
    return mpl.colors.to_hex(color)
