"""Axes, shades, legends, saving and showing: shared by all plots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools.errors import ArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

BLUE = "#4477aa"
"""Colour of data without categories; visible on white and on black."""
STATUS_COLORS = {
    _keys.STATUS_KNOWN: "#88a7c8",
    _keys.STATUS_NOVEL_SUBTYPE: "#e08214",
    _keys.STATUS_UNKNOWN: "#b2182b",
}
"""Colour of each status; they also differ in lightness."""
_DPI = 200


def axes_of(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return the given axes, or new ones of ``size`` inches, and their figure."""
    if ax is not None:
        return figure_of(ax), ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")


def panel_grid(
    n_panels: int, ncols: int, panel: tuple[float, float], figsize: tuple[float, float] | None
) -> tuple[Figure, Any]:
    """Create axes in rows of up to ``ncols``, by default of the size of one panel in inches each; the last row may have more than needed."""
    import matplotlib.pyplot as plt

    n_columns = max(1, min(ncols, n_panels))
    n_rows = -(-n_panels // n_columns)
    size = figsize or (panel[0] * n_columns, panel[1] * n_rows)
    return plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)


def figure_of(ax: Axes) -> Figure:
    """Return the figure of ``ax``, also if the axes belong to a subfigure."""
    figure = ax.get_figure(root=True)
    if figure is None:
        msg = "ax does not belong to a figure. Create it with plt.subplots(), or omit ax."
        raise ArgumentError(msg)
    return figure


def shade(ax: Axes, amount: float) -> str:
    """Return a grey between the background (0) and the text colour (1), so that plots are readable in every matplotlib style."""
    import matplotlib as mpl

    ground = ax.get_facecolor()
    if mpl.colors.to_rgba(ground)[3] == 0:
        ground = figure_of(ax).get_facecolor()
    if mpl.colors.to_rgba(ground)[3] == 0:
        ground = "white"
    low, high = (np.array(mpl.colors.to_rgb(c)) for c in (ground, mpl.rcParams["text.color"]))
    return mpl.colors.to_hex(tuple(low + amount * (high - low)))


def is_dark(ax: Axes) -> bool:
    """Return whether the background is dark."""
    import matplotlib as mpl

    return sum(mpl.colors.to_rgb(shade(ax, 0))) < 1.5


def blues(ax: Axes) -> LinearSegmentedColormap:
    """Return a colormap from the background (0) to a blue that contrasts with it (1)."""
    from matplotlib.colors import LinearSegmentedColormap

    high = ("#2171b5", "#9ecae1") if is_dark(ax) else ("#9ecae1", "#08519c")
    return LinearSegmentedColormap.from_list("blues", [shade(ax, 0), *high])


def diverging(ax: Axes) -> LinearSegmentedColormap:
    """Return a colormap from blue by the background to red, both of which contrast with it."""
    from matplotlib.colors import LinearSegmentedColormap

    light = ("#2166ac", "#92c5de", "#f4a582", "#b2182b")
    dark = ("#9ecae1", "#2171b5", "#c0392b", "#fcae91")
    low, lower, higher, high = dark if is_dark(ax) else light
    middle = shade(ax, 0.08)  # not quite the background, so that dots without effect are visible
    return LinearSegmentedColormap.from_list("diverging", [low, lower, middle, higher, high])


def despine(ax: Axes) -> None:
    """Remove the upper and the right border."""
    ax.spines[["top", "right"]].set_visible(False)


def check_legend(legend_loc: str | None, *extra: str) -> str:
    """Return the position of a legend, ``"none"`` for None.

    Raises
    ------
    ArgumentError
        If it is neither one of ``extra`` nor a position that matplotlib knows.
    """
    from matplotlib.legend import Legend

    loc = "none" if legend_loc is None else legend_loc
    known = ["none", "right margin", "top margin", *extra, *Legend.codes]
    if loc not in known:
        msg = f"legend_loc must be one of {', '.join(map(repr, known))} or None, got {legend_loc!r}"
        raise ArgumentError(msg)
    return loc


def draw_legend(ax: Axes, handles: Sequence[Any], loc: str, **options: Any) -> None:
    """Draw a legend inside the axes, to the right of them in as many columns as their height needs, or above them."""
    if loc == "none" or not handles:
        return
    options = {"frameon": False, "fontsize": 8} | options
    if loc == "right margin":
        columns = _legend_columns(len(handles), figure_of(ax).get_figheight())
        options |= {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "ncols": columns}
    elif loc == "top margin":
        above = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.3}
        options |= above | {"ncols": len(handles)}
    else:
        options |= {"loc": loc}
    legend = ax.legend(handles=handles, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names may contain dollar signs


def legend_width(names: Sequence[str], height: float) -> float:
    """Return the width in inches of a legend of categories to the right of axes."""
    longest = max(map(len, names), default=0) + 8  # the number of cells follows the name
    return _legend_columns(len(names), height) * (0.5 + 0.062 * longest)


def _legend_columns(n: int, height: float) -> int:
    return -(-n // max(1, int(0.9 * height / 0.185)))


def save_path(save: bool | str | Path | None, name: str) -> Path | None:  # noqa: FBT001 - scanpy accepts True
    """Return the file to write a figure to and check it, before anything is computed.

    Parameters
    ----------
    save
        A path, a file extension such as ``".pdf"``, or True for a PDF file, both named after the function; None or False for none.
    name
        Name of the plotting function.

    Raises
    ------
    ArgumentError
        If matplotlib cannot write such a file, or the path is a folder.
    """
    if save is None or save is False:
        return None
    import matplotlib as mpl
    from matplotlib.backend_bases import FigureCanvasBase

    text = ".pdf" if save is True else str(save)
    path = Path(name + text if re.fullmatch(r"\.\w+", text) else text).expanduser()
    if path.is_dir() or text.endswith("/"):
        msg = f"save={save!r} is a folder. Pass the name of a file."
        raise ArgumentError(msg)
    if not path.suffix:
        path = path.with_suffix(f".{mpl.rcParams['savefig.format']}")
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        msg = f"save={save!r} has an unknown file extension. Pass a name that ends in one of {', '.join('.' + f for f in formats)}."
        raise ArgumentError(msg)
    return path


def finish(
    figure: Figure,
    *,
    show: bool | None,
    save: Path | None,
    return_fig: bool | None,
    own: bool = True,
) -> Figure | None:
    """Save and show a figure, and return it unless it was shown, because a notebook would draw it twice.

    Parameters
    ----------
    figure
        Finished figure.
    show
        Whether to show it; if None, shown unless it is saved, returned on request or the user's own.
    save
        Checked file to write, see :func:`save_path`.
    return_fig
        Whether to return it; if None, returned unless shown.
    own
        Whether this package made the figure; otherwise the user shows and closes it.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    if save is not None:
        save.parent.mkdir(parents=True, exist_ok=True)
        dpi = mpl.rcParams["savefig.dpi"]
        if own:  # square axes are in their place after a second pass of the layout only
            figure.draw_without_rendering()
        figure.savefig(save, dpi=_DPI if dpi == "figure" else dpi)
        logger.info("saved figure to %s", save)
    shown = show if show is not None else save is None and own and not return_fig
    if shown:
        plt.show()
    elif save is not None and own:
        plt.close(figure)  # it can still be used, but pyplot no longer keeps it
    return figure if (not shown if return_fig is None else return_fig) else None


def named_keys(adata: AnnData, keys: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    """Return keys of ``obsm`` and their titles.

    Raises
    ------
    ArgumentError
        If no key is given.
    NotFoundError
        If a key does not exist.
    """
    if isinstance(keys, str) or not keys:
        msg = f"keys must be a list with at least one key of adata.obsm ({list(adata.obsm)}), got {keys!r}"
        raise ArgumentError(msg)
    for key in keys:
        if key not in adata.obsm:
            msg = (
                f"adata.obsm has no {key!r} (keys: {list(adata.obsm)}). Call tl.embed(adata) first."
            )
            raise NotFoundError(msg)
    return {key: str(keys[key]) if isinstance(keys, Mapping) else key for key in keys}
