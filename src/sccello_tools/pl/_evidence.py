"""Why groups of cells received their terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import obs_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import NotFoundError
from sccello_tools.get import annotation_df
from sccello_tools.get.deciding_genes import group_expression

from ._figure import blues, despine, draw_legend, finish, save_path, shade

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from numpy.typing import NDArray

_COLORS = {"embedding": "#4477aa", "ontology": "#66ccee", "markers": "#ee6677", "prior": "#bbbbbb"}
_MOST_GENES = 40
_LARGEST = 90.0  # area of a dot at 100 % of the cells


@shared_docs
def evidence(
    adata: AnnData,
    groupby: str | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    n_markers: int = 3,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Contributions of embedding, ontology and markers to the term of each group, and the expression of the deciding genes.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.annotate_novel`.
    groupby
        Column of ``adata.obs`` with groups; the predicted types if None.
    key
        ``key_added`` of the annotation.
    n_markers
        Number of supporting and of missing marker genes per group.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown. Left: one bar per group with the mean contribution of each source in log odds of its term against the
    runner-up. Right: dots for the marker genes that support a term or that it lacks; the area is the fraction of cells
    with a count, the colour the mean standardised expression. Frames mark the genes of a group's own term. Without counts, there is only the
    left panel.

    Raises
    ------
    NotFoundError
        If there is no annotation of that key, or it has no contributions, as that of :func:`sccello_tools.tl.annotate`.
    GroupError
        If ``groupby`` is not a column.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> figure = sccello.pl.evidence(adata, "cell_type", show=False)
    """
    import matplotlib.pyplot as plt

    path = save_path(save, "evidence")
    column = groupby or key
    table = annotation_df(adata, column, key=key, n_markers=n_markers)
    if key + _keys.EVIDENCE_SUFFIX not in adata.obsm:
        msg = f"adata.obsm has no {key + _keys.EVIDENCE_SUFFIX!r} (keys: {list(adata.obsm)}). Call tl.annotate_novel(adata) first."
        raise NotFoundError(msg)
    used = np.flatnonzero((table["n_cells"] > 0) & table["cell_type"].notna())
    groups = np.asarray(pd.Categorical(obs_column(adata, column)).codes)
    genes = _genes(table.iloc[used])
    dots = group_expression(adata, groups, used.tolist(), genes, key=key) if genes else None
    table = table.iloc[used]
    height = 1.6 + 0.3 * max(len(table), 1)
    width = 5.0 + (1.0 + 0.21 * len(genes) if dots is not None else 0.0)
    ratios = [3.0, 0.6 + 0.21 * len(genes)] if dots is not None else [1.0]
    figure, axes = plt.subplots(
        1,
        len(ratios),
        figsize=figsize or (width, height),
        width_ratios=ratios,
        layout="constrained",
        squeeze=False,
    )
    _draw_sources(axes[0, 0], table, named=groupby is not None)
    if dots is not None:
        _draw_dots(axes[0, 1], table, genes, *dots)
    return finish(figure, show=show, save=path, return_fig=return_fig)


def _genes(table: pd.DataFrame) -> list[str]:
    """Supporting genes of all groups, then missing ones."""
    found: dict[str, None] = {}
    for name in ("supporting_markers", "missing_markers"):
        for text in table[name].dropna():
            found |= dict.fromkeys(gene for gene in text.split(", ") if gene)
    return list(found)[:_MOST_GENES]


def _draw_sources(ax: Axes, table: pd.DataFrame, *, named: bool) -> None:
    from matplotlib.patches import Patch

    rows = np.arange(len(table))
    low, high = np.zeros(len(table)), np.zeros(len(table))
    for name, color in _COLORS.items():
        values = table[name].fillna(0).to_numpy(dtype=float)
        start = np.where(values >= 0, high, low)
        ax.barh(rows, values, left=start, color=color, height=0.7)
        high += np.maximum(values, 0)
        low += np.minimum(values, 0)
    ax.axvline(0, color=shade(ax, 0.6), lw=0.8)
    runner = table["runner_up"].fillna("-").astype(str)
    own = [
        f"{group}: {name}" if named and str(group) != str(name) else str(name)
        for group, name in zip(table.index, table["cell_type"])
    ]
    ax.set_yticks(rows, [f"{name}\nnot {other}" for name, other in zip(own, runner)], fontsize=7)
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("Contribution (log odds)")
    handles = [Patch(color=color, label=name) for name, color in _COLORS.items()]
    draw_legend(ax, handles, "top margin", ncols=len(handles), fontsize=7)
    despine(ax)


def _draw_dots(
    ax: Axes,
    table: pd.DataFrame,
    genes: list[str],
    mean: NDArray[np.float32],
    detected: NDArray[np.float32],
) -> None:
    rows, columns = np.meshgrid(np.arange(len(table)), np.arange(len(genes)), indexing="ij")
    drawn = ax.scatter(
        columns.ravel(),
        rows.ravel(),
        s=(_LARGEST * np.nan_to_num(detected)).ravel() + 0.5,
        c=np.nan_to_num(mean).ravel(),
        cmap=blues(ax),
        vmin=0,
        vmax=max(float(np.nanmax(mean, initial=1.0)), 1.0),
        edgecolors=shade(ax, 0.4),
        linewidths=0.3,
    )
    place = {gene: i for i, gene in enumerate(genes)}
    for name, style in (("supporting_markers", "-"), ("missing_markers", ":")):
        for row, text in enumerate(table[name]):
            own = [g for g in (text or "").split(", ") if g in place]
            for gene in own:
                corner = (place[gene] - 0.45, row - 0.45)
                ax.add_patch(_frame(corner, style, shade(ax, 0.8)))
    ax.set_xticks(np.arange(len(genes)), genes, rotation=90, fontsize=7)
    ax.set_yticks([])
    ax.set(xlim=(-0.6, len(genes) - 0.4), ylim=(len(table) - 0.5, -0.5))
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.7, pad=0.01)
    bar.set_label("Standardised expression", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    ax.set_title("solid: supports the term, dotted: expected but missing", fontsize=7)


def _frame(corner: tuple[float, float], style: str, color: str) -> Rectangle:
    import matplotlib as mpl

    return mpl.patches.Rectangle(corner, 0.9, 0.9, fill=False, lw=0.7, ls=style, ec=color)
