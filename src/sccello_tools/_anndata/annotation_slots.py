"""Columns of annotations, and writing them to an AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


@dataclass(frozen=True, eq=False)
class AnnotationSlots:
    """The columns of one annotation, over all cells."""

    terms: tuple[str, ...]
    codes: NDArray[np.integer]
    """(n_cells,) index of each cell's term, -1 for cells without one."""
    confidence: NDArray[np.float32]
    runner_up: NDArray[np.integer] | None = None
    novelty: NDArray[np.float32] | None = None
    status: NDArray[np.str_] | None = None
    contributions: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None

    def columns(self, key: str, names: TermNames) -> dict[str, Any]:
        """Return the columns of ``obs``.

        Parameters
        ----------
        key
            Name of the column of terms and prefix of the names of the others.
        names
            Names and ids of terms.
        """
        shown = [names.name(term) for term in self.terms]
        ids = [names.id(term) for term in self.terms]
        found: dict[str, Any] = {
            key: category(self.codes, shown),
            key + _keys.TERM_ID_SUFFIX: category(self.codes, ids),
            key + _keys.CONFIDENCE_SUFFIX: self.confidence.astype(np.float32),
        }
        if self.novelty is not None:
            found[_keys.NOVELTY] = self.novelty.astype(np.float32)
        if self.status is not None:
            found[key + _keys.STATUS_SUFFIX] = status_column(self.status)
        if self.runner_up is not None:
            second = key + _keys.RUNNER_UP_SUFFIX
            found[second] = category(self.runner_up, shown)
            found[second + _keys.TERM_ID_SUFFIX] = category(self.runner_up, ids)
        return found


@dataclass(frozen=True, eq=False)
class TermNames:
    """How terms are shown."""

    ontology: CellOntology
    names: Mapping[str, str]
    """What the user calls a term, instead of its name in the ontology."""
    parents: Mapping[str, str]
    """Term of each name of a user's own."""

    def name(self, term: str) -> str:
        """Return the name of a term; a name of a user's own is its own, and a label that is an id is shown by name."""
        called = self.names.get(term)
        if called is not None and called not in self.ontology:
            return called
        return self.ontology.name(term) if term in self.ontology else term

    def id(self, term: str) -> str | None:
        """Return the Cell Ontology id of a term, or that of its parent."""
        return term if term in self.ontology else self.parents.get(term)


def write_annotation(
    adata: AnnData, slots: AnnotationSlots, key: str, names: TermNames
) -> list[str]:
    """Write the columns and return their names, as they are logged.

    Parameters
    ----------
    adata
        Where to write.
    slots
        The annotation.
    key
        Column of ``obs`` and prefix of the names of the others.
    names
        Names and ids of terms.
    """
    columns = slots.columns(key, names)
    for name, values in columns.items():
        adata.obs[name] = values
    written = [f".obs[{name!r}]" for name in columns]
    tables = {_keys.EVIDENCE_SUFFIX: slots.contributions, _keys.SCORES_SUFFIX: slots.scores}
    for suffix, table in tables.items():
        if table is not None:
            adata.obsm[key + suffix] = table
            written.append(f".obsm[{key + suffix!r}]")
    return written


def status_column(status: NDArray[np.str_]) -> pd.Categorical[object]:
    """Return statuses as a category; "" is missing."""
    codes = np.full(len(status), -1)
    for code, value in enumerate(_keys.STATUSES):
        codes[status == value] = code
    column: pd.Categorical[object] = pd.Categorical.from_codes(
        codes, pd.Index(_keys.STATUSES, dtype=object)
    )
    return column


def category(
    codes: NDArray[np.integer], values: list[str | None] | list[str]
) -> pd.Categorical[object]:
    """Return a column of the values in use, sorted, of object dtype, which every version of anndata writes.

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
    table = np.full(len(values) + 1, -1, dtype=np.int64)  # code -1 takes the last
    for i in used:
        value = values[i]
        table[i] = -1 if value is None else place[value]
    column: pd.Categorical[object] = pd.Categorical.from_codes(
        table[codes], pd.Index(distinct, dtype=object)
    )
    return column
