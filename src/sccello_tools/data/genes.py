"""Which gene each column of a matrix is, and an honest report of those that could not be told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._errors import GeneMatchError

from ._gene_names import describe_names
from .vocabulary import UNMATCHED, GeneVocabulary, gene_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ENSEMBL = re.compile(r"(ENSG\d{11})(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_MADE_UNIQUE = re.compile(r"(.+)[-.]\d+")  # what `var_names_make_unique` and R's make.unique append
_N_EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Result of matching the columns of a matrix to the vocabulary.

    Examples
    --------
    >>> from sccello_tools.data import match_gene_names
    >>> match = match_gene_names(["ENSG00000105374.10", "CD3E", "no such gene"], min_matched=2)
    >>> match.n_matched, match.gene_ids.tolist(), match.unmatched
    (2, ['ENSG00000105374', 'ENSG00000198851', ''], ('no such gene',))
    """

    gene_ids: NDArray[np.str_]
    """Unversioned Ensembl id of each column, "" if unmatched, shape (n_columns,)."""

    tokens: NDArray[np.int32]
    """Token id of each column, -1 if unmatched, shape (n_columns,)."""

    n_by_id: int
    """Columns matched by Ensembl id."""

    n_by_symbol: int
    """Columns matched by the vocabulary's symbol."""

    n_by_alias: int
    """Columns matched by an older, newer or alternative symbol."""

    looks_like: str
    """What the names look like, in words."""

    ambiguous: tuple[str, ...] = field(default=(), repr=False)
    """Symbols that name several genes of the vocabulary, none of them clearly meant; unmatched."""

    unmatched: tuple[str, ...] = field(default=(), repr=False)
    """Names that are no gene of the vocabulary."""

    n_vocabulary: int = 0
    """Genes of the vocabulary, for reference."""

    @property
    def n_columns(self) -> int:
        """Columns of the matrix."""
        return len(self.tokens)

    @property
    def n_matched(self) -> int:
        """Columns that are genes of the vocabulary."""
        return self.n_by_id + self.n_by_symbol + self.n_by_alias

    @property
    def n_genes(self) -> int:
        """Distinct genes of the vocabulary that the columns cover."""
        return len(np.unique(self.tokens[self.tokens != UNMATCHED]))

    @property
    def n_duplicates(self) -> int:
        """Matched columns beyond the first of their gene; their counts are summed when tokenizing."""
        return self.n_matched - self.n_genes

    def __str__(self) -> str:
        parts = [
            f"{self.n_matched:,} of {self.n_columns:,} genes match ({self.looks_like}): "
            f"{self.n_by_id:,} by Ensembl id, {self.n_by_symbol:,} by symbol, {self.n_by_alias:,} by alias; "
            f"{self.n_genes:,} of the vocabulary's {self.n_vocabulary:,} genes are covered"
        ]
        if self.n_duplicates:
            parts.append(f"{self.n_duplicates:,} columns repeat a gene and are summed with it")
        if self.ambiguous:
            parts.append(f"{len(self.ambiguous):,} symbols name several genes and are left out ({examples(self.ambiguous)})")
        if self.unmatched:
            parts.append(f"{len(self.unmatched):,} are not in the vocabulary ({examples(self.unmatched)})")
        return "; ".join(parts)


def examples(names: Sequence[str]) -> str:
    """Up to five names, quoted, for a message."""
    shown = ", ".join(repr(str(name)) for name in names[:_N_EXAMPLES])
    return shown + (", ..." if len(names) > _N_EXAMPLES else "")


def match_gene_names(names: Sequence[str], *, min_matched: int = 500) -> GeneMatch:
    """Match gene names to the vocabulary: Ensembl ids with or without version, symbols of any age, or a mixture.

    A symbol that names several genes goes to the one that no other column names; among several of those, to the one that
    NCBI and Ensembl list under it today; else it is reported as ambiguous and left out.

    Parameters
    ----------
    names
        One name a column.
    min_matched
        Fewest columns that must match.

    Returns
    -------
    The match of each column, with counts of how it was found.

    Raises
    ------
    GeneMatchError
        If fewer than ``min_matched`` names match. The message says what the names look like.
    """
    vocabulary = GeneVocabulary.load()
    names = [str(name).strip() for name in names]
    columns = Counter(names)
    gene_of: list[str] = [""] * len(names)
    n_found: Counter[str] = Counter()
    undecided: list[tuple[int, str, tuple[str, ...]]] = []

    for column, name in enumerate(names):
        found, how = _candidates(name, columns, vocabulary)
        if len(found) == 1:
            gene_of[column] = found[0]
            n_found[how] += 1
        elif found:
            undecided.append((column, how, found))

    named = set(gene_of)
    ambiguous = []
    for column, how, found in undecided:
        gene = _settle(names[column], found, named)
        if gene:
            gene_of[column] = gene
            named.add(gene)
            n_found[how] += 1
        else:
            ambiguous.append(names[column])

    left_out = set(ambiguous)
    match = GeneMatch(
        gene_ids=np.array(gene_of, dtype=str) if gene_of else np.zeros(0, dtype="<U15"),
        tokens=np.array([vocabulary.token_of[gene] if gene else UNMATCHED for gene in gene_of], dtype=np.int32),
        n_by_id=n_found["id"],
        n_by_symbol=n_found["symbol"],
        n_by_alias=n_found["alias"],
        looks_like=describe_names(names).description,
        ambiguous=tuple(ambiguous),
        unmatched=tuple(name for name, gene in zip(names, gene_of) if not gene and name not in left_out),
        n_vocabulary=len(vocabulary),
    )
    if match.n_matched < min_matched:
        raise GeneMatchError(_too_few(match, names, min_matched))
    return match


def _candidates(name: str, columns: Counter[str], vocabulary: GeneVocabulary) -> tuple[tuple[str, ...], str]:
    """Genes that a name may mean, and how they were found."""
    if ensembl := _ENSEMBL.fullmatch(name):
        gene = ensembl[1].upper()
        return ((gene,) if gene in vocabulary.token_of else ()), "id"
    if found := vocabulary.genes_by_symbol.get(name, ()):
        return found, "symbol"
    if found := gene_aliases().get(name, ()):
        return found, "alias"
    # "TBCE-1" beside a column "TBCE" is the second column of that symbol, renamed by make_unique
    if (renamed := _MADE_UNIQUE.fullmatch(name)) and renamed[1] in columns:
        return vocabulary.genes_by_symbol.get(renamed[1], ()), "symbol"
    return (), ""


def _settle(name: str, found: tuple[str, ...], named: set[str]) -> str:
    """Choose the gene that a name of several genes means, "" if that cannot be told."""
    free = [gene for gene in found if gene not in named]
    if len(free) == 1:
        return free[0]
    current = set(gene_aliases().get(name, ()))
    listed = [gene for gene in free if gene in current]
    return listed[0] if len(listed) == 1 else ""


def _too_few(match: GeneMatch, names: list[str], min_matched: int) -> str:
    kind = describe_names(names)
    return (
        f"Only {match.n_matched:,} of {match.n_columns:,} genes match the model's vocabulary of human genes, "
        f"and at least {min_matched:,} are expected ({kind.description}: {examples(names)}). {kind.advice}"
    )
