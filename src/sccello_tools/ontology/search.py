"""Search the names and synonyms of an ontology by likeness, for suggestions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from .text import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from scipy import sparse

    from .graph import CellOntology


class TermHit(NamedTuple):
    """A term that a text may mean."""

    id: str
    """Cell Ontology id."""

    name: str
    """Its name."""

    score: float
    """Likeness of the text to the term's name or best synonym, in (0, 1]."""


class _Index(NamedTuple):
    feature: dict[str, int]
    weights: NDArray[np.float64]  # by feature: rare ones count more
    texts: (
        sparse.csr_array
    )  # (n_texts, n_features), rows of unit length, the texts of a term together
    starts: NDArray[np.intp]  # first text of each term


_INDEXES: WeakKeyDictionary[CellOntology, _Index] = WeakKeyDictionary()


def term_scores(ontology: CellOntology, text: str) -> NDArray[np.float64]:
    """Likeness of a text to the best name of each term: cosine over words and letter triples, weighted by rarity.

    Returns
    -------
    Array of shape (n_terms,), in [0, 1], in the order of ``ontology.terms``.
    """
    if ontology not in _INDEXES:
        _INDEXES[ontology] = _build(ontology)
    index = _INDEXES[ontology]
    query = np.zeros(len(index.weights))
    for feature, count in Counter(_features(text)).items():
        place = index.feature.get(feature)
        if place is not None:
            query[place] = count * index.weights[place]
    length = np.linalg.norm(query)
    if length == 0:
        return np.zeros(len(ontology))
    best = np.maximum.reduceat(index.texts @ (query / length), index.starts)
    return np.minimum(np.round(best, 3), 1)


def search_terms(ontology: CellOntology, text: str, *, n: int) -> tuple[TermHit, ...]:
    """Rank current terms by the likeness of their names to a text."""
    scores = term_scores(ontology, text)
    worst = np.sort(scores)[-min(n, len(scores))]
    places = np.flatnonzero(
        (scores >= worst) & (scores > 0)
    )  # ties included, the shortest name wins
    terms = [ontology.terms[place] for place in places]
    hits = [TermHit(t, ontology.name(t), score) for t, score in zip(terms, scores[places].tolist())]
    return tuple(sorted(hits, key=lambda hit: (-hit.score, len(hit.name), hit.id))[:n])


def _features(text: str) -> Iterable[str]:
    words = words_of(text)
    for word in words:
        yield word  # a whole word counts beside its letters,
        yield "".join(sorted(word))  # and with letters swapped
        padded = f"^{word}$"
        yield from (padded[i : i + 3] for i in range(len(padded) - 2))


def _build(ontology: CellOntology) -> _Index:
    from scipy import sparse

    starts: list[int] = []
    rows: list[Counter[str]] = []
    for term in ontology:
        starts.append(len(rows))
        names = (ontology.name(term), *ontology.synonyms(term))
        rows += [Counter(_features(name)) for name in names]
    n_having = Counter(feature for row in rows for feature in row)
    feature = {name: place for place, name in enumerate(sorted(n_having))}
    weights = np.array([np.log(1 + len(rows) / n_having[name]) for name in feature])
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.array([feature[name] for row in rows for name in row], dtype=np.int32)
    data = np.array([count for row in rows for count in row.values()]) * weights[indices]
    lengths = np.sqrt(np.add.reduceat(data**2, indptr[:-1]))
    data /= np.repeat(lengths, np.diff(indptr))
    texts = sparse.csr_array((data, indices, indptr), shape=(len(rows), len(feature)))
    return _Index(feature, weights, texts, np.array(starts))
