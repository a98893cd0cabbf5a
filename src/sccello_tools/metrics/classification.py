"""Accuracy of predicted cell types, nearest-neighbour label transfer, and scores of ranked candidate terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._validation import check_at_least, check_choice
from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Literal

    from numpy.typing import NDArray


class AnnotationScore(NamedTuple):
    """Scores of predicted cell types over the cells of known types."""

    accuracy: float
    """Fraction of cells with a correct prediction."""

    mean_recall: float
    """Mean recall over true types (balanced accuracy)."""

    n_cells: int
    """Number of scored cells."""

    n_types: int
    """Number of scored true types."""


def annotation_score(
    truth: NDArray[np.str_], predicted: NDArray[np.str_], accepted: Mapping[str, Collection[str]]
) -> AnnotationScore:
    """Score predicted cell types, where subtypes of the true type may count as correct.

    Parameters
    ----------
    truth
        True cell types, shape (n_cells,).
    predicted
        Predicted cell types, shape (n_cells,).
    accepted
        Correct predictions of each true type: usually the type and its subtypes. Cells of other types are ignored.

    Returns
    -------
    Accuracy and mean recall; NaN if no cell is scored.

    Raises
    ------
    ArgumentError
        If ``truth`` and ``predicted`` differ in length.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import annotation_score
    >>> truth = np.array(["T", "T", "B", "neuron"])
    >>> score = annotation_score(truth, np.array(["CD4 T", "B", "B", "B"]), {"T": {"T", "CD4 T"}, "B": {"B"}})
    >>> score.mean_recall, score.n_cells
    (0.75, 3)
    """
    if len(truth) != len(predicted):
        msg = f"truth has {len(truth)} entries, predicted has {len(predicted)}. Pass the same cells in the same order."
        raise ArgumentError(msg)
    recalls, n_correct, n_cells = [], 0, 0
    for cell_type in np.unique(truth):
        if cell_type not in accepted:
            continue
        correct = np.isin(predicted[truth == cell_type], list(accepted[cell_type]))
        recalls.append(float(correct.mean()))
        n_correct += int(correct.sum())
        n_cells += len(correct)
    if not n_cells:
        return AnnotationScore(float("nan"), float("nan"), 0, 0)
    return AnnotationScore(n_correct / n_cells, float(np.mean(recalls)), n_cells, len(recalls))


def knn_vote(
    reference: NDArray[np.floating],
    labels: NDArray[np.str_],
    query: NDArray[np.floating],
    *,
    n_neighbors: int = 15,
    metric: Literal["cosine", "euclidean"] = "cosine",
) -> NDArray[np.str_]:
    """Predict the most frequent label among the nearest reference cells.

    Parameters
    ----------
    reference
        Embedding of labelled cells, shape (n_reference, d). Rows with NaN are ignored.
    labels
        Their labels, shape (n_reference,).
    query
        Embedding of the cells to label, shape (n_query, d).
    n_neighbors
        Number of neighbours.
    metric
        Distance.

    Returns
    -------
    Labels, shape (n_query,); "" for rows with NaN. Ties are resolved in favour of the label that sorts first.

    Raises
    ------
    ArgumentError
        If shapes do not match, or all reference rows contain NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import knn_vote
    >>> knn_vote(np.eye(2), np.array(["a", "b"]), np.array([[0.9, 0.1]]), n_neighbors=1).tolist()
    ['a']
    """
    from sklearn.neighbors import KNeighborsClassifier

    if len(reference) != len(labels):
        msg = f"reference has {len(reference)} rows, labels has {len(labels)}. Pass the same cells in the same order."
        raise ArgumentError(msg)
    if reference.shape[1] != query.shape[1]:
        msg = f"reference has {reference.shape[1]} dimensions, query has {query.shape[1]}. Embed both with the same model."
        raise ArgumentError(msg)
    check_at_least("n_neighbors", n_neighbors, 1)
    check_choice("metric", metric, ("cosine", "euclidean"))
    usable = np.isfinite(reference).all(axis=1)
    if not usable.any():
        msg = f"All {len(reference)} reference rows contain NaN. Embed the reference, or pass other reference cells."
        raise ArgumentError(msg)
    embedded = np.isfinite(query).all(axis=1)
    classifier = KNeighborsClassifier(
        n_neighbors=min(n_neighbors, int(usable.sum())), metric=metric
    )
    classifier.fit(reference[usable], labels[usable])
    out = np.full(len(query), "", dtype=labels.dtype)
    if embedded.any():
        out[embedded] = classifier.predict(query[embedded])
    return out


def accuracy_at(
    scores: NDArray[np.floating], terms: Sequence[str], truth: NDArray[np.str_], k: int = 1
) -> float:
    """Fraction of cells whose true type is among the ``k`` candidates with the highest scores.

    Parameters
    ----------
    scores
        Array of shape (n_cells, n_terms), higher is more likely. Rows with NaN count as wrong.
    terms
        Candidate of each column, length n_terms.
    truth
        True types, shape (n_cells,). Types that are not candidates count as wrong.
    k
        Number of candidates to consider.

    Returns
    -------
    Accuracy in [0, 1]; NaN without cells. Candidates with equal scores are taken in column order.

    Raises
    ------
    ArgumentError
        If shapes do not match, or ``k`` < 1.

    Notes
    -----
    Accuracy@k of OnClass (Wang et al., Nat. Commun. 12:5556, 2021).

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
    _check_scores(scores, terms, truth)
    check_at_least("k", k, 1)
    if not len(truth):
        return float("nan")
    usable = np.isfinite(scores).all(axis=1)
    first = np.argsort(-np.where(usable[:, None], scores, 0), axis=1, kind="stable")[:, :k]
    hits = np.asarray(terms, dtype=str)[first] == np.asarray(truth, dtype=str)[:, None]
    return float((hits.any(axis=1) & usable).mean())


def term_auroc(
    scores: NDArray[np.floating], terms: Sequence[str], truth: NDArray[np.str_]
) -> dict[str, float]:
    """Compute the AUROC of each true type's score, its cells against all others.

    Parameters
    ----------
    scores
        Array of shape (n_cells, n_terms), higher is more likely. Rows with NaN are ignored.
    terms
        Candidate of each column, length n_terms.
    truth
        True types, shape (n_cells,).

    Returns
    -------
    AUROC by term, for terms that are the type of some but not all cells. OnClass reports their mean for unseen types.

    Raises
    ------
    ArgumentError
        If shapes do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import term_auroc
    >>> term_auroc(np.array([[0.9, 0.1], [0.8, 0.3], [0.1, 0.2]]), ["a", "b"], np.array(["a", "a", "b"]))
    {'a': 1.0, 'b': 0.5}
    """
    from sklearn.metrics import roc_auc_score

    _check_scores(scores, terms, truth)
    usable = np.isfinite(scores).all(axis=1)
    table, truth = scores[usable], np.asarray(truth, dtype=str)[usable]
    found = {}
    for column, term in enumerate(terms):
        own = truth == term
        if own.any() and not own.all():
            found[term] = float(roc_auc_score(own, table[:, column]))
    return found


def _check_scores(
    scores: NDArray[np.floating], terms: Sequence[str], truth: NDArray[np.str_]
) -> None:
    if scores.ndim != 2 or scores.shape != (len(truth), len(terms)):
        msg = f"scores must have shape (n_cells, n_terms) = ({len(truth)}, {len(terms)}), got {scores.shape}"
        raise ArgumentError(msg)
