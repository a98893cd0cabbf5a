"""Which markers of a term are expressed in cells, and which expected ones are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from .marker_scores import BoundScorer, MarkerSupport

# an expected marker that is detected in a smaller fraction of a group's cells is missing
_RARELY = 0.1


class MarkerNames(NamedTuple):
    """Genes that are evidence for or against a term."""

    supporting: tuple[str, ...]
    """Ensembl ids of expressed markers, highest contribution first."""
    missing: tuple[str, ...]
    """Ensembl ids of markers that are not expressed, highest expected expression first."""


def marker_names(support: MarkerSupport, n: int) -> MarkerNames:
    """Return up to ``n`` supporting and missing markers of a group of cells.

    Markers with positive mean standardised expression that are detected in at least 10 % of the cells support the term; those that
    are detected in fewer are missing.
    """
    found = support.detected >= _RARELY
    supporting = support.genes[found & (support.contribution > 0)][:n]
    absent = np.flatnonzero(~found)
    order = absent[np.argsort(-support.expected[absent], kind="stable")]
    return MarkerNames(tuple(supporting.tolist()), tuple(support.genes[order][:n].tolist()))


def marker_names_of_cells(
    scorer: BoundScorer,
    counts: sparse.csr_matrix | sparse.csr_array,
    terms: Sequence[str],
    codes: NDArray[np.integer],
    n: int,
) -> list[MarkerNames]:
    """Return up to ``n`` supporting and missing markers of each cell's own term.

    Parameters
    ----------
    scorer
        For the columns of the counts.
    counts
        (n_cells, n_columns) raw counts.
    terms
        Terms.
    codes
        (n_cells,) index of each cell's term, negative for cells without one.
    n
        Maximum number of genes.
    """
    out = [MarkerNames((), ())] * len(codes)
    scored = {term: i for i, term in enumerate(scorer.scorer.terms)}
    for code in np.unique(codes[codes >= 0]).tolist():
        if terms[code] not in scored:
            continue
        rows = np.flatnonzero(codes == code)
        genes, z, detected, expected = scorer.expression(counts[rows], terms[code])
        contribution = np.where(detected, z * expected, -np.inf)
        order = np.argsort(-contribution, axis=1, kind="stable")[:, :n]
        absent = np.argsort(-np.where(detected, -1.0, expected), axis=1, kind="stable")[:, :n]
        for i, row in enumerate(rows.tolist()):
            supporting = order[i][contribution[i, order[i]] > 0]
            missing = absent[i][~detected[i, absent[i]]]
            out[row] = MarkerNames(
                tuple(genes[supporting].tolist()), tuple(genes[missing].tolist())
            )
    return out
