"""Search for terms by the similarity of their names to a text."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .text import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from scipy import sparse


class TermHit(NamedTuple):
    """A search result."""

    id: str
    """Cell Ontology id."""

    name: str
    """Name of the term."""

    score: float
    """Similarity of the text to the name or best synonym of the term, in (0, 1]."""


class _Matrix(NamedTuple):
    feature: dict[str, int]
    weights: NDArray[np.float64]
    """(n_features,) inverse document frequency."""
    texts: sparse.csr_array
    """(n_texts, n_features), rows of unit length; the names of one term are adjacent."""
    starts: NDArray[np.intp]
    """(n_terms,) first row of each term."""


class NameIndex:
    """Names of terms as tf-idf vectors over words and letter trigrams.

    Parameters
    ----------
    names
        Name and synonyms of each term, the name first.
    """

    def __init__(self, names: Mapping[str, tuple[str, ...]]) -> None:
        self._terms = tuple(names)
        self._names = dict(names)

    def scores(self, text: str) -> NDArray[np.float64]:
        """Return the cosine similarity of a text to the best name of each term, shape (n_terms,), in [0, 1]."""
        matrix = self._matrix
        query = np.zeros(len(matrix.weights))
        for feature, count in Counter(_features(text)).items():
            index = matrix.feature.get(feature)
            if index is not None:
                query[index] = count * matrix.weights[index]
        length = np.linalg.norm(query)
        if length == 0:
            return np.zeros(len(self._terms))
        best = np.maximum.reduceat(matrix.texts @ (query / length), matrix.starts)
        return np.minimum(np.round(best, 3), 1)

    def find(self, text: str, *, n: int) -> tuple[TermHit, ...]:
        """Return the ``n`` most similar terms; among equal scores the shortest name comes first."""
        scores = self.scores(text)
        lowest = np.sort(scores)[-min(n, len(scores))]
        found = np.flatnonzero((scores >= lowest) & (scores > 0))
        terms = [self._terms[index] for index in found]
        hits = [TermHit(t, self._names[t][0], s) for t, s in zip(terms, scores[found].tolist())]
        return tuple(sorted(hits, key=lambda hit: (-hit.score, len(hit.name), hit.id))[:n])

    @cached_property
    def _matrix(self) -> _Matrix:
        from scipy import sparse

        starts: list[int] = []
        rows: list[Counter[str]] = []
        for names in self._names.values():
            starts.append(len(rows))
            rows += [Counter(_features(name)) for name in names]
        document_counts = Counter(feature for row in rows for feature in row)
        feature = {name: index for index, name in enumerate(sorted(document_counts))}
        weights = np.array([np.log(1 + len(rows) / document_counts[name]) for name in feature])
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        indices = np.array([feature[name] for row in rows for name in row], dtype=np.int32)
        data = np.array([count for row in rows for count in row.values()]) * weights[indices]
        data /= np.repeat(np.sqrt(np.add.reduceat(data**2, indptr[:-1])), np.diff(indptr))
        texts = sparse.csr_array((data, indices, indptr), shape=(len(rows), len(feature)))
        return _Matrix(feature, weights, texts, np.array(starts))


def _features(text: str) -> Iterable[str]:
    for word in words_of(text):
        yield word
        yield "".join(sorted(word))  # matches words with swapped letters
        padded = f"^{word}$"
        yield from (padded[i : i + 3] for i in range(len(padded) - 2))
