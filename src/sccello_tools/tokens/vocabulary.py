"""The genes that the model knows: Ensembl id, token id and median expression of each."""

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
    from typing import Final

    from numpy.typing import NDArray

PAD_ID: Final = 0
MASK_ID: Final = 1
CLS_ID: Final = 25426
VOCABULARY_SIZE: Final = 25427
UNMATCHED: Final = -1  # token of a column that names no gene of the vocabulary


@dataclass(frozen=True, eq=False)
class GeneVocabulary:
    """The published vocabulary: 25,424 human genes (METHOD: Vocabulary; arXiv 2408.12373, section 3.1).

    Examples
    --------
    >>> from sccello_tools.tokens import GeneVocabulary
    >>> vocabulary = GeneVocabulary.load()
    >>> len(vocabulary), vocabulary.token_of["ENSG00000105374"]
    (25424, 3083)
    """

    gene_ids: NDArray[np.str_]
    """Unversioned Ensembl ids, ascending, array of shape (n_genes,)."""

    tokens: NDArray[np.int32]
    """Token id of each gene, shape (n_genes,)."""

    symbols: NDArray[np.str_]
    """Symbol of each gene, "" where it has none, shape (n_genes,)."""

    median_of_token: NDArray[np.float64]
    """Non-zero median expression (counts per 10,000) by token id, shape (25427,); NaN for special tokens."""

    sha256: str
    """Hash of the table (uncompressed), the identity of this vocabulary in manifests."""

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
        """Token id by Ensembl id."""
        return dict(zip(self.gene_ids.tolist(), self.tokens.tolist()))

    @cached_property
    def gene_of(self) -> dict[int, str]:
        """Ensembl id by token id."""
        return dict(zip(self.tokens.tolist(), self.gene_ids.tolist()))

    @cached_property
    def symbol_of(self) -> dict[str, str]:
        """Symbol by Ensembl id; genes without a symbol are absent."""
        return {
            gene: symbol
            for gene, symbol in zip(self.gene_ids.tolist(), self.symbols.tolist())
            if symbol
        }

    @cached_property
    def genes_by_symbol(self) -> dict[str, tuple[str, ...]]:
        """Ensembl ids by symbol; 1,324 symbols name more than one."""
        found: dict[str, list[str]] = {}
        for gene, symbol in self.symbol_of.items():
            found.setdefault(symbol, []).append(gene)
        return {symbol: tuple(genes) for symbol, genes in found.items()}


@cache
def gene_aliases() -> dict[str, tuple[str, ...]]:
    """Ensembl ids of the vocabulary by any symbol that was ever published for them, today's included."""
    table = _alias_table()
    return _group([*table["alias"], *table["symbol"]], [*table["gene_id"]] * 2)


@cache
def current_symbols() -> dict[str, tuple[str, ...]]:
    """Ensembl ids of the vocabulary by the symbol that NCBI and Ensembl give them today."""
    table = _alias_table()
    return _group(table["symbol"], table["gene_id"])


@cache
def primary_genes() -> frozenset[str]:
    """Of genes that share a symbol, those that are annotated on the primary assembly of the human genome."""
    text = files("sccello_tools.resources").joinpath("primary_genes.txt").read_text()
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


@cache
def _alias_table() -> pd.DataFrame:
    with files("sccello_tools.resources").joinpath("gene_aliases.tsv.gz").open("rb") as file:
        return pd.read_csv(file, sep="\t", compression="gzip", dtype=str, keep_default_na=False)


def _group(names: Iterable[str], genes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for name, gene in zip(names, genes):
        found.setdefault(name, {})[gene] = None
    return {name: tuple(of_name) for name, of_name in found.items()}
