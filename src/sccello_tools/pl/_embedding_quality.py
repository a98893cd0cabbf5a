"""Scores of several embeddings as a table of circles and bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._anndata.columns import require_obs
from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, GroupError
from sccello_tools.metrics import clustering_score, integration_score

from ._figure import finish, named_keys, save_path, shade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike

# score -> heading and group, in the order of the paper's tables
_SCORES = {
    "nmi": ("NMI", "cell-type separation"),
    "ari": ("ARI", "cell-type separation"),
    "asw": ("ASW", "cell-type separation"),
    "avg_bio": ("AvgBio", "cell-type separation"),
    "asw_batch": ("ASW batch", "batch mixing"),
    "graph_connectivity": ("graph conn.", "batch mixing"),
    "avg_batch": ("AvgBatch", "batch mixing"),
}
_MEANS = ("avg_bio", "avg_batch")
_COLUMN, _ROW = 0.95, 0.42  # inches


@shared_docs
def embedding_quality(
    adata: AnnData | pd.DataFrame,
    keys: Sequence[str] | Mapping[str, str] | None = None,
    *,
    label_key: str | None = None,
    batch_key: str | None = None,
    rng: RNGLike = 0,
    cmap: str = "YlGnBu",
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Table of cell-type separation and batch mixing: one row per embedding, circles for scores, bars for their means.

    Parameters
    ----------
    adata
        Annotated data, whose embeddings are scored; or a table of scores with one row per embedding and columns among ``nmi``,
        ``ari``, ``asw``, ``avg_bio``, ``asw_batch``, ``graph_connectivity`` and ``avg_batch``.
    keys
        Keys of ``obsm``, one row each, or rows of the table (all if None); a mapping gives the names to show.
    label_key
        Column of ``obs`` with cell types; cells without one are omitted.
    batch_key
        Column of ``obs`` with batches. If None, only cell types are scored.
    rng
        Seed or random generator of the clustering.
    cmap
        Colormap of the circles.
    %(figure)s

    Returns
    -------
    The figure, or None if it was shown. Nothing is written to ``adata``. The best score of each column is bold.

    Raises
    ------
    GroupError
        If a column does not exist, or ``label_key`` is missing.
    NotFoundError
        If an embedding does not exist.
    ArgumentError
        If there is nothing to draw.

    Notes
    -----
    arXiv 2408.12373, section 4.2: NMI and ARI at the resolution of the Louvain clustering that maximises NMI, and the silhouette
    width scaled to [0, 1]; AvgBio is their mean, AvgBatch the mean of batch silhouette and graph connectivity. See
    :mod:`sccello_tools.metrics`.

    Examples
    --------
    >>> import pandas as pd, sccello_tools as sccello
    >>> scores = pd.DataFrame({"nmi": [0.78, 0.62], "ari": [0.7, 0.5]}, index=["scCello", "PCA"])
    >>> figure = sccello.pl.embedding_quality(scores, show=False)
    """
    import matplotlib.pyplot as plt

    path = save_path(save, "embedding_quality")
    if isinstance(adata, pd.DataFrame):
        table = adata if keys is None else adata.loc[list(keys)]
        names = [str(keys[row]) if isinstance(keys, dict) else str(row) for row in table.index]
    else:
        titles = named_keys(adata, keys)
        table = _score(adata, list(titles), label_key, batch_key, rng)
        names = list(titles.values())
    columns = [name for name in _SCORES if name in table]
    if not columns or not len(table):
        msg = f"The table has {len(table)} rows and no column of scores (columns: {list(table.columns)}). Pass some of {', '.join(_SCORES)}."
        raise ArgumentError(msg)
    values = table[columns].to_numpy(dtype=float)
    left = 0.5 + 0.075 * max(map(len, names))
    size = figsize or (left + _COLUMN * len(columns), 0.85 + _ROW * len(names))
    figure = plt.figure(figsize=size)
    ax = figure.add_axes((left / size[0], 0.02, 1 - (left + 0.1) / size[0], 0.96))
    _draw_table(ax, values, columns, names, cmap)
    ax.set(
        xlim=(-0.5, len(columns) - 0.5),
        ylim=(len(names) - 0.5, -0.5 - 0.8 / _ROW),  # first row at the top, headings above it
    )
    return finish(figure, show=show, save=path, return_fig=return_fig)


def _score(
    adata: AnnData,
    keys: Sequence[str],
    label_key: str | None,
    batch_key: str | None,
    rng: RNGLike,
) -> pd.DataFrame:
    """Score all embeddings on the same cells: those with a label, a batch and no NaN."""
    if label_key is None:
        msg = "label_key is missing. Pass the column of adata.obs with cell types."
        raise GroupError(msg)
    labels = require_obs(adata, label_key, argument="label_key")
    batches = None if batch_key is None else require_obs(adata, batch_key, argument="batch_key")
    kept: NDArray[np.bool_] = labels.notna().to_numpy()
    if batches is not None:
        kept = kept & batches.notna().to_numpy()
    embeddings = {key: np.asarray(adata.obsm[key], dtype=np.float32) for key in keys}
    for embedding in embeddings.values():
        kept = kept & np.isfinite(embedding).all(axis=1)
    label = np.array(labels.astype(str), dtype=str)[kept]
    rows = {}
    for key, embedding in embeddings.items():
        row = clustering_score(embedding[kept], label, rng=rng)._asdict()
        if batches is not None:
            batch = np.array(batches.astype(str), dtype=str)[kept]
            row |= integration_score(embedding[kept], label, batch)._asdict()
        rows[key] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _draw_table(
    ax: Axes,
    values: NDArray[np.floating],
    columns: Sequence[str],
    names: Sequence[str],
    cmap: str,
) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    best = np.where(np.isnan(values), -np.inf, values).max(axis=0)
    for (i, j), value in np.ndenumerate(values):
        weight = "bold" if len(names) > 1 and value == best[j] else "normal"
        if columns[j] in _MEANS:
            width = 0.86 * float(np.clip(np.nan_to_num(value), 0, 1))
            ax.add_patch(Rectangle((j - 0.43, i - 0.36), 0.86, 0.72, fc=shade(ax, 0.06), ec="none"))
            ax.add_patch(Rectangle((j - 0.43, i - 0.36), width, 0.72, fc="#41729f", ec="none"))
            # on the bar if it is long enough, otherwise after it
            inside = width > 0.4
            x, color = (
                (j - 0.43 + width - 0.04, "white") if inside else (j - 0.41 + width, shade(ax, 1))
            )
            align = "right" if inside else "left"
        else:
            missing = np.isnan(value)
            fill = (
                mpl.colors.to_rgba(shade(ax, 0))
                if missing
                else mpl.colormaps[cmap](0.08 + 0.8 * float(np.clip(value, 0, 1)))
            )
            ax.plot(j, i, "o", ms=25, mfc=fill, mec=shade(ax, 0.4), mew=0.5)
            dark = float(np.dot(fill[:3], (0.299, 0.587, 0.114))) < 0.55
            x, color, align = j, "white" if dark else "black", "center"
        text = (
            "–" if np.isnan(value) else f"{value:.3f}".lstrip("0") if value < 1 else f"{value:.2f}"
        )
        look: dict[str, Any] = {"fontsize": 8.5, "color": color, "weight": weight}
        ax.text(x, i, text, ha=align, va="center_baseline", **look)
    for j, name in enumerate(columns):
        ax.text(j, -0.75, _SCORES[name][0], ha="center", va="bottom", fontsize=9)
    groups = [_SCORES[name][1] for name in columns]
    for group in dict.fromkeys(groups):
        first, last = groups.index(group), len(groups) - 1 - groups[::-1].index(group)
        top = -0.95 - 0.22 / _ROW
        ax.plot([first - 0.43, last + 0.43], [top, top], color=shade(ax, 0.7), lw=1)
        middle = (first + last) / 2
        ax.text(
            middle, top - 0.1, group, ha="center", va="bottom", fontsize=9, color=shade(ax, 0.7)
        )
    for i in range(len(names) + 1):
        ax.axhline(i - 0.5, color=shade(ax, 0.12), lw=0.8, zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.set_xticks([])
    ax.tick_params(length=0, pad=8)
    ax.spines[:].set_visible(False)
