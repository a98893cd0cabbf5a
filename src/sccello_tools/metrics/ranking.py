"""Scores of ranked candidate terms, as they are used for types that no training cell had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def accuracy_at(
    scores: NDArray[np.floating], terms: Sequence[str], truth: NDArray[np.str_], k: int = 1
) -> float:
    """Share of cells whose true type is among the ``k`` highest-scored candidates.

    Parameters
    ----------
    scores
        Shape (n_cells, n_terms), higher is likelier. Rows with NaN are answered wrongly.
    terms
        Candidate of each column.
    truth
        True types, shape (n_cells,). A type that is no candidate cannot be found and counts as missed.
    k
        How many candidates may be named.

    Returns
    -------
    A share; NaN without cells. Candidates of equal score are in the order of their columns.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``k`` is below 1.

    Notes
    -----
    Accuracy@3 and @5 of OnClass (Wang et al. 2021).

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import accuracy_at
    >>> scores = np.array([[0.2, 0.9, 0.1], [0.5, 0.3, 0.4]])
    >>> accuracy_at(scores, ["a", "b", "c"], np.array(["a", "c"]), k=1)
    0.0
    >>> accuracy_at(scores, ["a", "b", "c"], np.array(["a", "c"]), k=2)
    1.0
    """
    _check(scores, terms, truth)
    if k < 1:
        msg = f"k is {k}; expected is at least 1"
        raise ArgumentError(msg)
    if not len(truth):
        return float("nan")
    usable = np.isfinite(scores).all(axis=1)
    first = np.argsort(-np.where(usable[:, None], scores, 0), axis=1, kind="stable")[:, :k]
    named = np.asarray(terms, dtype=str)[first] == np.asarray(truth, dtype=str)[:, None]
    return float((named.any(axis=1) & usable).mean())


def term_auroc(
    scores: NDArray[np.floating], terms: Sequence[str], truth: NDArray[np.str_]
) -> dict[str, float]:
    """AUROC of each true type's score: how well it tells the type's cells from all others.

    Parameters
    ----------
    scores
        Shape (n_cells, n_terms), higher is likelier. Rows with NaN are left out.
    terms
        Candidate of each column.
    truth
        True types, shape (n_cells,).

    Returns
    -------
    AUROC by term, for terms that some but not all of the cells are of; their mean is OnClass's figure for unseen types.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import term_auroc
    >>> term_auroc(np.array([[0.9, 0.1], [0.8, 0.3], [0.1, 0.2]]), ["a", "b"], np.array(["a", "a", "b"]))
    {'a': 1.0, 'b': 0.5}
    """
    from sklearn.metrics import roc_auc_score

    _check(scores, terms, truth)
    usable = np.isfinite(scores).all(axis=1)
    table, truth = scores[usable], np.asarray(truth, dtype=str)[usable]
    found = {}
    for column, term in enumerate(terms):
        own = truth == term
        if own.any() and not own.all():
            found[term] = float(roc_auc_score(own, table[:, column]))
    return found


def _check(scores: NDArray[np.floating], terms: Sequence[str], truth: NDArray[np.str_]) -> None:
    if scores.ndim != 2 or scores.shape != (len(truth), len(terms)):
        msg = f"scores has shape {scores.shape}; expected is ({len(truth)}, {len(terms)}): a row a true type, a column a candidate"
        raise ArgumentError(msg)
