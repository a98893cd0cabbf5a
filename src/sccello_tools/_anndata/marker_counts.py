"""Raw counts for marker evidence: the matrix that holds them, and the token of each of its columns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools._settings import settings
from sccello_tools.errors import GeneMatchError, NotCountsError
from sccello_tools.tokens import ValueSummary, looks_like_counts, row_chunks

from .counts import RAW, not_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.tokens import Chunk

    from .counts import CountsSource

_SAMPLE_ROWS = 512  # that show whether a dense matrix holds counts


class MarkerCounts(NamedTuple):
    """A matrix of raw counts."""

    source: CountsSource
    tokens: NDArray[np.integer]
    """(n_columns,) token of each column, negative for variables outside the vocabulary."""

    def chunks(self, adata: AnnData, n_rows: int) -> Iterator[Chunk]:
        """Yield the rows in order, at most ``n_rows`` and ``settings.chunk_cells`` at a time.

        Raises
        ------
        NotCountsError
            If a chunk does not hold raw counts.
        """
        summary = ValueSummary()
        n_rows = min(n_rows, settings.chunk_cells)
        for chunk in row_chunks(self.source.matrix(adata), n_rows=n_rows):
            summary.add(chunk.rows.data)
            if complaint := summary.complaint(self.source.counts):
                helps = not summary.complaint("trust")
                raise NotCountsError(not_counts(adata, self.source, complaint, trust_helps=helps))
            yield chunk


def marker_counts(adata: AnnData, source: CountsSource) -> MarkerCounts:
    """Return the counts that a source selects.

    Raises
    ------
    NotCountsError
        If the matrix does not exist.
    GeneMatchError
        If too few genes match.
    """
    source.matrix(adata)
    return MarkerCounts(source, source.gene_match(adata, report=False).tokens)


def counts_beside(adata: AnnData, source: CountsSource, stored_layer: str) -> MarkerCounts | None:
    """Return the counts for cells that are already embedded, or None if there are none.

    Parameters
    ----------
    adata
        Annotated data.
    source
        What the user selected.
    stored_layer
        Matrix that the embedding was computed from ("X" for ``adata.X``); tried if no matrix was selected and ``X`` does not hold raw
        counts.
    """
    tried = [source]
    if source.layer is None and (stored_layer == RAW or stored_layer in adata.layers):
        tried.append(replace(source, layer=stored_layer))
    sample = min(_SAMPLE_ROWS, settings.chunk_cells)
    for each in tried:
        try:
            if each.counts == "trust" or looks_like_counts(each.matrix(adata), n_rows=sample):
                return marker_counts(adata, each)
        except (NotCountsError, GeneMatchError):
            continue
    return None
