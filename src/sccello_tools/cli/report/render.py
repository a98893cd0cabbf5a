"""Annotated cells as an HTML page."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
from matplotlib.style import context

from sccello_tools import _keys, pl

from .content import content_of

if TYPE_CHECKING:
    from typing import Any, Literal

    from anndata import AnnData
    from matplotlib.figure import Figure

_MANY_NOVEL = 0.5
_DPI = 170


class Picture(NamedTuple):
    """A figure as a data URI, and a description in words."""

    uri: str
    alt: str


def render_report(
    adata: AnnData,
    *,
    title: str = "Cells",
    key: str = _keys.CELL_TYPE,
    label_key: str | None = None,
    batch_key: str | None = None,
    basis: str = "X_umap",
    n_genes: int = 10,
    notes: tuple[str, ...] = (),
) -> str:
    """Write an HTML report of annotated cells: a single file without scripts or external resources.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.annotate_novel` or :func:`sccello_tools.tl.annotate`; marker genes of
        :func:`sccello_tools.tl.marker_genes` are shown if present.
    title
        Heading of the page.
    key
        Column of ``obs`` with cell types.
    label_key
        Column of ``obs`` with existing labels to compare with.
    batch_key
        Column of ``obs`` with samples or donors, whose composition is compared.
    basis
        Key of ``obsm`` with two dimensions. ``"X_umap"`` is computed from ``"X_sccello"`` if it does not exist.
    n_genes
        Number of marker genes per type.
    notes
        Remarks to show below the heading.

    Returns
    -------
    HTML. Fields written if they do not exist: `adata.uns[key + "_colors"]` and `adata.obsm["X_umap"]`.

    Raises
    ------
    GroupError
        If a column does not exist or has no cell types.
    NotFoundError
        If there is neither a basis nor an embedding to compute it from.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> from sccello_tools.cli.report import render_report
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> render_report(adata, title="Islets")[:15]
    '<!doctype html>'
    """
    from jinja2 import Environment, StrictUndefined

    # all values are escaped, because names of cell types, genes and files come from other people
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = files("sccello_tools.cli.report").joinpath("page.html").read_text(encoding="utf-8")
    content = content_of(adata, key, batch_key=batch_key, n_genes=n_genes)
    return environment.from_string(page).render(
        title=title,
        content=content,
        pictures=_draw(adata, key, label_key, basis),
        label_key=label_key,
        batch_key=batch_key,
        notes=notes,
        many_novel=content.novel is not None and content.novel > _MANY_NOVEL,
    )


def _draw(adata: AnnData, key: str, label_key: str | None, basis: str) -> dict[str, Picture]:
    """Draw the figures of the report in matplotlib's default style, without a screen."""
    style: Any = {"backend": "agg", "svg.hashsalt": "sccello"}
    with context("default"), mpl.rc_context(style):
        umap = pl.ontology_umap(adata, key, basis=basis, show=False)
        found = {"umap": _picture(umap, "png", "UMAP of all cells, coloured by cell type.")}
        if key + _keys.CONFIDENCE_SUFFIX in adata.obs:
            figure = pl.confidence(adata, label_key, key=key, ncols=2, show=False)
            alt = "Histograms of confidence and novelty."
            found["confidence"] = _picture(figure, "svg", alt)
        if label_key is not None:
            figure = pl.confusion(adata, label_key, key, show=False)
            alt = f"Confusion matrix of {label_key} and predicted cell types."
            found["confusion"] = _picture(figure, "svg", alt)
    return found


def _picture(figure: Figure | None, kind: Literal["png", "svg"], alt: str) -> Picture:
    import matplotlib.pyplot as plt

    if figure is None:  # figures are returned with show=False
        msg = "A figure of the report was not returned."
        raise RuntimeError(msg)
    file = io.BytesIO()
    # no date, so that the same cells give the same page
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    plt.close(figure)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return Picture(f"data:{mime};base64,{base64.b64encode(file.getvalue()).decode()}", alt)
