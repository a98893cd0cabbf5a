"""How a training went: losses and scores by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._docs import shared_docs
from sccello_tools.errors import ArgumentError, FileFormatError

from ._figures import finish

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

CURVE_FILE = "training_curve.csv"
_TIMES = ("step", "epoch", "seconds", "cells")
_HELD_OUT = ("val_", "valid_", "validation_", "test_")
_SCORES = frozenset(
    ("accuracy", "auroc", "f1", "nmi", "ari", "recall", "precision", "asw", "bio", "score")
)
_TOTAL = ("loss", "train_loss", "val_loss", "validation_loss")
# Paul Tol's bright scheme, which colour-blind readers tell apart
_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777")


@shared_docs
def training(
    model: str | Path | pd.DataFrame | Any,
    *,
    x: Literal["step", "epoch", "seconds"] = "step",
    smooth: int | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw losses and validation scores of a training: each step faintly, their running mean on top.

    Parameters
    ----------
    model
        What :func:`sccello_tools.models.load` returned, the name of a model or its folder (with ``training_curve.csv``), such a file,
        or the table itself: one row a step, a column a value.
    x
        Column to draw along.
    smooth
        Steps of the running mean; a fiftieth of them if not given. 1 draws the values as they are.
    show
        %(show)s
    save
        %(save)s
    return_fig
        %(return_fig)s

    Returns
    -------
    The figure, or ``None`` if it was shown: a panel for the summed loss, one for its parts and one for scores, as far as there are
    any. Values on held-out cells are dashed.

    Raises
    ------
    FileFormatError
        If there is no curve of that model, or nothing in it to draw.
    ValueError
        If ``x`` is no column of it, or ``smooth`` less than 1.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> figure = sccello.pl.training("sccello-small", show=False)
    """
    import matplotlib.pyplot as plt

    curve = _curve(model)
    if x not in curve:
        msg = f"The training curve has no column {x!r} (columns: {list(curve.columns)})."
        raise ArgumentError(msg)
    if smooth is not None and smooth < 1:
        msg = f"smooth is {smooth}; expected are steps, at least 1."
        raise ArgumentError(msg)
    width = max(1, len(curve) // 50) if smooth is None else smooth
    panels = _panels(curve)
    if not panels:
        msg = f"The training curve has no values to draw (columns: {list(curve.columns)})."
        raise FileFormatError(msg)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.1 * len(panels), 3.3), layout="constrained", squeeze=False
    )
    for ax, (title, names) in zip(axes[0], panels.items()):
        _lines(ax, curve, names, x, width)
        ax.set_title(title, loc="left", fontsize=11)
        ax.set(xlabel=x if x != "seconds" else "seconds of training")
        if title == "Scores":
            ax.set_ylim(0, 1.02)
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _curve(model: Any) -> pd.DataFrame:
    """Find the table."""
    if isinstance(model, pd.DataFrame):
        return model.reset_index() if model.index.name in _TIMES else model
    path = Path(getattr(model, "folder", model))
    if not path.exists() and isinstance(model, str):
        # a name; the manifest's errors say what names there are
        from sccello_tools.models.hub import fetch_model
        from sccello_tools.models.registry import find_entry

        path = fetch_model(find_entry(model))
    if path.is_dir():
        path /= CURVE_FILE
    if not path.is_file():
        msg = f"There is no {path}. Models that tl.pretrain wrote have one; the published ones have not."
        raise FileFormatError(msg)
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as a table ({error})."
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
    found = {"Loss": total, "Parts of the loss": parts, "Scores": scores}
    return {title: names for title, names in found.items() if names}


def _lines(ax: Axes, curve: pd.DataFrame, names: Sequence[str], x: str, width: int) -> None:
    base = [_base(name) for name in names]
    hues = dict(zip(dict.fromkeys(base), _COLOURS * len(names)))
    for name, short in zip(names, base):
        kept = curve[[x, name]].dropna()
        along, values = kept[x].to_numpy(dtype=float), kept[name].to_numpy(dtype=float)
        held_out = name.startswith(_HELD_OUT)
        sparse = len(kept) < len(curve) / 2  # scored now and then, not each step
        if not sparse and width > 1:
            ax.plot(
                along, values, color=hues[short], alpha=0.22, lw=0.6, rasterized=len(kept) > 5_000
            )
            values = _running_mean(values, width)
        ax.plot(
            along,
            values,
            color=hues[short],
            lw=1.7,
            ls="--" if held_out else "-",
            marker="o" if sparse else None,
            ms=3.5,
            label=name.replace("_", " "),
        )
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.93")
    ax.set_axisbelow(True)


def _base(name: str) -> str:
    """Name of a value without the cells that it was taken on, so that both have one colour."""
    for prefix in (*_HELD_OUT, "train_"):
        name = name.removeprefix(prefix)
    return name


def _running_mean(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Centred mean over ``width`` values, over fewer at the ends."""
    series = pd.Series(values).rolling(width, center=True, min_periods=1).mean()
    return np.asarray(series, dtype=float)
