"""The part of the Cell Ontology that cells, or terms, span."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anndata import AnnData

from sccello_tools import _keys
from sccello_tools.ontology import CellOntology
from sccello_tools.tl._type_columns import type_column

from ._figures import figure_of, finish
from ._lineage_colours import lineage_colours
from ._term_tree import TermTree
from ._tree_legend import draw_tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def ontology_tree(
    data: AnnData | Sequence[str],
    *,
    key: str = _keys.CELL_TYPE,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Figure:
    """Draw the terms and the ancestors where they part, in the colours that :func:`ontology_umap` gives them.

    Parameters
    ----------
    data
        Annotated data, or Cell Ontology ids.
    key
        Column of ``obs`` with cell types, if ``data`` is an AnnData.
    ax
        Where to draw; a figure of its own if not given.
    show
        Show the figure; by default only if it is not saved.
    save
        File to write the figure to.

    Returns
    -------
    The figure.

    Raises
    ------
    GroupError
        If ``key`` is no column of cell types.
    LabelError
        If an id is unknown or obsolete without successor.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> figure = sccello.pl.ontology_tree(["CL:0000624", "CL:0000625", "CL:0000236"], show=False)
    """
    import matplotlib.pyplot as plt

    ontology = CellOntology.load()
    counts = None
    if isinstance(data, AnnData):
        column = type_column(data, key, ontology)
        terms = [term for term in column.terms if term]
        counts = dict(zip(column.terms, column.counts.tolist()))
    else:
        terms = [ontology.current(term) for term in data]
    tree = TermTree.of(terms, ontology)
    if ax is None:
        height = 0.6 + 0.22 * len(tree.order)
        figure, ax = plt.subplots(figsize=(5.2, height), layout="constrained")
    else:
        figure = figure_of(ax)
    draw_tree(ax, tree, lineage_colours(tree), ontology, counts=counts)
    return finish(figure, show=show, save=save)
