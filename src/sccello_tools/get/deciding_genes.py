"""Marker genes that decide about the terms of cells and groups, from the counts of an AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.marker_counts import counts_beside
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._anndata.marker_counts import MarkerCounts
    from sccello_tools.annotation.marker_scores import BoundScorer, MarkerSupport

SOURCES: Final = ("embedding", "ontology", "markers", "prior")
"""Columns of the contributions of sources of evidence."""
_CHUNK = 4096
_CELLS_PER_GROUP = 500  # whose expression is averaged


class DecidingGenes(NamedTuple):
    """Symbols, separated by commas."""

    supporting: list[str]
    missing: list[str]


def genes_of_cells(
    adata: AnnData, record: Mapping[str, Any], terms: Sequence[str | None], n: int
) -> DecidingGenes | None:
    """Return supporting and missing markers of each cell's term; None if the counts are not available.

    Parameters
    ----------
    adata
        Annotated data.
    record
        ``uns`` of the annotation.
    terms
        Cell Ontology id of each cell, None for cells without one.
    n
        Maximum number of genes.
    """
    from sccello_tools.annotation.marker_support import marker_names_of_cells

    prepared = _scorer(adata, record)
    if prepared is None:
        return None
    counts, scorer = prepared
    codes, names = pd.factorize(np.asarray(terms, dtype=object))
    found = []
    for chunk in counts.chunks(adata, _CHUNK):
        rows = slice(chunk.start, chunk.start + chunk.rows.shape[0])
        found += marker_names_of_cells(scorer, chunk.rows, names.tolist(), codes[rows], n)
    return _as_text(found)


def genes_of_groups(
    adata: AnnData,
    record: Mapping[str, Any],
    groups: NDArray[np.integer],
    terms: Sequence[str | None],
    n: int,
) -> DecidingGenes | None:
    """Return supporting and missing markers of the term of each group; see :func:`genes_of_cells`."""
    from sccello_tools.annotation.marker_support import MarkerNames, marker_names

    supports = support_of_groups(adata, record, groups, terms)
    if supports is None:
        return None
    nothing = MarkerNames((), ())
    return _as_text([nothing if s is None else marker_names(s, n) for s in supports])


def support_of_groups(
    adata: AnnData,
    record: Mapping[str, Any],
    groups: NDArray[np.integer],
    terms: Sequence[str | None],
) -> list[MarkerSupport | None] | None:
    """Return the markers of the term of each group with their mean expression in up to 500 of its cells.

    Returns
    -------
    None if the counts are not available; None for groups without cells or markers.
    """
    prepared = _scorer(adata, record)
    if prepared is None:
        return None
    counts, scorer = prepared
    scored = set(scorer.scorer.terms)
    supports: list[MarkerSupport | None] = []
    of_group = _sampled(adata, counts, groups, len(terms))
    for rows, term in zip(of_group, terms):
        is_scored = term in scored and rows is not None and rows.shape[0] > 0
        supports.append(scorer.support(rows, str(term)) if is_scored and rows is not None else None)
    return supports


def group_expression(
    adata: AnnData,
    groups: NDArray[np.integer],
    codes: Sequence[int],
    symbols: Sequence[str],
    *,
    key: str,
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return mean standardised expression of genes and the fraction of cells with a count in groups.

    Parameters
    ----------
    adata
        Annotated data.
    groups
        (n_cells,) group of each cell.
    codes
        Groups to return.
    symbols
        Symbols or Ensembl ids.
    key
        ``key_added`` of the annotation.

    Returns
    -------
    Arrays of shape (n_groups, n_genes), over up to 500 cells per group; None if the counts are not available.
    """
    stored = adata.uns.get(key)
    prepared = _scorer(adata, stored if isinstance(stored, Mapping) else {})
    if prepared is None:
        return None
    counts, scorer = prepared
    vocabulary = GeneVocabulary.load()
    gene_of = {symbol: gene for gene, symbol in vocabulary.symbol_of.items()}
    tokens = np.array([vocabulary.token_of[gene_of.get(name, name)] for name in symbols])
    mean = np.full((len(codes), len(symbols)), np.nan, dtype=np.float32)
    detected = np.full((len(codes), len(symbols)), np.nan, dtype=np.float32)
    of_group = _sampled(adata, counts, groups, int(groups.max(initial=-1)) + 1)
    for row, code in enumerate(codes):
        cells = of_group[code]
        if cells is not None and cells.shape[0]:
            z, found = scorer.standardised(cells, tokens)
            mean[row], detected[row] = z.mean(axis=0), found.mean(axis=0)
    return mean, detected


def symbols_of(genes: Sequence[str]) -> list[str]:
    """Return the symbols of Ensembl ids; the id where there is none."""
    symbols = GeneVocabulary.load().symbol_of
    return [symbols.get(gene, gene) for gene in genes]


def _scorer(adata: AnnData, record: Mapping[str, Any]) -> tuple[MarkerCounts, BoundScorer] | None:
    from sccello_tools.annotation.marker_scores import MarkerScorer
    from sccello_tools.annotation.markers import CellMarkers

    layer = str(record.get("layer", "")) or "X"
    source = CountsSource(
        None if layer == "X" else layer,
        str(record.get("gene_ids", "")) or None,
        "trust" if record.get("counts") == "trust" else "check",
        int(record.get("min_matched", 500)),
    )
    counts = counts_beside(adata, source, layer)
    if counts is None:
        return None
    markers = CellMarkers.load()
    if isinstance(own := record.get("markers"), pd.DataFrame):
        markers = markers.updated(CellMarkers(own))
    return counts, MarkerScorer.of(markers, CellOntology.load()).bind(counts.tokens)


def _sampled(
    adata: AnnData, counts: MarkerCounts, groups: NDArray[np.integer], n_groups: int
) -> list[sparse.csr_matrix | None]:
    """Return the counts of up to 500 cells of each group, spread over its rows."""
    chosen = np.zeros(len(groups), dtype=bool)
    for code in range(n_groups):
        rows = np.flatnonzero(groups == code)
        if len(rows):
            spread = np.linspace(0, len(rows) - 1, min(_CELLS_PER_GROUP, len(rows))).astype(int)
            chosen[rows[spread]] = True
    parts, members = [], []
    for chunk in counts.chunks(adata, _CHUNK):
        inside = np.flatnonzero(chosen[chunk.start : chunk.start + chunk.rows.shape[0]])
        parts.append(sparse.csr_matrix(chunk.rows[inside]))
        members.append(groups[chunk.start + inside])
    if not parts:
        return [None] * n_groups
    rows, member = sparse.vstack(parts, format="csr"), np.concatenate(members)
    return [sparse.csr_matrix(rows[np.flatnonzero(member == code)]) for code in range(n_groups)]


def _as_text(found: Sequence[Any]) -> DecidingGenes:
    return DecidingGenes(
        [", ".join(symbols_of(names.supporting)) for names in found],
        [", ".join(symbols_of(names.missing)) for names in found],
    )
