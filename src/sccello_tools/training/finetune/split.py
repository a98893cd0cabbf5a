"""Which cells are held out for early stopping: whole donors, or cells of each label."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_N_TRIES = 200  # orders of the donors; the best division of some dozens is found in far fewer


class Split(NamedTuple):
    """Rows to train on and rows held out."""

    train: NDArray[np.intp]
    held_out: NDArray[np.intp]
    donors: tuple[str, ...] = ()
    """Donors that are held out; empty where cells were drawn one by one."""


def hold_out(
    codes: NDArray[np.intp],
    *,
    share: float,
    donors: NDArray[np.str_] | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
) -> Split:
    """Divide cells for training and early stopping.

    Parameters
    ----------
    codes
        (n_cells,) label of each cell, from 0. A label of one cell trains.
    share
        Share of cells to hold out, about.
    donors
        (n_cells,) donor of each cell: whole donors are held out, such that every label stays in training, and as many labels as
        can be are among the held-out cells. Without donors the share is taken of each label.
    labels
        Names of the labels, for messages.
    seed
        Of the draw.

    Raises
    ------
    GroupError
        If there is but one donor, or each donor is the only one with some label.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.training.finetune.split import hold_out
    >>> donors = np.repeat(["a", "b", "c"], 4)
    >>> split = hold_out(np.tile([0, 1], 6), share=0.3, donors=donors)
    >>> len(split.donors), len(split.train), len(split.held_out)
    (1, 8, 4)
    """
    rng = np.random.default_rng(seed)
    if donors is None:
        held = _cells_of_each_label(codes, share, rng)
        return Split(np.flatnonzero(~held), np.flatnonzero(held))
    names, member = np.unique(donors, return_inverse=True)
    if len(names) < 2:
        msg = f"All cells are of one donor ({str(names[0])!r}), so none can be held out. Leave batch_key out to hold out cells instead."
        raise GroupError(msg)
    cells = np.zeros((len(names), int(codes.max()) + 1), dtype=np.int64)  # donor by label
    np.add.at(cells, (member, codes), 1)
    chosen = _donors(cells, share, rng)
    if chosen is None:
        alone = np.flatnonzero((cells > 0).sum(axis=0) == 1)
        named = [labels[i] if labels else str(i) for i in alone[:5]]
        msg = (
            f"No donor can be held out: each of the {len(names)} is the only one with some label (such as {', '.join(map(repr, named))}), "
            "which could then not be learnt. Leave batch_key out to hold out cells instead, or leave rare labels out."
        )
        raise GroupError(msg)
    held = np.isin(member, chosen)
    return Split(
        np.flatnonzero(~held), np.flatnonzero(held), tuple(str(names[i]) for i in sorted(chosen))
    )


def _cells_of_each_label(
    codes: NDArray[np.intp], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    held = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        held[rows[: min(len(rows) - 1, max(1, round(share * len(rows))))]] = True
    return held


def _donors(
    cells: NDArray[np.int64], share: float, rng: np.random.Generator
) -> NDArray[np.intp] | None:
    """Find donors with all labels elsewhere, the most labels among themselves, and about the share of cells."""
    best, best_score = None, -np.inf
    there = cells.sum(axis=0) > 0
    for _ in range(_N_TRIES):
        order = rng.permutation(len(cells))
        held = np.cumsum(cells[order], axis=0)[:-1]  # row k: the first k + 1 donors together
        possible = ((cells.sum(axis=0) - held)[:, there] > 0).all(axis=1)
        covered = (held[:, there] > 0).mean(axis=1)
        # a tenth of the labels more among the held-out cells is worth being off the share by a tenth
        scores = np.where(
            possible, covered - np.abs(held.sum(axis=1) / cells.sum() - share), -np.inf
        )
        if scores.max() > best_score:
            best, best_score = order[: scores.argmax() + 1], float(scores.max())
    return best
