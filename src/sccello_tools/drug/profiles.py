"""Expression profiles of cell lines and cells, and the features that networks read from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import ArgumentError, GeneMatchError
from sccello_tools.tokens import CLS_ID, GeneVocabulary, RaggedTokens, match_gene_names

if TYPE_CHECKING:
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .config import DrugResponseConfig

_MIN_GENES: Final = 100
_PER_MILLION: Final = 1e6


def profiles_of_counts(
    counts: NDArray[np.floating[Any]], columns: NDArray[np.intp], mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Convert counts of cells or groups of cells to profiles: log counts per million, standardised within the row.

    Genes that were not measured get the mean of the training lines. Rows are independent of each other.

    Parameters
    ----------
    counts
        Counts, shape (n, n_measured).
    columns
        Index of each measured gene in ``mean``, shape (n_measured,).
    mean
        Mean profile of the training lines, shape (n_genes,).

    Returns
    -------
    Array of shape (n, n_genes), float32; NaN for rows without counts or with constant counts.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.drug.profiles import profiles_of_counts
    >>> mean = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    >>> profiles_of_counts(np.array([[5.0, 0.0], [0.0, 0.0]]), np.array([0, 2]), mean).round(1).tolist()
    [[1.0, 0.20000000298023224, -1.0], [nan, nan, nan]]
    """
    values = counts.astype(np.float64)
    total = values.sum(axis=1, keepdims=True)
    out = np.full((len(counts), len(mean)), np.nan, dtype=np.float32)
    usable = total[:, 0] > 0
    logs = np.log1p(values[usable] / total[usable] * _PER_MILLION)
    std = logs.std(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        standard = np.where(std > 0, (logs - logs.mean(axis=1, keepdims=True)) / std, np.nan)
    out[usable] = np.where(std > 0, mean, np.nan)
    out[np.ix_(np.flatnonzero(usable), columns)] = standard
    return out


def rank_tokens(
    values: NDArray[np.floating[Any]], tokens: NDArray[np.int32], *, max_length: int
) -> RaggedTokens:
    """Rank the genes of each row by value, ties by token id; rows with NaN get no tokens.

    Parameters
    ----------
    values
        Values of any sign, shape (n, n_genes); minus infinity for genes to omit.
    tokens
        Token id of each gene, shape (n_genes,).
    max_length
        Maximum number of tokens of a row, ``<cls>`` included.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.drug.profiles import rank_tokens
    >>> values = np.array([[-2.0, 0.5, 0.1], [1.0, 1.0, 3.0]])
    >>> rank_tokens(values, np.array([7, 8, 9], dtype=np.int32), max_length=3).ids.tolist()
    [25426, 8, 9, 25426, 9, 7]
    """
    n_genes = np.where(np.isnan(values).any(axis=1), 0, (values > -np.inf).sum(axis=1))
    by_token = np.argsort(tokens, kind="stable")
    # a stable sort of genes that are in the order of their ids leaves ties in that order
    order = by_token[np.argsort(-values[:, by_token], axis=1, kind="stable")][:, : max_length - 1]
    rows = np.concatenate(
        [np.full((len(values), 1), CLS_ID, np.int32), tokens[order].astype(np.int32)], axis=1
    )
    lengths = np.where(n_genes > 0, np.minimum(n_genes + 1, rows.shape[1]), 0)
    ids = rows[np.arange(rows.shape[1]) < lengths[:, None]]
    return RaggedTokens(
        np.concatenate([[0], np.cumsum(lengths)]),
        ids,
        np.zeros(len(ids), dtype=np.float32),
        n_genes.astype(np.int32),
    )


@dataclass(frozen=True, eq=False)
class LineFeatures:
    """Transformation of profiles to features, fitted on the training lines.

    A profile is the log expression of a cell line, a group of cells or a cell over :attr:`genes`, standardised within the profile.
    """

    genes: tuple[str, ...]
    """Ensembl ids, (n_genes,)."""
    mean: NDArray[np.float32]
    """(n_genes,) mean profile."""
    components: NDArray[np.float32]
    """(n_components, n_genes) principal axes of the profiles; empty if they are not features."""
    embedding_mean: NDArray[np.float32]
    """(d,) mean embedding; empty if the embedding is not a feature."""
    embedding_scale: NDArray[np.float32]
    """(d,) factor of the centred embedding."""

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.components) + len(self.embedding_mean)

    @classmethod
    def fit(
        cls,
        profiles: NDArray[np.float32],
        genes: tuple[str, ...],
        embedding: NDArray[np.float32] | None,
        config: DrugResponseConfig,
    ) -> LineFeatures:
        """Compute means and principal axes of (n_lines, n_genes) profiles and (n_lines, d) embeddings of the training lines."""
        mean = profiles.mean(axis=0)
        components = np.zeros((0, len(genes)), np.float32)
        if "expression" in config.cell_features:
            components = _principal_axes(profiles - mean, config.n_components)
        center = scale = np.zeros(0, np.float32)
        if "sccello" in config.cell_features and embedding is not None:
            center, std = embedding.mean(axis=0), embedding.std(axis=0)
            weight = config.embedding_weight if len(components) else 1.0
            scale = weight / np.sqrt(len(std)) / np.maximum(std, 1e-3 * std.max() + 1e-12)
        return cls(genes, mean, components, center, scale.astype(np.float32))

    def __call__(
        self, profiles: NDArray[np.float32], embedding: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Return (n, n_features) features of (n, n_genes) profiles and their (n, d) embeddings."""
        parts: list[NDArray[Any]] = [np.zeros((len(profiles), 0), np.float32)]
        if len(self.components):
            parts.append((profiles - self.mean) @ self.components.T)
        if len(self.embedding_mean):
            if embedding is None:
                msg = "The features include the embedding; pass embedding="
                raise ArgumentError(msg)
            parts.append((embedding - self.embedding_mean) * self.embedding_scale)
        return np.hstack(parts).astype(np.float32)


def embed_profiles(
    profiles: NDArray[np.float32],
    genes: tuple[str, ...],
    encoder: LoadedModel,
    *,
    absent: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Embed profiles as sequences of genes ranked by value.

    Values are not divided by the median expression of the vocabulary, which refers to counts of single cells: for microarray data that
    makes the embedding less predictive of drug response (``benchmarks/drug_response.py``), and so does ranking by the distance from
    the mean profile.

    Parameters
    ----------
    profiles
        Array of shape (n, n_genes); rows with NaN give NaN.
    genes
        Ensembl ids, length n_genes.
    encoder
        The scCello model.
    absent
        Genes without counts, which are not part of the sequence, shape (n, n_genes).

    Returns
    -------
    Array of shape (n, d), float32, ``representation="cls"``.
    """
    from sccello_tools.engine import encode

    token_of = GeneVocabulary.load().token_of
    tokens = np.array([token_of[gene] for gene in genes], dtype=np.int32)
    values = profiles if absent is None else np.where(absent, -np.inf, profiles)
    ranked = rank_tokens(values, tokens, max_length=encoder.config.max_positions)
    return encode(encoder.network, ranked, representation="cls")


def match_line_genes(names: list[str]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Match the columns of an expression table to genes of the vocabulary, one column per gene.

    Returns
    -------
    Columns, shape (n_genes,), and their Ensembl ids.

    Raises
    ------
    GeneMatchError
        If fewer than 100 genes match.
    """
    # R writes HLA-A as HLA.A
    match = match_gene_names([_from_r(name) for name in names], min_matched=1)
    ids = match.gene_ids
    first: dict[str, int] = {}
    for column, gene in enumerate(ids.tolist()):
        if gene:
            first.setdefault(gene, column)
    if len(first) < min(_MIN_GENES, len(names)):
        msg = f"{match}. At least {_MIN_GENES} genes are required: name the columns of the expression by symbols or Ensembl ids."
        raise GeneMatchError(msg)
    return np.fromiter(first.values(), dtype=np.intp), tuple(first)


def _from_r(name: str) -> str:
    return name if name.upper().startswith("ENSG") else name.replace(".", "-")


def _principal_axes(centred: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Return up to ``n`` principal axes of (n_lines, n_genes) profiles, scaled to a total variance of 1.

    Components keep their relative variances: those with little variance are mostly noise.
    """
    gram = centred.astype(np.float64) @ centred.T.astype(np.float64)
    variances, vectors = np.linalg.eigh(gram)
    kept = np.flatnonzero(variances[::-1] > 1e-9 * variances[-1])[:n]
    variances, vectors = variances[::-1][kept], vectors[:, ::-1][:, kept]
    axes = (vectors / np.sqrt(variances)).T @ centred
    # signs of axes are arbitrary; fix them for reproducibility
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    total = np.sqrt(variances.sum() / len(centred))
    scaled: NDArray[np.float64] = axes * signs[:, None] / total
    return scaled.astype(np.float32)
