"""The paper's scores of several embeddings, as a table that can be read at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, GroupError, NotFoundError
from sccello_tools.metrics import clustering_score, integration_score

from ._figures import finish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# score -> heading, group; in the order of the paper's tables
_SCORES = {
    "nmi": ("NMI", "cell types"),
    "ari": ("ARI", "cell types"),
    "asw": ("ASW", "cell types"),
    "avg_bio": ("AvgBio", "cell types"),
    "asw_batch": ("ASW batch", "batches"),
    "graph_connectivity": ("graph conn.", "batches"),
    "avg_batch": ("AvgBatch", "batches"),
}
_MEANS = ("avg_bio", "avg_batch")
_COLUMN, _ROW = 0.95, 0.42  # inches


@shared_docs
def embedding_quality(
    data: AnnData | pd.DataFrame,
    keys: Sequence[str] | None = None,
    *,
    label_key: str | None = None,
    batch_key: str | None = None,
    titles: Mapping[str, str] | None = None,
    seed: int = 0,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw how well embeddings tell cell types apart and mix batches: a row each, a circle a score, a bar a mean.

    Parameters
    ----------
    data
        Annotated data, whose embeddings are scored; or a table of scores to draw as it is: a row an embedding, columns among ``nmi``,
        ``ari``, ``asw``, ``avg_bio``, ``asw_batch``, ``graph_connectivity`` and ``avg_batch``.
    keys
        Keys of ``obsm``, a row each; or rows of the table, all of them if not given.
    label_key
        Column of ``obs`` with cell types; cells without one are left out.
    batch_key
        Column of ``obs`` with batches. Without it, only cell types are scored.
    titles
        Names of the rows by key.
    seed
        Seed of the clusterings.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown. Nothing is written to ``data``. The best of each column is bold.

    Raises
    ------
    GroupError
        If a column is missing, or no labels are named.
    KeyError
        If an embedding is missing.
    ValueError
        If there is nothing to draw.

    Notes
    -----
    arXiv 2408.12373, section 4.2: NMI and ARI at the resolution of the Louvain clustering that maximises NMI, silhouette scaled to
    [0, 1]; AvgBio is their mean, AvgBatch that of batch silhouette and graph connectivity. See :mod:`sccello_tools.metrics`.

    Examples
    --------
    >>> import pandas as pd, sccello_tools as sccello
    >>> scores = pd.DataFrame({"nmi": [0.78, 0.62], "ari": [0.7, 0.5]}, index=["scCello", "PCA"])
    >>> figure = sccello.pl.embedding_quality(scores, show=False)
    """
    import matplotlib.pyplot as plt

    if isinstance(data, pd.DataFrame):
        table = data if keys is None else data.loc[list(keys)]
    else:
        table = _score(data, keys or (), label_key, batch_key, seed)
    columns = [name for name in _SCORES if name in table]
    if not columns or not len(table):
        msg = f"There is nothing to draw: {len(table)} rows, columns {list(table.columns)}; expected are some of {list(_SCORES)}."
        raise ArgumentError(msg)
    values = table[columns].to_numpy(dtype=float)
    names = [str((titles or {}).get(key, key)) for key in table.index]
    left = 0.5 + 0.075 * max(map(len, names))
    size = (left + _COLUMN * len(columns), 0.85 + _ROW * len(names))
    figure = plt.figure(figsize=size)
    ax = figure.add_axes((left / size[0], 0.02, 1 - (left + 0.1) / size[0], 0.96))
    _table(ax, values, columns, names)
    ax.set(
        xlim=(-0.5, len(columns) - 0.5),
        ylim=(len(names) - 0.5, -0.5 - 0.8 / _ROW),  # first row on top, headings above it
    )
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _score(
    adata: AnnData, keys: Sequence[str], label_key: str | None, batch_key: str | None, seed: int
) -> pd.DataFrame:
    """Score each embedding with the same cells: those that have a label, a batch and no NaN in any of them."""
    if isinstance(keys, str) or not keys:
        msg = f"keys is {keys!r}; expected is a list with at least one key of adata.obsm ({list(adata.obsm)})."
        raise ArgumentError(msg)
    for key in keys:
        if key not in adata.obsm:
            msg = f"adata.obsm has no {key!r} (keys: {list(adata.obsm)}). Call tl.embed first."
            raise NotFoundError(msg)
    for column in filter(None, (label_key, batch_key)):
        if column not in adata.obs:
            msg = f"adata.obs has no column {column!r} (columns: {list(adata.obs.columns)})."
            raise GroupError(msg)
    if label_key is None:
        msg = "label_key is not given; expected is the column of adata.obs with cell types."
        raise GroupError(msg)
    kept: NDArray[np.bool_] = adata.obs[label_key].notna().to_numpy()
    if batch_key is not None:
        kept = kept & adata.obs[batch_key].notna().to_numpy()
    embeddings = {key: np.asarray(adata.obsm[key], dtype=np.float32) for key in keys}
    for embedding in embeddings.values():
        kept = kept & np.isfinite(embedding).all(axis=1)
    labels = np.array(adata.obs[label_key].astype(str), dtype=str)[kept]
    rows = {}
    for key, embedding in embeddings.items():
        row = clustering_score(embedding[kept], labels, rng=seed)._asdict()
        if batch_key is not None:
            batches = np.array(adata.obs[batch_key].astype(str), dtype=str)[kept]
            row |= integration_score(embedding[kept], labels, batches)._asdict()
        rows[key] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _table(
    ax: Axes, values: NDArray[np.floating], columns: Sequence[str], names: Sequence[str]
) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    cmap = mpl.colormaps["YlGnBu"]
    best = np.where(np.isnan(values), -np.inf, values).max(axis=0)
    for (i, j), value in np.ndenumerate(values):
        weight = "bold" if len(names) > 1 and value == best[j] else "normal"
        if columns[j] in _MEANS:
            wide = 0.86 * float(np.clip(np.nan_to_num(value), 0, 1))
            ax.add_patch(Rectangle((j - 0.43, i - 0.36), 0.86, 0.72, fc="0.95", ec="none"))
            ax.add_patch(Rectangle((j - 0.43, i - 0.36), wide, 0.72, fc="#41729f", ec="none"))
            # on the bar where it is long enough for the figure, behind it otherwise
            inside = wide > 0.4
            x, colour = (j - 0.43 + wide - 0.04, "white") if inside else (j - 0.41 + wide, "black")
            align = "right" if inside else "left"
        else:
            shade = (
                (1.0,) * 3 if np.isnan(value) else cmap(0.08 + 0.8 * float(np.clip(value, 0, 1)))
            )
            ax.plot(j, i, "o", ms=25, mfc=shade, mec="0.6", mew=0.5)
            dark = float(np.dot(shade[:3], (0.299, 0.587, 0.114))) < 0.55
            x, colour, align = j, "white" if dark else "black", "center"
        text = (
            "–" if np.isnan(value) else f"{value:.3f}".lstrip("0") if value < 1 else f"{value:.2f}"
        )
        ax.text(
            x, i, text, ha=align, va="center_baseline", fontsize=8.5, color=colour, weight=weight
        )
    for j, name in enumerate(columns):
        ax.text(j, -0.75, _SCORES[name][0], ha="center", va="bottom", fontsize=9)
    groups = [_SCORES[name][1] for name in columns]
    for group in dict.fromkeys(groups):
        first, last = groups.index(group), len(groups) - 1 - groups[::-1].index(group)
        top = -0.95 - 0.22 / _ROW
        ax.plot([first - 0.43, last + 0.43], [top, top], color="0.3", lw=1)
        ax.text(
            (first + last) / 2, top - 0.1, group, ha="center", va="bottom", fontsize=9, color="0.3"
        )
    for i in range(len(names) + 1):
        ax.axhline(i - 0.5, color="0.88", lw=0.8, zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.set_xticks([])
    ax.tick_params(length=0, pad=8)
    ax.spines[:].set_visible(False)
