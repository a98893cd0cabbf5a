"""The part of the Cell Ontology that cells, or terms, span."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from sccello_tools import _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import GroupError
from sccello_tools.ontology import CellOntology

from ._figures import figure_of, finish
from ._lineage_colours import lineage_colours
from ._term_tree import TermTree
from ._tree_legend import draw_tree, tree_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from sccello_tools._anndata.terms import TypeColumn

_BAR, _TITLE = 0.7, 0.25  # inches that the colour bar and what is written above take


class _Shades(NamedTuple):
    """Means of a column by term, as colours."""

    colours: dict[str, str]
    notes: dict[str, str]
    scale: ScalarMappable


@shared_docs
def ontology_tree(
    data: AnnData | Sequence[str],
    *,
    key: str = _keys.CELL_TYPE,
    color: str | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw the terms that cells have and the ancestors where they part; dots grow with the number of cells.

    Parameters
    ----------
    data
        Annotated data, or Cell Ontology ids.
    key
        Column of ``obs`` with cell types, if ``data`` is an AnnData.
    color
        Numeric column of ``obs``, such as ``"sccello_cell_type_confidence"``: dots have the mean over the term's cells. By default
        they have the colours of lineages, as in :func:`ontology_umap`.
    cmap
        Colour map of ``color``.
    ax
        Where to draw; a figure of its own if not given.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown.

    Raises
    ------
    GroupError
        If ``key`` is no column of cell types, or ``color`` no numeric column.
    LabelError
        If an id is unknown or obsolete without successor.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> figure = sccello.pl.ontology_tree(["CL:0000624", "CL:0000625", "CL:0000236"], show=False)
    """
    import matplotlib.pyplot as plt

    ontology = CellOntology.load()
    counts, shades = None, None
    if isinstance(data, AnnData):
        column = type_column(data, key, ontology)
        present = [i for i, n in enumerate(column.counts) if n and column.terms[i]]
        terms = [column.terms[i] for i in present]
        counts = dict.fromkeys(terms, 0)
        for i in present:
            counts[column.terms[i]] += int(column.counts[i])
        if color is not None:
            shades = _shades(data, color, column, cmap)
    else:
        if color is not None:
            msg = f"color is {color!r}, but terms alone have no columns. Pass an AnnData."
            raise GroupError(msg)
        terms = [ontology.current(term) for term in data]
    if not terms:
        msg = "There are no terms to draw."
        raise GroupError(msg)
    tree = TermTree.of(terms, ontology)
    own, room = ax is None, None
    if ax is None:
        room = tree_size(tree, ontology)
        figure, ax = plt.subplots(
            figsize=(room[0] + (_BAR if shades else 0), room[1] + (_TITLE if shades else 0)),
            layout="constrained",
        )
    else:
        figure = figure_of(ax)
    draw_tree(
        ax,
        tree,
        shades.colours if shades else lineage_colours(tree),
        ontology,
        counts=counts,
        notes=shades.notes if shades else None,
        sizes=counts is not None,
        room=room,
    )
    if shades:
        bar = figure.colorbar(shades.scale, ax=ax, shrink=0.9, aspect=25, pad=0.02)
        bar.ax.tick_params(labelsize=8)
        ax.set_title(f"number of cells, mean of {color}", fontsize=8, color="0.4", loc="left")
    return finish(figure, show=show, save=save, return_fig=return_fig, own=own)


def _shades(adata: AnnData, color: str, column: TypeColumn, cmap: str) -> _Shades:
    import matplotlib as mpl

    if color not in adata.obs or not pd.api.types.is_numeric_dtype(adata.obs[color]):
        numeric = [c for c in adata.obs if pd.api.types.is_numeric_dtype(adata.obs[c])]
        msg = f"adata.obs has no numeric column {color!r} (numeric columns: {numeric})."
        raise GroupError(msg)
    values = pd.Series(np.asarray(adata.obs[color], dtype=float))
    names = np.array([*column.terms, ""], dtype=object)[column.codes]  # code -1 takes the last
    means = values.groupby(names).mean().drop("", errors="ignore").dropna()
    scale = mpl.cm.ScalarMappable(
        mpl.colors.Normalize(float(means.min()), float(means.max())) if len(means) else None, cmap
    )
    return _Shades(
        {
            str(term): mpl.colors.to_hex(tuple(np.ravel(scale.to_rgba(mean)).tolist()))
            for term, mean in means.items()
        },
        {str(term): f"{mean:.2f}" for term, mean in means.items()},
        scale,
    )
