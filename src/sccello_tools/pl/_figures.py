"""What every plot does with its figure: take it from the axes it was given, save it, show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_of(ax: Axes) -> Figure:
    """Return the figure that holds ``ax``, also where a subfigure lies between."""
    figure = ax.get_figure(root=True)
    if figure is None:
        msg = "ax belongs to no figure. Make it with plt.subplots(), or leave ax out."
        raise ValueError(msg)
    return figure


def finish(figure: Figure, *, show: bool | None, save: str | Path | None, dpi: int = 200) -> Figure:
    """Save and show as asked; by default a figure is shown only if it is not saved."""
    import matplotlib.pyplot as plt

    if save is not None:
        figure.savefig(save, dpi=dpi)
    if show or (show is None and save is None):
        plt.show()
    elif save is not None and not show:
        plt.close(figure)  # it stays usable, but pyplot keeps it no longer
    return figure
