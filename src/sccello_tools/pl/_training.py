"""Losses and validation scores by training step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._anndata.columns import missing_column
from sccello_tools._docs import shared_docs
from sccello_tools._validation import check_at_least
from sccello_tools.errors import ArgumentError, FileFormatError

from ._figure import check_legend, despine, draw_legend, finish, save_path, shade
from .colors import category_colors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .colors import Palette

CURVE_FILE = "training_curve.csv"
_TIMES = ("step", "epoch", "seconds", "cells")
_VALIDATION = ("val_", "valid_", "validation_", "test_")
_SCORES = frozenset(
    ("accuracy", "auroc", "f1", "nmi", "ari", "recall", "precision", "asw", "bio", "score")
)
_TOTAL = ("loss", "train_loss", "val_loss", "validation_loss")


@shared_docs
def training(
    model: str | Path | pd.DataFrame | Any,
    *,
    x: Literal["step", "epoch", "seconds"] = "step",
    smooth: int | None = None,
    legend_loc: str | None = "best",
    palette: Palette | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Training losses and validation scores: single steps are faint, their running mean is bold, validation is dashed.

    Parameters
    ----------
    model
        A loaded model, the name of a model, its folder (with ``training_curve.csv``), such a file, or the table itself with one row
        per step and one column per value.
    x
        Column of the x axis.
    smooth
        Number of steps of the running mean; 2 % of all steps if None. 1 draws the values as they are.
    legend_loc
        %(legend_loc)s
    palette
        %(palette)s Categories are the names of the values without ``train_`` and ``val_``.
    %(figure)s

    Returns
    -------
    The figure with up to three panels (total loss, its components, scores), or None if it was shown.

    Raises
    ------
    FileFormatError
        If the model has no training curve, or the curve no values.
    ArgumentError
        If ``x`` is not a column, or ``smooth`` less than 1.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> figure = sccello.pl.training("sccello-small", show=False)
    """
    import matplotlib.pyplot as plt

    loc = check_legend(legend_loc)
    path = save_path(save, "training")
    curve = _curve(model)
    if x not in curve:
        raise ArgumentError(missing_column("The training curve", x, curve.columns, "x"))
    if smooth is not None:
        check_at_least("smooth", smooth, 1)
    width = max(1, len(curve) // 50) if smooth is None else smooth
    panels = _panels(curve)
    if not panels:
        msg = f"The training curve has no numeric values (columns: {list(curve.columns)})."
        raise FileFormatError(msg)
    size = figsize or (4.1 * len(panels), 3.3)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for ax, (title, names) in zip(axes[0], panels.items()):
        _draw_lines(ax, curve, names, x, width, palette)
        draw_legend(ax, ax.get_legend_handles_labels()[0], loc)
        ax.set_title(title, loc="left", fontsize=11)
        ax.set_xlabel({"seconds": "Time (s)"}.get(x, x.capitalize()))
        if title == "Scores":
            ax.set_ylim(0, 1.02)
    return finish(figure, show=show, save=path, return_fig=return_fig)


def _curve(model: Any) -> pd.DataFrame:
    """Read the table of a model."""
    if isinstance(model, pd.DataFrame):
        return model.reset_index() if model.index.name in _TIMES else model
    path = Path(getattr(model, "folder", model))
    if not path.exists() and isinstance(model, str):
        # a name; errors of the manifest list the known ones
        from sccello_tools.models.hub import fetch_model
        from sccello_tools.models.registry import find_entry

        path = fetch_model(find_entry(model))
    if path.is_dir():
        path /= CURVE_FILE
    if not path.is_file():
        msg = f"{path} not found. Models trained with tl.pretrain have a training curve, published models do not."
        raise FileFormatError(msg)
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        msg = f"{path} is not a table of comma-separated values ({error})."
        raise FileFormatError(msg) from error


def _panels(curve: pd.DataFrame) -> dict[str, list[str]]:
    numeric = [
        str(name)
        for name in curve
        if name not in _TIMES
        and pd.api.types.is_numeric_dtype(curve[name])
        and curve[name].notna().any()
    ]
    scores = [name for name in numeric if _SCORES & set(name.lower().split("_"))]
    total = [name for name in numeric if name in _TOTAL]
    parts = [name for name in numeric if name not in {*scores, *total}]
    found = {"Loss": total, "Loss components": parts, "Scores": scores}
    return {title: names for title, names in found.items() if names}


def _draw_lines(
    ax: Axes, curve: pd.DataFrame, names: Sequence[str], x: str, width: int, palette: Any
) -> None:
    base = {name: _base(name) for name in names}
    unique = list(dict.fromkeys(base.values()))
    color_of = dict(zip(unique, category_colors(None, "training", unique, palette)))
    for name in names:
        kept = curve[[x, name]].dropna()
        along, values = kept[x].to_numpy(dtype=float), kept[name].to_numpy(dtype=float)
        validation = name.startswith(_VALIDATION)
        sparse = len(kept) < len(curve) / 2  # not evaluated at every step
        color = color_of[base[name]]
        if not sparse and width > 1:
            ax.plot(along, values, color=color, alpha=0.25, lw=0.6, rasterized=len(kept) > 5_000)
            values = _running_mean(values, width)
        ax.plot(
            along,
            values,
            color=color,
            lw=1.7,
            ls="--" if validation else "-",
            marker="o" if sparse else None,
            ms=3.5,
            label=name.replace("_", " "),
        )
    despine(ax)
    ax.grid(color=shade(ax, 0.08))
    ax.set_axisbelow(True)


def _base(name: str) -> str:
    """Name of a value without the cells it was measured on, so that training and validation have the same colour."""
    for prefix in (*_VALIDATION, "train_"):
        name = name.removeprefix(prefix)
    return name


def _running_mean(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Centred mean over ``width`` values, fewer at the ends."""
    series = pd.Series(values).rolling(width, center=True, min_periods=1).mean()
    return np.asarray(series, dtype=float)
