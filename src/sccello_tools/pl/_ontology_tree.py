"""The part of the Cell Ontology that cell types span."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from sccello_tools import _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, GroupError
from sccello_tools.ontology import CellOntology

from ._figure import axes_of, finish, save_path, shade
from .colors import category_colors, lineage_colors
from .term_tree import TermTree, draw_tree, tree_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sccello_tools._anndata.terms import TypeColumn

    from .colors import Palette

_BAR, _TITLE = 0.7, 0.25  # inches of the colour bar and of the title


@shared_docs
def ontology_tree(
    adata: AnnData | Sequence[str],
    *,
    key: str = _keys.CELL_TYPE,
    color: str | None = None,
    cmap: str = "viridis",
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Tree of cell types and their common ancestors in the Cell Ontology; the area of a dot is the number of cells.

    Parameters
    ----------
    adata
        Annotated data, or a list of Cell Ontology ids.
    key
        Column of ``adata.obs`` with cell types.
    color
        Numeric column of ``adata.obs``, such as ``"sccello_cell_type_confidence"``, whose mean per type colours the dots. If None,
        they have the colours of the types, as in :func:`ontology_umap`.
    cmap
        Colormap of ``color``.
    palette
        %(palette)s
    ax
        %(ax)s
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown.

    Raises
    ------
    GroupError
        If ``key`` is not a column of cell types, ``color`` not a numeric column, or there are no terms.
    LabelError
        If an id is unknown or obsolete without successor.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> figure = sccello.pl.ontology_tree(["CL:0000624", "CL:0000625", "CL:0000236"], show=False)
    """
    import matplotlib as mpl

    path = save_path(save, "ontology_tree")
    ontology = CellOntology.load()
    counts: dict[str, int] | None = None
    means: pd.Series[float] | None = None
    if isinstance(adata, AnnData):
        column = type_column(adata, key, ontology)
        counts = {}
        for term, n in zip(column.terms, column.counts):
            if term and n:
                counts[term] = counts.get(term, 0) + int(n)
        terms = list(counts)
        if color is not None:
            means = _means(adata, color, column)
    elif color is not None:
        msg = f"color={color!r} needs an AnnData; a list of terms has no columns."
        raise ArgumentError(msg)
    else:
        terms = [ontology.current(term) for term in adata]
    if not terms:
        msg = "There are no Cell Ontology terms to draw. Pass at least one."
        raise GroupError(msg)
    tree = TermTree.of(terms, ontology)
    by_term, notes, scale = lineage_colors(tree), None, None
    if means is not None:
        limits = mpl.colors.Normalize(means.min(), means.max()) if len(means) else None
        scale = mpl.cm.ScalarMappable(limits, cmap)
        by_term = dict(zip(means.index, map(mpl.colors.to_hex, scale.to_rgba(means.to_numpy()))))
        notes = {str(term): f"{mean:.2f}" for term, mean in means.items()}
    elif isinstance(adata, AnnData):
        default = [by_term.get(term, "") for term in column.terms]
        own = category_colors(adata, key, column.names, palette, default)
        by_term = {term: c for term, c in zip(column.terms, own) if term}
    room = tree_size(tree, ontology) if ax is None and figsize is None else None
    wide, tall = room or (1.0, 1.0)
    size = figsize or (wide + _BAR * bool(scale), tall + _TITLE * bool(scale))
    figure, drawn = axes_of(ax, size)
    scale_dots = counts is not None
    draw_tree(
        drawn, tree, by_term, ontology, counts=counts, notes=notes, scale_dots=scale_dots, room=room
    )
    if scale is not None:
        bar = figure.colorbar(scale, ax=drawn, shrink=0.9, aspect=25, pad=0.02)
        bar.ax.tick_params(labelsize=8)
        text = f"number of cells, mean {color}"
        drawn.set_title(text, fontsize=8, color=shade(drawn, 0.65), loc="left")
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _means(adata: AnnData, color: str, column: TypeColumn) -> pd.Series[float]:
    """Mean of a numeric column by term."""
    if color not in adata.obs or not pd.api.types.is_numeric_dtype(adata.obs[color]):
        numeric = [c for c in adata.obs if pd.api.types.is_numeric_dtype(adata.obs[c])]
        msg = f"adata.obs has no numeric column {color!r} (numeric columns: {numeric}). Pass one of them as color=."
        raise GroupError(msg)
    values = pd.Series(np.asarray(adata.obs[color], dtype=float))
    names = np.array([*column.terms, ""], dtype=object)[column.codes]  # code -1 selects the last
    return values.groupby(names).mean().drop("", errors="ignore").dropna()
