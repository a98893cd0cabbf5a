"""Gene vocabulary of the model: Ensembl ID, token id, symbol and median expression of each gene."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final, TypeVar

    from numpy.typing import NDArray

    Name = TypeVar("Name", str, int)

PAD_ID: Final = 0
MASK_ID: Final = 1
CLS_ID: Final = 25426
VOCABULARY_SIZE: Final = 25427
UNMATCHED: Final = -1  # token of a column that is not a gene of the vocabulary


@dataclass(frozen=True, eq=False)
class GeneVocabulary:
    """The published vocabulary of 25,424 human genes (arXiv 2408.12373, section 3.1).

    Examples
    --------
    >>> from sccello_tools.tokens import GeneVocabulary
    >>> vocabulary = GeneVocabulary.load()
    >>> len(vocabulary), vocabulary.token_of["ENSG00000105374"]
    (25424, 3083)
    """

    gene_ids: NDArray[np.str_]
    """Unversioned Ensembl IDs in ascending order, array of shape (n_genes,)."""

    tokens: NDArray[np.int32]
    """Token id of each gene, array of shape (n_genes,)."""

    symbols: NDArray[np.str_]
    """Symbol of each gene, "" if it has none, array of shape (n_genes,)."""

    median_of_token: NDArray[np.float64]
    """Non-zero median expression (counts per 10,000) by token id, array of shape (25427,); NaN for special tokens."""

    sha256: str
    """sha256 of the uncompressed table, which identifies the vocabulary in manifests."""

    @classmethod
    @cache
    def load(cls) -> GeneVocabulary:
        """Read the vocabulary that ships with the package (once per process)."""
        raw = gzip.decompress(
            files("sccello_tools.resources").joinpath("gene_vocabulary.tsv.gz").read_bytes()
        )
        lines = [line.split("\t") for line in raw.decode().splitlines()[1:]]
        tokens = np.array([int(line[1]) for line in lines], dtype=np.int32)
        medians = np.full(VOCABULARY_SIZE, np.nan)
        medians[tokens] = [float(line[2]) for line in lines]
        return cls(
            gene_ids=np.array([line[0] for line in lines]),
            tokens=tokens,
            symbols=np.array([line[3] for line in lines]),
            median_of_token=medians,
            sha256=hashlib.sha256(raw).hexdigest(),
        )

    def __len__(self) -> int:
        return len(self.gene_ids)

    @cached_property
    def token_of(self) -> dict[str, int]:
        """Token id by Ensembl ID."""
        return dict(zip(self.gene_ids.tolist(), self.tokens.tolist()))

    @cached_property
    def gene_of(self) -> dict[int, str]:
        """Ensembl ID by token id."""
        return dict(zip(self.tokens.tolist(), self.gene_ids.tolist()))

    @cached_property
    def symbol_of(self) -> dict[str, str]:
        """Symbol by Ensembl ID; genes without a symbol are absent."""
        return {
            gene: symbol
            for gene, symbol in zip(self.gene_ids.tolist(), self.symbols.tolist())
            if symbol
        }

    @cached_property
    def genes_by_symbol(self) -> dict[str, tuple[str, ...]]:
        """Ensembl IDs by symbol; 1,324 symbols have more than one."""
        found: dict[str, list[str]] = {}
        for gene, symbol in self.symbol_of.items():
            found.setdefault(symbol, []).append(gene)
        return {symbol: tuple(genes) for symbol, genes in found.items()}


@cache
def gene_aliases() -> dict[str, tuple[str, ...]]:
    """Ensembl IDs of the vocabulary by any published symbol, current or former."""
    table = _alias_table()
    return group_genes([*table["alias"], *table["symbol"]], [*table["gene_id"]] * 2)


@cache
def current_symbols() -> dict[str, tuple[str, ...]]:
    """Ensembl IDs of the vocabulary by the current symbol of NCBI and Ensembl."""
    table = _alias_table()
    return group_genes(table["symbol"], table["gene_id"])


@cache
def primary_genes() -> frozenset[str]:
    """Genes on the primary assembly of the human genome among those that share a symbol."""
    text = files("sccello_tools.resources").joinpath("primary_genes.txt").read_text()
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


@cache
def _alias_table() -> pd.DataFrame:
    with files("sccello_tools.resources").joinpath("gene_aliases.tsv.gz").open("rb") as file:
        return pd.read_csv(file, sep="\t", compression="gzip", dtype=str, keep_default_na=False)


def group_genes(names: Iterable[Name], genes: Iterable[str]) -> dict[Name, tuple[str, ...]]:
    """Return the distinct genes of each name, in order.

    Parameters
    ----------
    names
        Name of each gene.
    genes
        Genes, as many as names.
    """
    found: dict[Name, dict[str, None]] = {}
    for name, gene in zip(names, genes):
        found.setdefault(name, {})[gene] = None
    return {name: tuple(of_name) for name, of_name in found.items()}
