"""Gene embeddings to start from: principal axes of the ranks in the training cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.tokens import RaggedTokens

MIN_CELLS = 5
"""Cells that must express a gene before its axis means something."""
N_CELLS = 8_000
"""Cells that are looked at; more change the axes little."""
SHARE = 0.8
"""Of a gene's vector that is spectral; the rest stays random (0.6, so that lengths stay as they were)."""
_HALF_RANK = 32  # the rank at which a gene counts about two thirds of the first


class GeneVectors(NamedTuple):
    """Vectors of the genes that were seen."""

    vectors: NDArray[np.float32]
    """(vocab_size, d), rows of length sqrt(d), or 0 where ``seen`` is false."""
    seen: NDArray[np.bool_]
    """(vocab_size,): whether enough cells express the token's gene."""


def spectral_gene_vectors(
    tokens: RaggedTokens, *, vocab_size: int, d: int, seed: int
) -> GeneVectors:
    """Return the position of each gene along the ``d`` principal axes of the cells' ranks.

    A gene's value in a cell falls with its rank, as 1 / log2(2 + rank / 32), and is 0 where it is not expressed; values are centred and
    scaled by gene. Genes that go up and down together get near vectors, so that an encoder which merely averages its tokens
    tells cells apart before its first step; drawn at random, that takes it hundreds.

    Parameters
    ----------
    tokens
        Cells, drawn as training draws them. Each starts with ``<cls>``.
    vocab_size
        Number of tokens.
    d
        Size of a vector.
    seed
        Of the start of the iteration and of the rotation that makes all dimensions alike.
    """
    from sklearn.decomposition import PCA

    lengths = tokens.lengths
    ranks = np.concatenate([np.arange(length - 1) for length in lengths])
    ids = np.concatenate([tokens[cell][1:] for cell in range(len(tokens))])
    cells = np.repeat(np.arange(len(tokens)), lengths - 1)
    values = (1 / np.log2(2 + ranks / _HALF_RANK)).astype(np.float32)
    table = sparse.csr_matrix((values, (cells, ids)), shape=(len(tokens), vocab_size))
    mean = np.asarray(table.mean(0)).ravel()
    squares = np.asarray(table.multiply(table).mean(0)).ravel()
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    seen = (table.getnnz(axis=0) >= MIN_CELLS) & (
        spread > 1e-6
    )  # a gene that never moves says nothing
    vectors = np.zeros((vocab_size, d), dtype=np.float32)
    n_axes = min(d, len(tokens) - 1, int(seen.sum()) - 1)
    if n_axes < 1:
        return GeneVectors(vectors, np.zeros(vocab_size, dtype=bool))
    # a floor, or genes of five cells would weigh as much as those of half of them
    weights = 1 / np.maximum(spread[seen], np.median(spread[seen]) / 2)
    scaled = (table[:, seen] @ sparse.diags(weights.astype(np.float32))).tocsr()
    # arpack centres without making the table dense; a loose tolerance is plenty for a start
    pca = PCA(n_axes, svd_solver="arpack", tol=1e-2, random_state=seed).fit(scaled)
    axes = np.zeros((int(seen.sum()), d))
    axes[:, :n_axes] = pca.components_.T * np.sqrt(pca.singular_values_)
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)
    # a principal axis falls on all dimensions alike, as a random draw would
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    vectors[seen] = axes @ rotation * np.sqrt(d)
    return GeneVectors(vectors, seen)


@torch.no_grad()
def start_spectral(network: ScCelloModel, tokens: RaggedTokens, *, std: float, seed: int) -> None:
    """Turn the word embeddings of a fresh network to :func:`spectral_gene_vectors`; unseen genes keep what was drawn.

    Parameters
    ----------
    network
        A fresh network whose word embeddings were drawn with standard deviation ``std``.
    tokens
        Cells, drawn as training draws them.
    std
        Standard deviation of the embeddings.
    seed
        See :func:`spectral_gene_vectors`.
    """
    words = network.word_embeddings
    vocab_size, d = words.shape
    found = spectral_gene_vectors(tokens, vocab_size=vocab_size, d=d, seed=seed)
    seen = torch.from_numpy(found.seen)
    spectral = torch.from_numpy(found.vectors[found.seen])
    words[seen] = SHARE * std * spectral + (1 - SHARE**2) ** 0.5 * words[seen]
