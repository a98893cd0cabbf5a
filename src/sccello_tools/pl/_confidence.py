"""Whether confidence means what it says, where the truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import GroupError
from sccello_tools.metrics import reliability, risk_coverage
from sccello_tools.ontology import CellOntology

from ._figures import finish

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@shared_docs
def confidence(
    adata: AnnData,
    truth: str | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    ncols: int = 4,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw how sure an annotation is, how new its cells are and, where the truth is known, whether it is as right as it is sure.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.annotate_novel` or :func:`sccello_tools.tl.annotate`.
    truth
        Column of ``adata.obs`` with true cell types. Without it, only the histograms are drawn.
    key
        What the annotation was written under.
    ncols
        Panels in a row.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown: histogram of confidence, histogram of novelty by status (where there is one), reliability curve and risk against
    coverage (with ``truth``). An answer is right if it is the true type, a subtype of it, or a term that it is a kind of.

    Raises
    ------
    GroupError
        If the annotation or the true types are missing.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> figure = sccello.pl.confidence(adata, "cell_type", show=False)
    """
    import matplotlib.pyplot as plt

    column = key + _keys.CONFIDENCE_SUFFIX
    if column not in adata.obs:
        msg = f"adata.obs has no column {column!r} (columns: {list(adata.obs.columns)}). Call tl.annotate_novel(adata) first."
        raise GroupError(msg)
    sure = np.asarray(adata.obs[column], dtype=float)
    has_novelty = _keys.NOVELTY in adata.obs and key + _keys.STATUS_SUFFIX in adata.obs
    right = None if truth is None else _right(adata, truth, key)
    n_panels = 1 + has_novelty + 2 * (right is not None)
    n_columns = max(1, min(ncols, n_panels))
    n_rows = -(-n_panels // n_columns)
    size = (3.2 * n_columns, 3.1 * n_rows)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=size, layout="constrained", squeeze=False
    )
    for ax in axes.flat[n_panels:]:
        ax.remove()
    panels = iter(axes.flat)
    _histogram(next(panels), sure)
    if has_novelty:
        _novelty(next(panels), adata, key)
    if right is not None:
        judged, ok = right
        _reliability(next(panels), sure[judged], ok)
        _risk(next(panels), sure[judged], ok)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _right(adata: AnnData, truth: str, key: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells that can be judged, and whether each of them is right."""
    ontology = CellOntology.load()
    true, given = (type_column(adata, name, ontology) for name in (truth, key))
    table = np.zeros((len(true.terms), len(given.terms)), dtype=bool)
    for i, t in enumerate(true.terms):
        for j, g in enumerate(given.terms):
            table[i, j] = bool(t and g) and (
                t in ontology.ancestors(g, include_self=True) or g in ontology.ancestors(t)
            )
    usable = (true.codes >= 0) & (given.codes >= 0)
    judged = usable & np.isin(true.codes, [i for i, term in enumerate(true.terms) if term])
    judged &= np.isfinite(np.asarray(adata.obs[key + _keys.CONFIDENCE_SUFFIX], dtype=float))
    if not judged.any():
        msg = f"No cell has a confidence and a term in both adata.obs[{truth!r}] and adata.obs[{key!r}]. Leave the true types out, or map them with pp.map_cell_types."
        raise GroupError(msg)
    return judged, table[true.codes[judged], given.codes[judged]]


def _histogram(ax: Axes, sure: NDArray[np.floating]) -> None:
    ax.hist(sure[np.isfinite(sure)], bins=np.linspace(0, 1, 21).tolist(), color="#4477aa")
    ax.set(xlabel="confidence", ylabel="cells", title="How sure", xlim=(0, 1))


def _novelty(ax: Axes, adata: AnnData, key: str) -> None:
    novelty = np.asarray(adata.obs[_keys.NOVELTY], dtype=float)
    status = np.asarray(adata.obs[key + _keys.STATUS_SUFFIX], dtype=str)
    kept = np.isfinite(novelty)
    # shades that differ in grey, too
    colours = {
        _keys.STATUS_KNOWN: "#bbccee",
        _keys.STATUS_NOVEL_SUBTYPE: "#4477aa",
        _keys.STATUS_UNKNOWN: "#222255",
    }
    shown = [name for name in colours if (status[kept] == name).any()]
    if not shown:
        ax.text(0.5, 0.5, "no cell has a novelty", ha="center", transform=ax.transAxes, color="0.4")
        ax.set(xticks=[], yticks=[], title="How new")
        return
    ax.hist(
        [novelty[kept & (status == name)] for name in shown],
        bins=24,
        stacked=True,
        color=[colours[name] for name in shown],
        label=shown,
    )
    ax.set(xlabel="novelty (log2 of usual distance)", ylabel="cells", title="How new")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    ax.legend(frameon=False, fontsize=7, loc="upper right")


def _reliability(ax: Axes, sure: NDArray[np.floating], right: NDArray[np.bool_]) -> None:
    found = reliability(sure, right, n_bins=10)
    ax.plot([0, 1], [0, 1], color="0.7", lw=1, zorder=1)
    sizes = 10 + 90 * found.n_cells / found.n_cells.max()
    ax.plot(found.confidence, found.accuracy, color="#4477aa", lw=1.2, zorder=2)
    ax.scatter(found.confidence, found.accuracy, s=sizes, color="#4477aa", zorder=3)
    ax.set(
        xlabel="confidence",
        ylabel="share that is right",
        title=f"Calibration (error {found.error:.3f})",
        xlim=(0, 1.02),
        ylim=(0, 1.05),
    )


def _risk(ax: Axes, sure: NDArray[np.floating], right: NDArray[np.bool_]) -> None:
    found = risk_coverage(sure, right)
    ax.plot(found.coverage, found.risk, color="#4477aa")
    ax.set(
        xlabel="share of cells answered, surest first",
        ylabel="share that is wrong",
        title=f"Risk (area {found.area:.3f})",
        xlim=(0, 1.02),
        ylim=(0, max(0.05, 1.1 * float(found.risk.max()))),
    )
