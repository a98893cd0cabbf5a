"""Annotated cells to one HTML page."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sccello_tools import _keys

from .facts import gather
from .figures import draw

if TYPE_CHECKING:
    from anndata import AnnData

_MANY_NOVEL = 0.5


def render_report(
    adata: AnnData,
    *,
    title: str = "Cells",
    key: str = _keys.CELL_TYPE,
    label_key: str | None = None,
    sample_key: str | None = None,
    basis: str = "X_umap",
    n_genes: int = 10,
    notes: tuple[str, ...] = (),
) -> str:
    """Write annotated cells down as a page that needs nothing else: no network, no script, no other file.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.annotate_novel` or :func:`sccello_tools.tl.annotate`; with marker genes of
        :func:`sccello_tools.tl.marker_genes`, if the page is to have them.
    title
        Heading of the page.
    key
        Column of ``obs`` with cell types.
    label_key
        Column of ``obs`` with labels of your own to compare with.
    sample_key
        Column of ``obs`` with samples, whose composition is compared.
    basis
        Key of ``obsm`` with two dimensions; ``"X_umap"`` is computed from ``"X_sccello"`` if it is not there, and kept.
    n_genes
        Marker genes of each type.
    notes
        Lines to put under the heading, such as what was left out.

    Returns
    -------
    HTML. Fields written: `adata.uns[key + "_colors"]`, and `adata.obsm["X_umap"]` if it was computed.

    Raises
    ------
    GroupError
        If a column is missing or holds no cell types.
    KeyError
        If there is no map and no embedding to compute it from.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> from sccello_tools.cli.report import render_report
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.embed(adata)
    >>> sccello.tl.annotate_novel(adata)
    >>> render_report(adata, title="Islets")[:15]
    '<!doctype html>'
    """
    from jinja2 import Environment, StrictUndefined

    # every value is escaped: names of cell types, genes and files come from other people
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("sccello_tools.cli.report").joinpath("page.html").read_text(encoding="utf-8")
    facts = gather(adata, key, sample_key=sample_key, n_genes=n_genes)
    pictures = draw(adata, key, label_key=label_key, basis=basis)
    return environment.from_string(text).render(
        title=title,
        facts=facts,
        pictures=pictures,
        label_key=label_key,
        sample_key=sample_key,
        notes=notes,
        many_novel=facts.novel is not None and facts.novel > _MANY_NOVEL,
    )
