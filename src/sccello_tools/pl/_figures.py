"""What every plot does with its figure: take it from the axes it was given, save it, show it, hand it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_of(ax: Axes) -> Figure:
    """Return the figure that holds ``ax``, also where a subfigure lies between."""
    figure = ax.get_figure(root=True)
    if figure is None:
        msg = "ax belongs to no figure. Make it with plt.subplots(), or leave ax out."
        raise ArgumentError(msg)
    return figure


def finish(
    figure: Figure,
    *,
    show: bool | None,
    save: str | Path | None,
    return_fig: bool | None = None,
    own: bool = True,
    dpi: int = 200,
) -> Figure | None:
    """Save and show as asked, and return the figure unless it was shown: a notebook would draw it a second time.

    Parameters
    ----------
    figure
        What was drawn.
    show
        By default a figure is shown unless it is saved, or is the caller's.
    save
        File to write.
    return_fig
        Return the figure, or do not, whatever happened to it.
    own
        The figure was made here; otherwise it is the caller's, who shows and closes it.
    dpi
        Of the file, and of rasterised points in it.
    """
    import matplotlib.pyplot as plt

    if save is not None:
        figure.savefig(save, dpi=dpi)
    shown = show if show is not None else save is None and own
    if shown:
        plt.show()
    elif save is not None and own:
        plt.close(figure)  # it stays usable, but pyplot keeps it no longer
    wanted = not shown if return_fig is None else return_fig
    return figure if wanted else None
