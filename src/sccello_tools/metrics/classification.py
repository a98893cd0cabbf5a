"""How well cell types are told: a neighbour vote, and scores that count a subtype of the truth as right."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Literal

    from numpy.typing import NDArray


class AnnotationScore(NamedTuple):
    """Scores of predicted cell types over cells of types that could be known."""

    accuracy: float
    """Share of cells that are right."""

    mean_recall: float
    """Mean over true types of the share of their cells that are right."""

    n_cells: int
    """Cells that were scored."""

    n_types: int
    """True types that were scored."""


def annotation_score(
    truth: NDArray[np.str_], predicted: NDArray[np.str_], accepted: Mapping[str, Collection[str]]
) -> AnnotationScore:
    """Score predicted cell types against the truth.

    Parameters
    ----------
    truth
        True cell type ids, shape (n_cells,).
    predicted
        Predicted ids, shape (n_cells,).
    accepted
        For each true type that counts, the predictions that are right: itself and its subtypes. Cells of other types are left out.

    Returns
    -------
    Accuracy and mean recall; NaN if no cell counts.

    Raises
    ------
    ValueError
        If there are not as many predictions as true types.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import annotation_score
    >>> truth = np.array(["T", "T", "B", "unheard of"])
    >>> score = annotation_score(truth, np.array(["CD4 T", "B", "B", "B"]), {"T": {"T", "CD4 T"}, "B": {"B"}})
    >>> score.mean_recall, score.n_cells
    (0.75, 3)
    """
    if len(truth) != len(predicted):
        msg = f"{len(truth)} true types, but {len(predicted)} predictions. Expected is one a cell: pass the same cells in the same order."
        raise ArgumentError(msg)
    recalls, n_right, n_cells = [], 0, 0
    for cell_type in np.unique(truth):
        if cell_type not in accepted:
            continue
        right = np.isin(predicted[truth == cell_type], list(accepted[cell_type]))
        recalls.append(float(right.mean()))
        n_right += int(right.sum())
        n_cells += len(right)
    if not n_cells:
        return AnnotationScore(float("nan"), float("nan"), 0, 0)
    return AnnotationScore(n_right / n_cells, float(np.mean(recalls)), n_cells, len(recalls))


def knn_vote(
    reference: NDArray[np.floating],
    labels: NDArray[np.str_],
    query: NDArray[np.floating],
    *,
    n_neighbors: int = 15,
    metric: Literal["cosine", "euclidean"] = "cosine",
) -> NDArray[np.str_]:
    """Give each query cell the most frequent label of its nearest reference cells.

    Parameters
    ----------
    reference
        Embedding of labelled cells, shape (n_reference, d).
    labels
        Their labels, shape (n_reference,).
    query
        Embedding of the cells to label, shape (n_query, d).
    n_neighbors
        Neighbours that vote.
    metric
        Distance.

    Returns
    -------
    Labels, shape (n_query,); "" for rows with NaN. Ties go to the label that sorts first. Reference rows with NaN have no vote.

    Raises
    ------
    ValueError
        If labels or dimensions do not fit the reference, or no reference row can vote.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import knn_vote
    >>> knn_vote(np.eye(2), np.array(["a", "b"]), np.array([[0.9, 0.1]]), n_neighbors=1).tolist()
    ['a']
    """
    from sklearn.neighbors import KNeighborsClassifier

    if len(reference) != len(labels):
        msg = f"{len(reference)} reference cells, but {len(labels)} labels. Expected is one a cell: pass the same cells in the same order."
        raise ArgumentError(msg)
    if reference.shape[1] != query.shape[1]:
        msg = f"The reference has {reference.shape[1]} dimensions, the query {query.shape[1]}; embed both with the same model"
        raise ArgumentError(msg)
    check_neighbors(n_neighbors)
    if metric not in {"cosine", "euclidean"}:
        msg = f"metric is {metric!r}; expected is 'cosine' or 'euclidean'"
        raise ArgumentError(msg)
    usable = np.isfinite(reference).all(axis=1)
    if not usable.any():
        msg = f"None of the {len(reference)} reference cells has an embedding without NaN, so none can vote. Embed them first, or pass other cells as reference."
        raise ArgumentError(msg)
    answered = np.isfinite(query).all(axis=1)
    classifier = KNeighborsClassifier(
        n_neighbors=min(n_neighbors, int(usable.sum())), metric=metric
    )
    classifier.fit(reference[usable], labels[usable])
    out = np.full(len(query), "", dtype=labels.dtype)
    if answered.any():
        out[answered] = classifier.predict(query[answered])
    return out


def check_neighbors(n_neighbors: int) -> None:
    """Refuse a number of neighbours that is none."""
    if n_neighbors < 1:
        msg = f"n_neighbors is {n_neighbors}; expected is at least 1"
        raise ArgumentError(msg)
