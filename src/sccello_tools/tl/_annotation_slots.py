"""Where annotations go in an AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.annotation import Annotation
    from sccello_tools.ontology import CellOntology


@dataclass(frozen=True, eq=False)
class AnnotationSlots:
    """The columns of one annotation, over all cells."""

    terms: NDArray[np.str_]
    confidence: NDArray[np.float32]
    novelty: NDArray[np.float32] | None
    status: NDArray[np.str_] | None
    scores: NDArray[np.float32] | None
    columns: tuple[str, ...]

    @classmethod
    def of(
        cls, parts: Iterable[Annotation], columns: tuple[str, ...], *, keep_scores: bool
    ) -> AnnotationSlots:
        """Join the annotations of chunks; scores that are not kept are let go chunk by chunk if ``parts`` is a generator."""
        held = [
            part if keep_scores else part._replace(scores=part.scores[:0].copy()) for part in parts
        ]
        return cls(
            np.concatenate([part.terms for part in held]),
            np.concatenate([part.confidence for part in held]),
            np.concatenate([part.novelty for part in held]),
            np.concatenate([part.status for part in held]),
            np.concatenate([part.scores for part in held]) if keep_scores else None,
            columns,
        )


def name_of(term: str, ontology: CellOntology) -> str:
    """Return the name of a term; a name of a user's own is its own."""
    return ontology.name(term) if term in ontology else term


def write_annotation(
    adata: AnnData,
    slots: AnnotationSlots,
    key: str,
    ontology: CellOntology,
    *,
    names: Mapping[str, str] | None = None,
    parents: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the columns and return their names, as they are logged.

    Parameters
    ----------
    adata
        Where to.
    slots
        The answers.
    key
        Column of ``obs``, and start of the names of the others.
    ontology
        For names.
    names
        What the user calls a term, instead of its name in the ontology.
    parents
        Term that stands for an answer which is none itself.
    """
    ids = key + _keys.TERM_ID_SUFFIX
    confidence = key + _keys.CONFIDENCE_SUFFIX
    present = [term for term in np.unique(slots.terms).tolist() if term]
    called = [(names or {}).get(term) for term in present]
    # a label that is an id is shown by name, as everywhere
    shown = [
        name if name is not None and name not in ontology else name_of(term, ontology)
        for name, term in zip(called, present)
    ]
    term_ids = [term if term in ontology else (parents or {}).get(term) for term in present]
    adata.obs[key] = _column(slots.terms, dict(zip(present, shown)))
    adata.obs[ids] = _column(slots.terms, dict(zip(present, term_ids)))
    adata.obs[confidence] = slots.confidence
    written = [f".obs[{name!r}]" for name in (key, ids, confidence)]
    if slots.novelty is not None:
        adata.obs[_keys.NOVELTY] = slots.novelty
        written.append(f".obs[{_keys.NOVELTY!r}]")
    if slots.status is not None:
        status = key + _keys.STATUS_SUFFIX
        adata.obs[status] = pd.Categorical(slots.status, categories=list(_keys.STATUSES))
        written.append(f".obs[{status!r}]")
    if slots.scores is not None:
        scores = key + _keys.SCORES_SUFFIX
        adata.obsm[scores] = pd.DataFrame(
            slots.scores, index=adata.obs_names, columns=list(slots.columns)
        )
        written.append(f".obsm[{scores!r}]")
    return written


def _column(terms: NDArray[np.str_], values: Mapping[str, str | None]) -> pd.Categorical[object]:
    """Categories of object dtype, which every version of anndata writes; missing where a term has no value."""
    distinct = sorted({value for value in values.values() if value is not None})
    place = {value: code for code, value in enumerate(distinct)}
    found, member = np.unique(terms, return_inverse=True)
    code_of = {term: place.get(value or "", -1) for term, value in values.items()}
    codes = np.array([code_of.get(term, -1) for term in found.tolist()], dtype=np.int64)[member]
    column: pd.Categorical[object] = pd.Categorical.from_codes(
        codes, pd.Index(distinct, dtype=object)
    )
    return column
