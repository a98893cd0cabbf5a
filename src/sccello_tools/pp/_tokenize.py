"""Tokenize the cells of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools._anndata.counts import CountsSource, iter_token_chunks
from sccello_tools._anndata.writing import check_writable, write_token_counts, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools.tokens import MAX_LENGTH, RaggedTokens, Tokenizer

if TYPE_CHECKING:
    from anndata import AnnData

    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def tokenize(
    adata: AnnData,
    *,
    layer: str | None = None,
    gene_ids: str | None = None,
    max_length: int = MAX_LENGTH,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    chunk_cells: int | None = None,
    return_values: bool = False,
) -> RaggedTokens:
    """Convert each cell to rank-value tokens: its expressed genes ranked by median-normalised expression.

    For raw counts ``x`` of a cell, restricted to the genes of the vocabulary, genes with ``x > 0`` are sorted by ``x / m`` in
    descending order, where ``m`` is the non-zero median of the gene in the pretraining corpus; ties are broken by token id. The result
    has one sequence per cell, in order, which is empty for a cell without counts in genes of the vocabulary. Tokens do not depend
    on the type of the matrix, the chunk size or the order of the genes.

    Parameters
    ----------
    adata
        %(adata)s
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    max_length
        %(max_length)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    chunk_cells
        Number of cells to read at a time; ``sccello.settings.chunk_cells`` by default.
    return_values
        Also return the expression value of each token, ``log1p(10_000 x / sum(x))`` with the sum over the genes of the vocabulary.
        Doubles the memory of the tokens.

    Returns
    -------
    The tokens of all cells. Fields written:

    `adata.obs["sccello_n_tokens"]` : int32, shape (n_obs,)
        Number of tokens, including ``<cls>``; 0 for a cell without counts in genes of the vocabulary.
    `adata.obs["sccello_truncated"]` : bool, shape (n_obs,)
        Whether a cell has more genes than ``max_length`` allows.

    Raises
    ------
    GeneMatchError
        If too few genes match the vocabulary.
    NotCountsError
        If the matrix does not hold raw counts. The message names the layers that do.
    SparseStructureError
        If the index arrays of a sparse matrix are damaged.
    BackedDataError
        If ``adata`` is a view of a backed AnnData.

    Notes
    -----
    arXiv 2408.12373, section 3.1. The rank-value encoding was introduced by Geneformer (doi:10.1038/s41586-023-06139-9).

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> tokens = sccello.pp.tokenize(adata)
    >>> len(tokens), int(tokens.lengths.max())
    (583, 2048)
    """
    check_writable(adata, copy=False)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    tokenizer = Tokenizer(source.gene_match(adata), max_length, return_values)
    chunks = iter_token_chunks(adata, tokenizer, source, chunk_cells=chunk_cells)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    with writing(adata, copy=False) as target:
        slots = write_token_counts(target, tokens.lengths, tokens.truncated)
    log_written("tokenize", *slots)
    return tokens
