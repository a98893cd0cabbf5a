"""Which responses train and which test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sccello_tools.errors import ConfigError, ResponseError

if TYPE_CHECKING:
    from typing import Final

    from numpy.typing import NDArray

SplitKind = Literal["pairs", "cell_lines", "drugs", "both"]
SPLITS: Final = ("pairs", "cell_lines", "drugs", "both")


class ResponseSplit(NamedTuple):
    """Two sets of pairs without overlap."""

    train: NDArray[np.bool_]
    """(n_lines, n_drugs)"""
    test: NDArray[np.bool_]
    """(n_lines, n_drugs)"""


def split_responses(
    measured: NDArray[np.bool_], kind: SplitKind, *, held_out: float, seed: int
) -> ResponseSplit:
    """Hold out a share of the pairs, of the lines, of the drugs, or of both.

    Parameters
    ----------
    measured
        (n_lines, n_drugs) which pairs have a response.
    kind
        ``"pairs"``: any pairs, as published; lines and drugs are met in training. ``"cell_lines"``: all pairs of some lines.
        ``"drugs"``: all pairs of some drugs. ``"both"``: pairs of held-out lines with held-out drugs; the other pairs of these lines
        and drugs are used neither way.
    held_out
        Share of pairs, lines, drugs, or each of both.
    seed
        Of the draw.

    Returns
    -------
    Training and test pairs.

    Raises
    ------
    ConfigError
        If ``kind`` is unknown or ``held_out`` no share.
    ResponseError
        If too few lines, drugs or pairs are there to hold some out.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.drug import split_responses
    >>> train, test = split_responses(np.ones((10, 4), dtype=bool), "cell_lines", held_out=0.2, seed=0)
    >>> int(train.sum()), int(test.all(axis=1).sum())
    (32, 2)
    """
    if kind not in SPLITS:
        msg = f"split is {kind!r}; expected is one of {SPLITS}, or None to train on everything"
        raise ConfigError(msg)
    if not 0 < held_out < 1:
        msg = f"held_out is {held_out}; expected is a share between 0 and 1, such as 0.2"
        raise ConfigError(msg)
    rng = np.random.default_rng(seed)
    n_lines, n_drugs = measured.shape
    if kind == "pairs":
        chosen = _draw(int(measured.sum()), held_out, rng, "measured pairs")
        test = np.zeros_like(measured)
        test[measured] = chosen
        return ResponseSplit(measured & ~test, test)
    none = np.zeros
    lines = _draw(n_lines, held_out, rng, "cell lines") if kind != "drugs" else none(n_lines, bool)
    drugs = _draw(n_drugs, held_out, rng, "drugs") if kind != "cell_lines" else none(n_drugs, bool)
    test = lines[:, None] & drugs[None] if kind == "both" else lines[:, None] | drugs[None]
    train = measured & ~(lines[:, None] | drugs[None])
    split = ResponseSplit(train, measured & test)
    if not (split.train.any() and split.test.any()):
        msg = f"split={kind!r} leaves {int(split.train.sum())} pairs to train on and {int(split.test.sum())} to test; there are {int(measured.sum())} of {n_lines} lines and {n_drugs} drugs. Change held_out or seed, or give more responses."
        raise ResponseError(msg)
    return split


def _draw(n: int, share: float, rng: np.random.Generator, what: str) -> NDArray[np.bool_]:
    if n < 2:
        msg = f"There are {n} {what}; at least 2 are needed to hold some out. Give more responses, or pass split=None."
        raise ResponseError(msg)
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.permutation(n)[: min(n - 1, max(1, round(share * n)))]] = True
    return chosen
