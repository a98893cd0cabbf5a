"""Counts of the genes that a drug response model reads, by cell or summed by group, as profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from sccello_tools._anndata.counts import not_counts
from sccello_tools.errors import NotCountsError
from sccello_tools.tokens import ValueSummary, row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._anndata.counts import CountsSource
    from sccello_tools.drug import DrugResponseModel

_ROWS = 512  # cells at a time: their genes are laid out densely


class CellCounts(NamedTuple):
    """Counts of some consecutive cells."""

    start: int
    """Index of the first cell."""
    counts: NDArray[np.float64]
    """(n_cells, n_shared) of the genes that the model and the data share."""


class CountsOfGenes:
    """Walks the cells of an AnnData, checking that the matrix holds raw counts on the way.

    Raises
    ------
    NotCountsError
        While walking, at the first value that is no count.
    GeneMatchError
        If too few genes match the vocabulary or the model.
    """

    def __init__(
        self,
        adata: AnnData,
        model: DrugResponseModel,
        source: CountsSource,
    ) -> None:
        self._adata, self._source = adata, source
        self._matrix = source.matrix(adata)
        ids = source.gene_match(adata).gene_ids.tolist()
        there, self.own_genes = model.gene_columns([gene for gene in ids if gene])
        named = [gene for gene in ids if gene]
        place = {named[t]: k for k, t in enumerate(there.tolist())}
        columns = [(c, place[gene]) for c, gene in enumerate(ids) if gene in place]
        # columns of one gene are summed, as in tokens
        rows, places = np.array(columns, dtype=np.intp).T
        self._gather = sparse.csr_array(
            (np.ones(len(columns)), (rows, places)), shape=(len(ids), len(there))
        )

    def __iter__(self) -> Iterator[CellCounts]:
        summary = ValueSummary()
        for chunk in row_chunks(self._matrix, n_rows=_ROWS):
            summary.add(chunk.rows.data)
            if complaint := summary.complaint(self._source.counts):
                helps = not summary.complaint("trust")
                raise NotCountsError(
                    not_counts(self._adata, self._source, complaint, trust_helps=helps)
                )
            yield CellCounts(chunk.start, np.asarray((chunk.rows @ self._gather).todense()))
        if self._adata.n_obs and not summary.n_positive:
            raise NotCountsError(
                not_counts(self._adata, self._source, "all values are zero", trust_helps=False)
            )

    def by_group(self, codes: NDArray[np.integer], n_groups: int) -> NDArray[np.float64]:
        """Sum the counts of each group, (n_groups, n_shared)."""
        total = np.zeros((n_groups, len(self.own_genes)))
        for start, counts in self:
            np.add.at(total, codes[start : start + len(counts)], counts)
        return total
