"""Thresholds of back-off with nominal coverage over the cells of a data set, and utilities of terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .backoff import TypeHierarchy, choose_level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_N_THRESHOLDS = 200
_SUBTYPE = 0.75  # utility of a subtype of the true type, relative to the type itself
_FEWEST = 50
"""Minimum number of known cells for a data set to have its own threshold."""


def utilities(
    types: Sequence[str], ontology: CellOntology, *, parents: Mapping[str, str] | None = None
) -> NDArray[np.float32]:
    """Return the utility of predicting the column type for a cell of the row type, (n_types, n_types).

    The utility is the hierarchical F1 of both, plus 1 for the true type itself or 0.75 for a subtype of it: a T cell may be a CD4 T cell,
    but if subtypes had the same utility as the type itself, the type would never be assigned.

    Examples
    --------
    >>> from sccello_tools.annotation.coverage import utilities
    >>> from sccello_tools.ontology import CellOntology
    >>> utilities(["CL:0000084", "CL:0000624"], CellOntology.load()).astype(float).round(2).tolist()  # T, CD4 T
    [[2.0, 1.58], [0.83, 2.0]]
    """
    hierarchy = TypeHierarchy(ontology, parents or {})
    ancestors = [hierarchy.ancestors(name) for name in types]
    terms = {term: i for i, term in enumerate(sorted(set().union(*ancestors)))}
    member = np.zeros((len(types), len(terms)), dtype=np.float32)
    for row, own in zip(member, ancestors):
        row[[terms[term] for term in own]] = 1
    n_terms = member.sum(axis=1)
    f1 = 2 * (member @ member.T) / (n_terms[:, None] + n_terms)
    recall = member[:, [terms[name] for name in types]].T * _SUBTYPE
    np.fill_diagonal(recall, 1)
    found: NDArray[np.float32] = (recall + f1).astype(np.float32)
    return found


def assigned_types(
    probabilities: NDArray[np.floating], utility: NDArray[np.floating] | None = None
) -> NDArray[np.int32]:
    """Return the most probable type of each cell, or the one with the highest expected utility among types with non-zero probability."""
    expected = probabilities
    if utility is not None:
        expected = np.where(probabilities > 0, probabilities @ utility, -1)
    found: NDArray[np.int32] = expected.argmax(axis=1).astype(np.int32)
    return found


def coverage_threshold(
    sums: NDArray[np.floating],
    alpha: float,
    *,
    weight: NDArray[np.floating] | None = None,
    fallback: float | None = None,
) -> float:
    """Return the lowest threshold at which the terms of a data set are correct for an expected fraction 1 - alpha of its cells.

    Parameters
    ----------
    sums
        (n_cells, width) of :meth:`Lineages.sums`; rows with NaN are left out.
    alpha
        Fraction of incorrect terms to allow, in (0, 1).
    weight
        (n_cells,) weights of the cells; equal if not given.
    fallback
        Threshold over all held-out studies, returned for fewer than 50 cells, because their mean is unreliable.

    Returns
    -------
    A threshold in [0, 1]; 0 if the most specific terms reach that fraction.
    """
    usable = np.isfinite(sums).all(axis=1)
    values = sums[usable].astype(np.float32)
    if fallback is not None and len(values) < _FEWEST:
        return fallback
    w = np.ones(len(values)) if weight is None else weight[usable]
    rows = np.arange(len(values))
    for threshold in np.linspace(0, 1, _N_THRESHOLDS + 1):
        if np.average(values[rows, choose_level(values, threshold)], weights=w) >= 1 - alpha:
            return float(threshold)
    return 1.0


def pooled_threshold(
    sums: NDArray[np.floating], right: NDArray[np.bool_], weight: NDArray[np.floating], alpha: float
) -> float:
    """Return the lowest threshold at which a fraction 1 - alpha of calibration cells has a correct term."""
    rows = np.arange(len(sums))
    for threshold in np.linspace(0, 1, _N_THRESHOLDS + 1):
        if np.average(right[rows, choose_level(sums, threshold)], weights=weight) >= 1 - alpha:
            return float(threshold)
    return 1.0
