"""The page's pictures, as data URIs: they travel inside the file."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from sccello_tools import _keys, pl

if TYPE_CHECKING:
    from typing import Literal

    from anndata import AnnData
    from matplotlib.figure import Figure

_DPI = 170


class Picture(NamedTuple):
    """A picture and what it shows, in words."""

    uri: str
    alt: str


class Pictures(NamedTuple):
    """What was drawn; ``None`` where there is nothing to draw."""

    umap: Picture
    confidence: Picture | None
    confusion: Picture | None


def draw(adata: AnnData, key: str, *, label_key: str | None, basis: str) -> Pictures:
    """Draw the page's pictures, without a screen; computes a UMAP if there is none."""
    with mpl.rc_context({"backend": "agg", "svg.hashsalt": "sccello", "font.family": "sans-serif"}):
        umap = _picture(
            pl.ontology_umap(adata, key, basis=basis, show=False),
            "png",
            "Map of all cells: each point is a cell, like cells lie together, colours are cell types.",
        )
        confidence = None
        if key + _keys.CONFIDENCE_SUFFIX in adata.obs:
            figure = pl.confidence(adata, label_key, key=key, ncols=2, show=False)
            confidence = _picture(
                figure, "svg", "How many cells have which confidence and novelty."
            )
        confusion = None
        if label_key is not None:
            figure = pl.confusion(adata, label_key, key, show=False)
            alt = f"Cell types of {label_key} against those found here."
            confusion = _picture(figure, "svg", alt)
    return Pictures(umap, confidence, confusion)


def _picture(figure: Figure | None, kind: Literal["png", "svg"], alt: str) -> Picture:
    import matplotlib.pyplot as plt

    if figure is None:  # pl returns what it did not show
        msg = "A figure was shown and is gone; the report draws with show=False."
        raise RuntimeError(msg)
    file = io.BytesIO()
    # without the date, so that the same cells give the same page
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    plt.close(figure)
    form = "image/svg+xml" if kind == "svg" else "image/png"
    return Picture(f"data:{form};base64,{base64.b64encode(file.getvalue()).decode()}", alt)
