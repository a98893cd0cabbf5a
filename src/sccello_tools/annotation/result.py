"""Annotations of cells: codes into a table of terms, and the columns of ``obs`` that are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


@dataclass(frozen=True, eq=False)
class TermNames:
    """Names and ids under which terms are written."""

    ontology: CellOntology
    names: Mapping[str, str]
    """User-defined names of terms, used instead of their names in the ontology."""
    parents: Mapping[str, str]
    """Parent term of each user-defined name."""

    def name(self, term: str) -> str:
        """Return the name of a term; a user-defined type is its own name, and a label that is an id is replaced by its name."""
        called = self.names.get(term)
        if called is not None and called not in self.ontology:
            return called
        return self.ontology.name(term) if term in self.ontology else term

    def id(self, term: str) -> str | None:
        """Return the Cell Ontology id of a term, or that of its parent."""
        return term if term in self.ontology else self.parents.get(term)


@dataclass(frozen=True, eq=False)
class Annotation:
    """Terms of cells, as codes into :attr:`terms`."""

    terms: tuple[str, ...]
    codes: NDArray[np.integer]
    """(n_cells,) assigned term; -1 for cells without one."""
    confidence: NDArray[np.float32]
    """(n_cells,) probability that the term is correct; NaN for cells without one."""

    def columns(self, key: str, names: TermNames) -> dict[str, Any]:
        """Return columns of ``obs``.

        Parameters
        ----------
        key
            Name of the column of terms and prefix of the names of the others.
        names
            Names and ids of terms.
        """
        return {
            **self._term_columns(self.codes, key, names),
            key + _keys.CONFIDENCE_SUFFIX: self.confidence.astype(np.float32),
        }

    def _term_columns(
        self, codes: NDArray[np.integer], key: str, names: TermNames
    ) -> dict[str, Any]:
        return {
            key: _category(codes, [names.name(term) for term in self.terms]),
            key + _keys.TERM_ID_SUFFIX: _category(codes, [names.id(term) for term in self.terms]),
        }


@dataclass(frozen=True, eq=False)
class OpenAnnotation(Annotation):
    """Known and open terms for all cells of a data set.

    :attr:`confidence` is calibrated for known cells; that of novel cells is the summed probability among open terms.
    """

    runner_up: NDArray[np.int32]
    """(n_cells,) most probable other term among known types for known cells, among open terms for novel ones; -1 without counts."""
    novelty: NDArray[np.float32]
    """(n_cells,) corrected novelty minus the threshold: positive for novel cells; NaN without counts."""
    status: NDArray[np.str_]
    """(n_cells,) "known", "novel_subtype", "unknown", or "" without counts."""
    contributions: NDArray[np.float32]
    """(n_cells, 4) by how much each source favours the most probable type over the runner-up, in log odds; NaN without counts."""
    scores: NDArray[np.float32]
    """(n_cells, n_columns); see :class:`PartialAnnotation`."""
    shift: float
    """Novelty shift of the data set that was removed."""
    threshold: float
    """Confidence threshold of known types."""

    def columns(self, key: str, names: TermNames) -> dict[str, Any]:
        """Return columns of ``obs``, as :meth:`Annotation.columns`, with novelty, status and runner-up."""
        return {
            **super().columns(key, names),
            _keys.NOVELTY: self.novelty.astype(np.float32),
            key + _keys.STATUS_SUFFIX: _status_column(self.status),
            **self._term_columns(self.runner_up, key + _keys.RUNNER_UP_SUFFIX, names),
        }


class PartialAnnotation(NamedTuple):
    """Result of the first pass for a chunk of cells."""

    novelty: NDArray[np.float32]
    """(n,) log odds of open against known terms; NaN for cells without counts."""
    assigned: NDArray[np.int32]
    """(n,) most probable known type."""
    runner_up: NDArray[np.int32]
    """(n,) second most probable known type."""
    known_sums: NDArray[np.float16]
    """(n, width) probability that each term of the lineage of the assigned type is correct."""
    known_parts: NDArray[np.float32]
    """(n, 4) difference between the scores of the two types by source; see :data:`CONTRIBUTIONS`."""
    open_term: NDArray[np.int32]
    """(n,) most probable open term."""
    open_runner_up: NDArray[np.int32]
    """(n,) second most probable open term."""
    open_sums: NDArray[np.float16]
    """(n, width) summed probability along the lineage of the open term."""
    open_parts: NDArray[np.float32]
    """(n, 4) difference between the scores of the two terms by source."""
    choice: NDArray[np.int32]
    """(n,) best candidate; 0 without candidates."""
    choice_runner_up: NDArray[np.int32]
    """(n,) second best candidate."""
    choice_confidence: NDArray[np.float32]
    """(n,) probability of the best candidate; NaN with the published method."""
    choice_parts: NDArray[np.float32]
    """(n, 4) difference between the scores of the two terms by source."""
    scores: NDArray[np.float32]
    """(n, n_columns) probabilities of known types or scores of candidates; no columns unless requested."""


def _status_column(status: NDArray[np.str_]) -> pd.Categorical[object]:
    """Return statuses as a categorical; "" is missing."""
    codes = np.full(len(status), -1)
    for code, value in enumerate(_keys.STATUSES):
        codes[status == value] = code
    column: pd.Categorical[object] = pd.Categorical.from_codes(
        codes, pd.Index(_keys.STATUSES, dtype=object)
    )
    return column


def _category(
    codes: NDArray[np.integer], values: list[str | None] | list[str]
) -> pd.Categorical[object]:
    """Return a categorical of the sorted values in use, of object dtype, which every version of anndata can write.

    Parameters
    ----------
    codes
        (n_cells,) index of each cell's value; negative for missing.
    values
        Values; None is missing.
    """
    used = np.unique(codes[codes >= 0]).tolist()
    distinct = sorted({value for i in used if (value := values[i]) is not None})
    place = {value: code for code, value in enumerate(distinct)}
    table = np.full(len(values) + 1, -1, dtype=np.int64)  # code -1 selects the last entry
    for i in used:
        value = values[i]
        table[i] = -1 if value is None else place[value]
    column: pd.Categorical[object] = pd.Categorical.from_codes(
        table[codes], pd.Index(distinct, dtype=object)
    )
    return column
