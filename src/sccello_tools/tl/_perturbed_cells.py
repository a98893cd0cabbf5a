"""Cells to perturb: a sample of each group, their tokens, and the variables that the tokens stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._anndata.counts import (
    RAW,
    iter_token_chunks,
    warn_of_empty_cells,
    warn_of_unknown_genes,
)
from sccello_tools._anndata.groups import sample_cells
from sccello_tools._messages import quoted
from sccello_tools.errors import ArgumentError, GeneMatchError
from sccello_tools.tokens import RaggedTokens, Tokenizer, match_gene_names

from ._embed import loaded_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from sccello_tools._anndata.counts import CountsSource
    from sccello_tools._anndata.groups import CellSample
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens import GeneMatch


class PerturbedCells(NamedTuple):
    """Sampled cells and their tokens."""

    sample: CellSample
    model: LoadedModel
    max_length: int
    names: pd.Index
    """Names of the variables of the matrix."""
    match: GeneMatch
    column_of_token: NDArray[np.int64]
    """First variable of each token, -1 if there is none, shape (vocabulary size,)."""
    tokens: RaggedTokens

    @classmethod
    def draw(
        cls,
        adata: AnnData,
        source: CountsSource,
        *,
        groupby: str | None,
        n_cells_per_group: int,
        model: str | Path | LoadedModel,
        device: str,
        max_length: int | None,
        seed: int,
    ) -> PerturbedCells:
        """Draw cells of each group and tokenize them."""
        sample = sample_cells(adata, groupby, n_per_group=n_cells_per_group, seed=seed)
        loaded = loaded_model(model, device)
        positions = loaded.config.max_positions
        length = positions if max_length is None else max_length
        if length > positions:
            msg = f"max_length must be <= {positions}, the number of positions of model {loaded.name!r}; got {length}"
            raise ArgumentError(msg)
        match = source.gene_match(adata)
        cells = adata[sample.rows]
        if adata.isbacked:
            cells = cells.to_memory()
        tokens = tokens_of(cells, source, match, length)
        return cls(
            sample,
            loaded,
            length,
            pd.Index(source.var(adata).index.astype(str)),
            match,
            _first_columns(match),
            tokens,
        )

    def columns_of(self, genes: Sequence[str]) -> NDArray[np.int64]:
        """Return the variable of each gene, shape (n_genes,); of several variables of one gene, the first.

        Genes are named as the variables, or by any symbol or Ensembl id.

        Raises
        ------
        GeneMatchError
            If a gene is not a variable, or not in the vocabulary of the model.
        """
        columns = self.names.get_indexer_for(pd.Index(list(genes)))
        if len(columns) > len(genes):
            msg = f"Some of the genes name several variables. Call adata.var_names_make_unique() first ({quoted(genes)})."
            raise GeneMatchError(msg)
        absent = np.flatnonzero(columns < 0)
        if len(absent):
            found_tokens = match_gene_names(
                [genes[i] for i in absent.tolist()], min_matched=0
            ).tokens
            columns[absent] = np.where(found_tokens >= 0, self.column_of_token[found_tokens], -1)
        if unknown := [name for name, column in zip(genes, columns) if column < 0]:
            msg = f"{len(unknown)} of {len(genes)} genes are not variables of the data: {quoted(unknown)}. Use names of variables, such as {', '.join(map(repr, self.names[:3]))}, symbols or Ensembl ids."
            raise GeneMatchError(msg)
        if unmatched := [str(name) for name in self.names[columns[self.match.tokens[columns] < 0]]]:
            msg = f"{len(unmatched)} of {len(genes)} genes are not in the vocabulary of the model: {quoted(unmatched)}. Omit them; pp.match_genes reports which genes match."
            raise GeneMatchError(msg)
        found: NDArray[np.int64] = self.column_of_token[self.match.tokens[columns]]
        return found

    def layer_of(self, scores: sparse.csr_matrix, adata: AnnData) -> sparse.csr_matrix:
        """Return scores of the sampled cells as a layer of shape (n_obs, n_vars); nothing is stored for other cells."""
        from scipy import sparse

        if not self.names.equals(adata.var_names):  # the matrix is adata.raw.X
            columns = self.names.get_indexer(adata.var_names)
            kept = sparse.csr_matrix(
                (
                    np.ones((columns >= 0).sum()),
                    (columns[columns >= 0], np.flatnonzero(columns >= 0)),
                ),
                shape=(len(self.names), adata.n_vars),
                dtype=np.float32,
            )
            scores = sparse.csr_matrix(scores @ kept)
        lengths = np.zeros(adata.n_obs, dtype=np.int64)
        lengths[self.sample.rows] = np.diff(scores.indptr)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix((scores.data, scores.indices, indptr), shape=adata.shape)


def tokens_of(
    cells: AnnData, source: CountsSource, match: GeneMatch, max_length: int
) -> RaggedTokens:
    """Tokenize cells, with warnings about cells without tokens and counts outside the vocabulary."""
    chunks = iter_token_chunks(
        cells, Tokenizer(match, max_length), source, warn_of_empty=False, warn_of_unknown=False
    )
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    warn_of_empty_cells(int((tokens.lengths == 0).sum()), len(tokens))
    if tokens.known_fraction is not None:
        warn_of_unknown_genes(tokens.known_fraction)
    return tokens


def uses_raw(source: CountsSource) -> bool:
    """Whether the variables are those of ``adata.raw``."""
    return source.layer == RAW


def _first_columns(match: GeneMatch) -> NDArray[np.int64]:
    from sccello_tools.tokens import VOCABULARY_SIZE

    columns = np.flatnonzero(match.tokens >= 0)[::-1]
    column_of_token = np.full(VOCABULARY_SIZE, -1, dtype=np.int64)
    column_of_token[match.tokens[columns]] = columns
    return column_of_token
