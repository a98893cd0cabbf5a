"""Cell lines and cells as the network reads them: principal components of expression and the cell embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import ArgumentError, GeneMatchError
from sccello_tools.tokens import GeneVocabulary, match_gene_names

from .profiles import rank_tokens

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .config import DrugResponseConfig

_FEWEST_GENES = 100


@dataclass(frozen=True, eq=False)
class LineFeatures:
    """How a profile becomes features; all of it is measured on the training lines.

    A profile is the expression of one line, of a group of cells, or of a cell: the logarithm over :attr:`genes`, standardised within the profile.
    """

    genes: tuple[str, ...]
    """Ensembl ids, (n_genes,)."""
    mean: NDArray[np.float32]
    """(n_genes,) mean profile."""
    components: NDArray[np.float32]
    """(n_components, n_genes) principal axes of the profiles; none if the network does not read them."""
    embedding_mean: NDArray[np.float32]
    """(d,) of the embedding; d is 0 if the network does not read it."""
    embedding_scale: NDArray[np.float32]
    """(d,) what it is multiplied by."""

    @property
    def n_features(self) -> int:
        """Features of a line."""
        return len(self.components) + len(self.embedding_mean)

    @classmethod
    def fit(
        cls,
        profiles: NDArray[np.float32],
        genes: tuple[str, ...],
        embedding: NDArray[np.float32] | None,
        config: DrugResponseConfig,
    ) -> LineFeatures:
        """Measure means and principal axes of (n_lines, n_genes) profiles and (n_lines, d) embeddings of the training lines."""
        mean = profiles.mean(axis=0)
        components = np.zeros((0, len(genes)), np.float32)
        if "expression" in config.cell_features:
            components = _principal_axes(profiles - mean, config.n_components)
        centre = scale = np.zeros(0, np.float32)
        if "sccello" in config.cell_features and embedding is not None:
            centre, own = embedding.mean(axis=0), embedding.std(axis=0)
            weight = config.embedding_weight if len(components) else 1.0
            scale = weight / np.sqrt(len(own)) / np.maximum(own, 1e-3 * own.max() + 1e-12)
        return cls(genes, mean, components, centre, scale.astype(np.float32))

    def __call__(
        self, profiles: NDArray[np.float32], embedding: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Return (n, n_features) of (n, n_genes) profiles and their (n, d) embeddings."""
        parts: list[NDArray[Any]] = [np.zeros((len(profiles), 0), np.float32)]
        if len(self.components):
            parts.append((profiles - self.mean) @ self.components.T)
        if len(self.embedding_mean):
            if embedding is None:
                msg = "these features need the embedding of the profiles"
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
    """Rank the genes of each profile by value, without the vocabulary's medians, and embed them.

    The medians are those of counts in single cells. Dividing a microarray's values by them made the embedding tell less of drug
    response (benchmarks/drug_response.py), and so did ranking by the distance from the mean line.

    Parameters
    ----------
    profiles
        (n, n_genes); rows with NaN give NaN.
    genes
        (n_genes,) Ensembl ids.
    encoder
        The scCello model.
    absent
        (n, n_genes) genes that are no part of a cell: those without a count.

    Returns
    -------
    (n, d) float32, ``representation="cls"``.
    """
    from sccello_tools.engine import encode

    token_of = GeneVocabulary.load().token_of
    tokens = np.array([token_of[gene] for gene in genes], dtype=np.int32)
    values = profiles if absent is None else np.where(absent, -np.inf, profiles)
    ranked = rank_tokens(values, tokens, max_length=encoder.config.max_positions)
    return encode(encoder.network, ranked, representation="cls")


def match_line_genes(names: list[str]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Find the columns of an expression table that are genes of the vocabulary, one a gene.

    Returns
    -------
    Columns, (n_genes,), and their Ensembl ids.

    Raises
    ------
    GeneMatchError
        If there are too few.
    """
    # R writes HLA-A as HLA.A
    match = match_gene_names([_from_r(name) for name in names], min_matched=1)
    ids = match.gene_ids
    first: dict[str, int] = {}
    for column, gene in enumerate(ids.tolist()):
        if gene:
            first.setdefault(gene, column)
    if len(first) < min(_FEWEST_GENES, len(names)):
        msg = f"{match}. At least {_FEWEST_GENES} genes are needed: name the columns of the expression by symbols or Ensembl ids."
        raise GeneMatchError(msg)
    return np.fromiter(first.values(), dtype=np.intp), tuple(first)


def _from_r(name: str) -> str:
    return name if name.upper().startswith("ENSG") else name.replace(".", "-")


def _principal_axes(centred: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Axes (n, n_genes) of (n_lines, n_genes), fewer if there are not so many, scaled so that all spreads together are 1.

    The components keep their own spreads: what varies little between lines is mostly noise, and should weigh little.
    """
    gram = centred.astype(np.float64) @ centred.T.astype(np.float64)
    power, vectors = np.linalg.eigh(gram)
    kept = np.flatnonzero(power[::-1] > 1e-9 * power[-1])[:n]
    power, vectors = power[::-1][kept], vectors[:, ::-1][:, kept]
    axes = (vectors / np.sqrt(power)).T @ centred
    # the sign of an axis means nothing; make it the same on every machine
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    total = np.sqrt(power.sum() / len(centred))
    scaled: NDArray[np.float64] = axes * signs[:, None] / total
    return scaled.astype(np.float32)
