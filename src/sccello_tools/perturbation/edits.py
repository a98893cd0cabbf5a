"""Perturbed copies of a cell's token sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Final

    from numpy.typing import NDArray

Mode = Literal["mask", "delete", "overexpress"]
MODES: Final = ("mask", "delete", "overexpress")


class Perturbation(NamedTuple):
    """Genes that are perturbed jointly."""

    name: str
    genes: tuple[str, ...]
    """Names of the genes."""
    tokens: tuple[int, ...]
    """Their token ids."""


def perturbed(
    ids: NDArray[np.integer],
    tokens: NDArray[np.integer],
    mode: Mode,
    *,
    mask_id: int,
    max_length: int,
) -> NDArray[np.integer] | None:
    """Apply a perturbation to one cell.

    Parameters
    ----------
    ids
        Tokens of the cell, ``<cls>`` first.
    tokens
        Genes to perturb jointly.
    mode
        ``"mask"`` replaces their tokens by ``<mask>``, ``"delete"`` removes them, ``"overexpress"`` moves them to the highest ranks in
        the given order, and inserts those that the cell does not express.
    mask_id
        Token id of ``<mask>``.
    max_length
        Maximum length of the result, ``<cls>`` included.

    Returns
    -------
    The perturbed sequence, or None if it does not differ from ``ids``.
    """
    present = np.isin(ids, tokens)
    if mode == "mask":
        return np.where(present, mask_id, ids) if present.any() else None
    if mode == "delete":
        return ids[~present] if present.any() else None
    changed = np.concatenate([ids[:1], tokens, ids[1:][~present[1:]]])[:max_length]
    return None if np.array_equal(changed, ids) else changed.astype(ids.dtype)
