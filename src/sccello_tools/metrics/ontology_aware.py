"""Scores of predicted cell types that use the structure of the Cell Ontology."""

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
    """Fraction of cells whose predicted term is the true type or one of its subtypes."""

    macro_f1: float
    """F1 averaged over true types, where subtypes of the true type count as correct."""

    hierarchical_precision: float
    """Fraction of the predicted terms and their ancestors that are implied by the true types."""

    hierarchical_recall: float
    """Fraction of the true types and their ancestors that are implied by the predicted terms."""

    hierarchical_f1: float
    """Harmonic mean of the two."""

    lca_distance: float
    """Mean number of edges of the shortest path from predicted to true term through a common ancestor."""

    n_cells: int
    """Number of scored cells: those with a true type."""


def ontology_score(
    truth: NDArray[np.str_], predicted: NDArray[np.str_], ontology: CellOntology
) -> OntologyScore:
    r"""Score predicted terms against true types with hierarchical and path-based measures.

    Parameters
    ----------
    truth
        True Cell Ontology ids, shape (n_cells,). Cells with "" are ignored.
    predicted
        Predicted ids, shape (n_cells,). "" is a missing prediction: it is wrong, implies no term, and has the distance of the root.
    ontology
        Ontology of both; obsolete ids are replaced by their current ones.

    Returns
    -------
    The scores; NaN if no cell has a true type.

    Raises
    ------
    ArgumentError
        If ``truth`` and ``predicted`` differ in length.
    LabelError
        If a term is unknown.

    Notes
    -----
    With :math:`\hat A_i` and :math:`A_i` the predicted and true terms of cell :math:`i` and all their ancestors,

    .. math::
        hP = \frac{\sum_i |\hat A_i \cap A_i|}{\sum_i |\hat A_i|}, \quad
        hR = \frac{\sum_i |\hat A_i \cap A_i|}{\sum_i |A_i|}, \quad
        hF_1 = \frac{2\,hP\,hR}{hP + hR}

    (Kiritchenko et al., Functional annotation of genes using hierarchical text categorization, 2005).

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
        msg = f"truth has {len(truth)} entries, predicted has {len(predicted)}. Pass the same cells in the same order."
        raise ArgumentError(msg)
    scored = np.asarray(truth, dtype=str) != ""
    pairs, counts = np.unique(
        np.stack([np.asarray(truth, dtype=str)[scored], np.asarray(predicted, dtype=str)[scored]]),
        axis=1,
        return_counts=True,
    )
    if not counts.size:
        return OntologyScore(*(float("nan"),) * 6, n_cells=0)
    # score each distinct pair of terms once, weighted by its number of cells
    true = [ontology.current(term) for term in pairs[0].tolist()]
    predicted_terms = [ontology.current(term) if term else "" for term in pairs[1].tolist()]
    shared, implied, true_terms, steps = (np.zeros(len(counts)) for _ in range(4))
    correct = np.zeros(len(counts), dtype=bool)
    for i, (t, p) in enumerate(zip(true, predicted_terms)):
        above_t = steps_up(t, ontology)
        above_p = steps_up(p, ontology) if p else {}
        common = above_t.keys() & above_p.keys()
        shared[i], implied[i], true_terms[i] = len(common), len(above_p), len(above_t)
        correct[i] = t in above_p
        steps[i] = min((above_t[c] + above_p[c] for c in common), default=max(above_t.values()))
    precision = float((shared * counts).sum() / max((implied * counts).sum(), 1))
    recall = float((shared * counts).sum() / (true_terms * counts).sum())
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return OntologyScore(
        float(np.average(correct, weights=counts)),
        _macro_f1(true, predicted_terms, correct, counts),
        precision,
        recall,
        f1,
        float(np.average(steps, weights=counts)),
        int(counts.sum()),
    )


def steps_up(term: str, ontology: CellOntology) -> dict[str, int]:
    """Return the number of edges of the shortest path from a term to itself and each of its ancestors."""
    found = {term: 0}
    frontier = [term]
    while frontier:
        above = {parent for node in frontier for parent in ontology.parents(node)} - found.keys()
        step = 1 + max(found.values())
        found.update(dict.fromkeys(above, step))
        frontier = sorted(above)
    return found


def _macro_f1(
    true: list[str],
    predicted_terms: list[str],
    correct: NDArray[np.bool_],
    counts: NDArray[np.intp],
) -> float:
    from sklearn.metrics import f1_score

    types = sorted(set(true))
    predictions = [t if ok else p for t, p, ok in zip(true, predicted_terms, correct)]
    return float(
        f1_score(
            true, predictions, labels=types, average="macro", sample_weight=counts, zero_division=0
        )
    )
