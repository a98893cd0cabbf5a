"""Scores of predicted terms that know the Cell Ontology: a subtype of the truth is right, a near miss is better than a far one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


class OntologyScore(NamedTuple):
    """Scores of predicted Cell Ontology terms."""

    accuracy: float
    """Share of cells whose term is the true type or a subtype of it."""

    macro_f1: float
    """Mean over true types of F1, a subtype of the truth counted as the truth."""

    hierarchical_precision: float
    """Share of what the predicted terms imply (themselves and their ancestors) that is true."""

    hierarchical_recall: float
    """Share of what the true types imply that the predicted terms imply, too."""

    hierarchical_f1: float
    """Harmonic mean of the two."""

    lca_distance: float
    """Mean of the fewest steps in the ontology from the predicted term up to a common ancestor and down to the true type."""

    n_cells: int
    """Cells that were scored: those with a true type."""


def ontology_score(
    truth: NDArray[np.str_], predicted: NDArray[np.str_], ontology: CellOntology
) -> OntologyScore:
    """Score predicted terms against true types, with the Cell Ontology as judge.

    Parameters
    ----------
    truth
        True Cell Ontology ids, shape (n_cells,). Cells with "" are left out.
    predicted
        Predicted ids, shape (n_cells,). "" is an answer that implies nothing: wrong, and as far away as the root.
    ontology
        Release that both are terms of; obsolete ids are replaced by their successors.

    Returns
    -------
    The scores; NaN if no cell has a true type.

    Raises
    ------
    ValueError
        If there are not as many predictions as true types.
    OntologyError
        If a term is unknown.

    Notes
    -----
    Hierarchical precision and recall are summed over cells before they are divided (Kiritchenko et al. 2005).

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import ontology_score
    >>> from sccello_tools.ontology import CellOntology
    >>> truth = np.array(["CL:0000084", "CL:0000236"])  # T cell, B cell
    >>> score = ontology_score(truth, np.array(["CL:0000624", "CL:0000084"]), CellOntology.load())  # CD4 T cell, T cell
    >>> score.accuracy, score.n_cells
    (0.5, 2)
    """
    if len(truth) != len(predicted):
        msg = f"{len(truth)} true types, but {len(predicted)} predictions. Expected is one a cell: pass the same cells in the same order."
        raise ArgumentError(msg)
    scored = np.asarray(truth, dtype=str) != ""
    pairs, counts = np.unique(
        np.stack([np.asarray(truth, dtype=str)[scored], np.asarray(predicted, dtype=str)[scored]]),
        axis=1,
        return_counts=True,
    )
    if not counts.size:
        return OntologyScore(*(float("nan"),) * 6, n_cells=0)
    # cells share few pairs of terms: each pair is judged once, and counts as often as it occurs
    true = [ontology.current(term) for term in pairs[0].tolist()]
    given = [ontology.current(term) if term else "" for term in pairs[1].tolist()]
    shared, implied, wanted, steps = (np.zeros(len(counts)) for _ in range(4))
    right = np.zeros(len(counts), dtype=bool)
    for i, (t, p) in enumerate(zip(true, given)):
        above_t = steps_up(t, ontology)
        above_p = steps_up(p, ontology) if p else {}
        common = above_t.keys() & above_p.keys()
        shared[i], implied[i], wanted[i] = len(common), len(above_p), len(above_t)
        right[i] = t in above_p
        steps[i] = min((above_t[c] + above_p[c] for c in common), default=max(above_t.values()))
    precision = float((shared * counts).sum() / max((implied * counts).sum(), 1))
    recall = float((shared * counts).sum() / (wanted * counts).sum())
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return OntologyScore(
        float(np.average(right, weights=counts)),
        _macro_f1(true, given, right, counts),
        precision,
        recall,
        f1,
        float(np.average(steps, weights=counts)),
        int(counts.sum()),
    )


def steps_up(term: str, ontology: CellOntology) -> dict[str, int]:
    """Fewest steps from a term to itself and each of its ancestors."""
    found = {term: 0}
    rim = [term]
    while rim:
        above = {parent for node in rim for parent in ontology.parents(node)} - found.keys()
        step = 1 + max(found.values())
        found.update(dict.fromkeys(above, step))
        rim = sorted(above)
    return found


def _macro_f1(
    true: list[str], given: list[str], right: NDArray[np.bool_], counts: NDArray[np.intp]
) -> float:
    from sklearn.metrics import f1_score

    types = sorted(set(true))
    answers = [t if ok else p for t, p, ok in zip(true, given, right)]
    return float(
        f1_score(
            true, answers, labels=types, average="macro", sample_weight=counts, zero_division=0
        )
    )
