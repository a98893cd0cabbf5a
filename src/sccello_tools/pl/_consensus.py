"""Agreement of annotators with their consensus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import as_text, obs_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import NotFoundError
from sccello_tools.ontology import CellOntology

from ._figure import axes_of, blues, finish, save_path, shade
from .term_tree import TermTree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_NONE = "no consensus"
_MAX_LABEL = 40  # characters


@shared_docs
def consensus(
    adata: AnnData,
    *,
    key: str = _keys.CONSENSUS,
    cmap: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Fraction of the cells of each consensus type in which each annotator agrees.

    An annotator agrees if its term is the consensus, one of its ancestors or one of its descendants. Cells in which it does not vote
    are not counted; a type without votes of an annotator is left blank. The last column is the mean agreement of the votes.

    Parameters
    ----------
    adata
        Annotated data after :func:`sccello_tools.tl.consensus`.
    key
        ``key_added`` of the consensus.
    cmap
        Colormap; if None, blue on the background.
    ax
        %(ax)s
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown.

    Raises
    ------
    NotFoundError
        If there is no consensus of that key.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> sccello.tl.consensus(adata, ["sccello_cell_type", "cell_type"])
    >>> figure = sccello.pl.consensus(adata, show=False)
    """
    import matplotlib as mpl

    path = save_path(save, "consensus")
    table, sizes = _agreement(adata, key)
    names = list(table.index)
    size = figsize or (3.4 + 0.55 * table.shape[1], 1.5 + 0.26 * len(names))
    figure, drawn = axes_of(ax, size)
    colors = mpl.colormaps[cmap] if cmap is not None else blues(drawn)
    values = np.ma.masked_invalid(table.to_numpy())
    image = drawn.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        if np.isfinite(value):
            light = sum(colors(value)[:3]) > 1.5
            look: dict[str, Any] = {"color": "black" if light else "white", "fontsize": 7}
            drawn.text(j, i, f"{value:.2f}", ha="center", va="center", **look)
    drawn.axvline(table.shape[1] - 1.5, color=shade(drawn, 0.6), lw=1)
    drawn.set_yticks(
        range(len(names)), [f"{_short(name)}  ({sizes[name]:,})" for name in names], fontsize=8
    )
    drawn.set_xticks(
        range(table.shape[1]),
        [_short(c) for c in table.columns],
        rotation=45,
        ha="right",
        fontsize=8,
    )
    for label in (*drawn.get_xticklabels(), *drawn.get_yticklabels()):
        label.set_parse_math(False)  # names may contain dollar signs
    drawn.tick_params(length=0)
    drawn.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=drawn, shrink=min(1.0, 2.5 / size[1]), pad=0.02)
    bar.set_label("Fraction of cells", fontsize=8)
    return finish(figure, show=show, save=path, return_fig=return_fig, own=ax is None)


def _agreement(adata: AnnData, key: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return types by annotators, in the order of the ontology, and the number of cells of each type."""
    record = adata.uns.get(key, {})
    if "keys" not in record or key + _keys.DISSENTING_SUFFIX not in adata.obs:
        msg = f"adata.uns[{key!r}] has no consensus. Call tl.consensus first, or pass its key_added as key=."
        raise NotFoundError(msg)
    annotators = [str(name) for name in record["keys"]]
    obs = adata.obs
    types = as_text(obs_column(adata, key))
    ids = as_text(obs_column(adata, key + _keys.TERM_ID_SUFFIX))
    agreement = np.asarray(obs[key + _keys.AGREEMENT_SUFFIX], dtype=np.float64)
    voting, dissenting = (
        [set(text.split(",")) for text in as_text(obs_column(adata, key + suffix))]
        for suffix in (_keys.VOTING_SUFFIX, _keys.DISSENTING_SUFFIX)
    )
    voted = np.asarray(obs[key + _keys.N_VOTES_SUFFIX]) > 0
    labels: NDArray[np.object_] = np.where(voted & (types == ""), _NONE, types)
    id_of = dict(zip(labels.tolist(), ids.tolist()))
    tree = TermTree.of(sorted({term for term in ids if term}), CellOntology.load())
    order = {term: i for i, term in enumerate(tree.selected_in_order)}
    names = sorted(
        {name for name in labels.tolist() if name},
        key=lambda name: (name == _NONE, order.get(id_of[name], len(order)), name),
    )
    rows = {}
    for name in names:
        cells = np.flatnonzero(labels == name)
        row = {
            annotator: _mean(
                [annotator not in dissenting[i] for i in cells if annotator in voting[i]]
            )
            for annotator in annotators
        }
        if name == _NONE:
            row = dict.fromkeys(annotators, float("nan"))
        rows[name] = row | {"mean agreement": _mean(agreement[cells])}
    sizes = {name: int((labels == name).sum()) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index"), sizes


def _mean(values: Sequence[bool] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else name[: _MAX_LABEL - 1] + "…"
