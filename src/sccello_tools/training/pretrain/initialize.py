"""Initial weights: a fresh network, spectral gene embeddings, or the weights of another model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse

from sccello_tools.errors import ConfigError
from sccello_tools.nn import EncoderConfig, ScCelloModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.tokens import RaggedTokens

    from .config import PretrainConfig

N_CELLS = 8_000
"""Number of cells for the spectral start; more hardly change the components."""
MIN_CELLS = 5
"""Minimum number of cells that express a gene for a spectral embedding."""
SPECTRAL_FRACTION = 0.8
"""Weight of the spectral part of a gene embedding; the random part gets 0.6, which preserves the norm."""
_HALF_RANK = 32  # rank at which a gene's value is about two thirds of that of the first gene
_SIZES = (
    "vocab_size",
    "hidden_size",
    "n_layers",
    "n_heads",
    "intermediate_size",
    "max_positions",
)


class GeneVectors(NamedTuple):
    """Spectral vectors of the genes that occur in the cells."""

    vectors: NDArray[np.float32]
    """(vocab_size, d), rows of length sqrt(d), or 0 where ``seen`` is false."""
    seen: NDArray[np.bool_]
    """(vocab_size,): whether at least ``MIN_CELLS`` cells express the gene."""


def fresh_network(config: PretrainConfig, n_types: int) -> ScCelloModel:
    """Return a network with random weights from torch's global generator."""
    network = ScCelloModel(
        EncoderConfig(
            hidden_size=config.hidden_size,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            intermediate_size=config.intermediate_size,
            max_positions=config.max_length,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            n_prototypes=max(600, n_types),  # published: 600 rows, of which the first n are used
            tau=config.tau,
            initializer_range=config.initializer_range,
        )
    )
    if config.embedding_std is not None:
        encoder = network.encoder
        with torch.no_grad():
            encoder.word_embeddings.weight.normal_(std=config.embedding_std)
            encoder.word_embeddings.weight[network.config.pad_token_id] = 0
            encoder.position_embeddings.weight.normal_(std=config.embedding_std / 10)
            encoder.legacy_embeddings.zero_()
    return network


def spectral_gene_vectors(
    tokens: RaggedTokens, *, vocab_size: int, d: int, seed: int
) -> GeneVectors:
    """Return the loadings of each gene on the first ``d`` principal components of gene ranks.

    The value of a gene with rank r in a cell is 1 / log2(2 + r / 32), and 0 if it is not expressed; values are centred and scaled per
    gene. Co-expressed genes get similar vectors, so that an encoder which averages its tokens separates cell types before the first
    step; from random embeddings it needs hundreds of steps.

    Parameters
    ----------
    tokens
        Cells, sampled as in training. Each starts with ``<cls>``.
    vocab_size
        Number of tokens.
    d
        Length of a vector.
    seed
        Seed of the solver and of the rotation that distributes the components over all dimensions.
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
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    seen = (table.getnnz(axis=0) >= MIN_CELLS) & (std > 1e-6)  # constant genes are uninformative
    vectors = np.zeros((vocab_size, d), dtype=np.float32)
    n_axes = min(d, len(tokens) - 1, int(seen.sum()) - 1)
    if n_axes < 1:
        return GeneVectors(vectors, np.zeros(vocab_size, dtype=bool))
    # lower bound: otherwise genes of five cells would have the weight of genes of half the cells
    weights = 1 / np.maximum(std[seen], np.median(std[seen]) / 2)
    scaled = (table[:, seen] @ sparse.diags(weights.astype(np.float32))).tocsr()
    # arpack centres without densifying; a loose tolerance is sufficient for initial weights
    pca = PCA(n_axes, svd_solver="arpack", tol=1e-2, random_state=seed).fit(scaled)
    axes = np.zeros((int(seen.sum()), d))
    axes[:, :n_axes] = pca.components_.T * np.sqrt(pca.singular_values_)
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)
    # distribute each component over all dimensions, as in a random initialisation
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    vectors[seen] = axes @ rotation * np.sqrt(d)
    return GeneVectors(vectors, seen)


@torch.no_grad()
def start_spectral(network: ScCelloModel, tokens: RaggedTokens, *, std: float, seed: int) -> None:
    """Rotate the word embeddings of a fresh network towards :func:`spectral_gene_vectors`; unseen genes keep their random vector.

    Parameters
    ----------
    network
        A fresh network whose word embeddings have standard deviation ``std``; modified in place.
    tokens
        Cells, sampled as in training.
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
    random_part = (1 - SPECTRAL_FRACTION**2) ** 0.5
    words[seen] = SPECTRAL_FRACTION * std * spectral + random_part * words[seen]


@torch.no_grad()
def start_from(
    network: ScCelloModel,
    types: Sequence[str],
    *,
    earlier: ScCelloModel,
    earlier_types: Sequence[str],
) -> None:
    """Copy the weights of another model and the prototypes of the types that both have.

    Parameters
    ----------
    network
        The model to train, modified in place. Types that the other model lacks keep their random prototype.
    types
        Cell Ontology ids of its prototypes.
    earlier
        A model of the same size.
    earlier_types
        Cell Ontology ids of that model's prototypes.

    Raises
    ------
    ConfigError
        If the sizes of the models differ. The message lists the differences.
    """
    differing = [
        f"{name} {getattr(earlier.config, name)} instead of {getattr(network.config, name)}"
        for name in _SIZES
        if getattr(earlier.config, name) != getattr(network.config, name)
    ]
    if differing:
        msg = f"start_from is a model of another size ({', '.join(differing)}). Set PretrainConfig to the size of that model."
        raise ConfigError(msg)
    prototypes = network.learned_centroid.weight.clone()
    weights = {
        name: value
        for name, value in earlier.state_dict().items()
        if name != "learned_centroid.weight"
    }
    network.load_state_dict(weights, strict=False)
    row_of = {cell_type: row for row, cell_type in enumerate(earlier_types)}
    for row, cell_type in enumerate(types):
        if cell_type in row_of:
            prototypes[row] = earlier.learned_centroid.weight[row_of[cell_type]]
    network.learned_centroid.weight.copy_(prototypes)
