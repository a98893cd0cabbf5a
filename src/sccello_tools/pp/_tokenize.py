"""Rank-value tokens of the cells of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools import _keys
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
) -> RaggedTokens:
    """Turn each cell into the list of its genes, most remarkable first.

    Genes are ranked by their count over their median in a large corpus, zeros left out, ties by token id. Every cell gives a row,
    in order; a cell without any gene of the vocabulary gives an empty one. The same cell gives the same tokens whatever the matrix
    type, the chunk or the order of the genes.

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
        Rows of the matrix to hold in memory at a time; ``sccello.settings.chunk_cells`` if not given.

    Returns
    -------
    The tokens of all cells. Fields written:

    `adata.obs["sccello_n_tokens"]` : int32, shape (n_obs,)
        Tokens of each cell, ``<cls>`` included; 0 for a cell without any gene of the vocabulary.
    `adata.obs["sccello_truncated"]` : bool, shape (n_obs,)
        Whether genes were cut off at ``max_length``.

    Raises
    ------
    GeneMatchError
        If too few genes match the vocabulary.
    NotCountsError
        If the matrix does not hold raw counts. The message names the layers that do.
    BackedDataError
        If ``adata`` is a view of a backed AnnData.

    Notes
    -----
    arXiv 2408.12373, section 3.1; the rank-value encoding is Geneformer's (doi:10.1038/s41586-023-06139-9).

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
    tokenizer = Tokenizer(source.gene_match(adata), max_length)
    chunks = iter_token_chunks(adata, tokenizer, source, chunk_cells=chunk_cells)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    with writing(adata, copy=False) as target:
        write_token_counts(target, tokens.lengths, tokens.truncated)
    log_written("tokenize", f".obs[{_keys.N_TOKENS!r}]", f".obs[{_keys.TRUNCATED!r}]")
    return tokens
