"""Perturbed copies of a cell's token sequence, and random control genes of similar rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Final

    from numpy.typing import NDArray

Mode = Literal["mask", "delete", "overexpress"]
MODES: Final = ("mask", "delete", "overexpress")
_MIN_WINDOW: Final = 10  # positions
_WINDOW: Final = 0.05  # fraction of the cell's genes


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


def control_positions(
    n_genes: int, position: int, excluded: NDArray[np.integer], rng: np.random.Generator, n: int
) -> NDArray[np.intp]:
    """Draw positions of similar rank to one position, with replacement.

    Parameters
    ----------
    n_genes
        Number of genes in the cell; positions run from 1 to ``n_genes``.
    position
        Position to match.
    excluded
        Positions that may not be drawn.
    rng
        Generator.
    n
        Number of positions to draw.

    Returns
    -------
    Positions within 5 % of the genes (at least 10 positions) on either side, shape (n,); empty if there are none.
    """
    half = max(_MIN_WINDOW, int(_WINDOW * n_genes))
    window = np.arange(max(1, position - half), min(n_genes, position + half) + 1)
    window = window[~np.isin(window, excluded)]
    if not len(window):
        return np.zeros(0, dtype=np.intp)
    return rng.choice(window, n).astype(np.intp)


def control_sets(
    ids: NDArray[np.integer],
    tokens: NDArray[np.integer],
    expressed: NDArray[np.integer],
    rng: np.random.Generator,
    n: int,
) -> list[NDArray[np.integer]]:
    """Draw random gene sets that match a set gene by gene.

    A gene that the cell expresses is replaced by one of similar rank (:func:`control_positions`), another one by a random gene that
    the cell does not express.

    Parameters
    ----------
    ids
        Tokens of the cell, ``<cls>`` first.
    tokens
        The set to match.
    expressed
        Genes that occur in any of the cells, from which unexpressed genes are drawn.
    rng
        Generator.
    n
        Number of sets.

    Returns
    -------
    Sets of the size of ``tokens``; fewer than ``n`` if the cell has too few genes.
    """
    positions = {int(token): i for i, token in enumerate(ids)}
    own = np.array([positions[t] for t in tokens.tolist() if t in positions], dtype=np.intp)
    absent = np.setdiff1d(np.setdiff1d(expressed, ids), tokens)
    columns = []
    for token in tokens.tolist():
        if token in positions:
            drawn = ids[control_positions(len(ids) - 1, positions[token], own, rng, n)]
        elif len(absent):
            drawn = rng.choice(absent, n)
        else:
            drawn = np.zeros(0, dtype=ids.dtype)
        if not len(drawn):
            return []
        columns.append(drawn)
    sets = np.stack(columns, axis=1)  # (n, k)
    # a gene drawn twice would make the set smaller
    distinct = [len(set(row.tolist())) == len(row) for row in sets]
    return [row for row, keep in zip(sets, distinct) if keep]
