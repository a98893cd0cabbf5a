"""Which gene each column of a matrix is, and an honest report of those that could not be told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import GeneMatchError

from ._gene_names import describe_names
from .vocabulary import UNMATCHED, GeneVocabulary, current_symbols, gene_aliases, primary_genes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

# GENCODE up to release 24 wrote the pseudoautosomal genes of chromosome Y as ENSGR...
_ENSEMBL = re.compile(r"(ENSG[\dR]\d{10})(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_MADE_UNIQUE = re.compile(r"(.+)[-.]\d+")  # what `var_names_make_unique` and R's make.unique append
_N_EXAMPLES = 5


@dataclass(frozen=True, eq=False, repr=False)
class GeneMatch:
    """Result of matching the columns of a matrix to the vocabulary.

    Examples
    --------
    >>> from sccello_tools.tokens import match_gene_names
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

    ambiguous: tuple[str, ...] = ()
    """Symbols that name several genes of the vocabulary, none of them clearly meant; unmatched."""

    unmatched: tuple[str, ...] = ()
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

    def __repr__(self) -> str:
        return f"GeneMatch({self.n_matched:,} of {self.n_columns:,} columns match)"

    def __str__(self) -> str:
        summary = (
            f"{self.n_matched:,} of {self.n_columns:,} genes match ({self.looks_like}): "
            f"{self.n_by_id:,} by Ensembl id, {self.n_by_symbol:,} by symbol, {self.n_by_alias:,} by alias; "
            f"{self.n_genes:,} of the vocabulary's {self.n_vocabulary:,} genes are covered"
        )
        parts = [summary]
        if self.n_duplicates:
            parts.append(f"{self.n_duplicates:,} columns repeat a gene and are summed with it")
        if self.ambiguous:
            parts.append(
                f"{len(self.ambiguous):,} symbols name several genes and are left out ({examples(self.ambiguous)})"
            )
        if self.unmatched:
            parts.append(
                f"{len(self.unmatched):,} are not in the vocabulary ({examples(self.unmatched)})"
            )
        return "; ".join(parts)


def examples(names: Sequence[str]) -> str:
    """Up to five names, quoted, for a message."""
    shown = ", ".join(repr(str(name)) for name in names[:_N_EXAMPLES])
    return shown + (", ..." if len(names) > _N_EXAMPLES else "")


def match_gene_names(names: Sequence[str], *, min_matched: int = 500) -> GeneMatch:
    """Match gene names to the vocabulary: Ensembl ids with or without version, symbols of any age, or a mixture.

    A symbol that names several genes goes to the one that no other column names; among several of those, to the one that NCBI
    and Ensembl call so today, then to the one on the primary assembly (the others are copies on alternative haplotypes, as of
    HLA-A and TNF); else it is reported as ambiguous and left out. A symbol whose gene in the vocabulary is a retired id goes to
    the gene that NCBI and Ensembl list under it (SEPT1, TAZ). The order of the names has no say in it.

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

    Examples
    --------
    >>> from sccello_tools.tokens import match_gene_names
    >>> print(match_gene_names(["HLA-A", "TNF", "SEPT7"], min_matched=1).gene_ids)
    ['ENSG00000206503' 'ENSG00000232810' 'ENSG00000122545']
    """
    vocabulary = GeneVocabulary.load()
    names = [str(name).strip() for name in names]
    columns = Counter(names)
    found = {name: _candidates(name, columns) for name in columns}
    gene_of = _settle(found)

    gene_ids = [gene_of.get(name, "") for name in names]
    n_found = Counter(found[name].how for name in names if name in gene_of)
    left_out = [name for name in names if name not in gene_of]
    match = GeneMatch(
        gene_ids=np.array(gene_ids, dtype="<U15"),
        tokens=np.array(
            [vocabulary.token_of[gene] if gene else UNMATCHED for gene in gene_ids], dtype=np.int32
        ),
        n_by_id=n_found["id"],
        n_by_symbol=n_found["symbol"],
        n_by_alias=n_found["alias"],
        looks_like=describe_names(names).description,
        ambiguous=tuple(name for name in left_out if found[name].genes),
        unmatched=tuple(name for name in left_out if not found[name].genes),
        n_vocabulary=len(vocabulary),
    )
    if match.n_matched < min_matched:
        raise GeneMatchError(_too_few(match, names, min_matched))
    return match


class _Candidates(NamedTuple):
    """Genes that a name may mean."""

    genes: tuple[str, ...] = ()
    symbol: str = ""  # under which the genes were found
    how: str = ""


def _candidates(name: str, columns: Collection[str]) -> _Candidates:
    vocabulary = GeneVocabulary.load()
    if ensembl := _ENSEMBL.fullmatch(name):
        gene = ensembl[1].upper()
        if (
            gene not in vocabulary.token_of
        ):  # not all of the ENSGR ids are there: the gene of chromosome X then
            gene = gene.replace("R", "0")
        return _Candidates((gene,) if gene in vocabulary.token_of else (), how="id")
    genes, known = vocabulary.genes_by_symbol.get(name, ()), gene_aliases().get(name, ())
    if known and set(known).isdisjoint(
        genes
    ):  # what the vocabulary calls so, if anything, is retired
        return _Candidates(known, name, "alias")
    if genes:
        return _Candidates(genes, name, "symbol")
    # "TBCE-1" beside a column "TBCE" is the second column of that name, renamed by make_unique
    if (renamed := _MADE_UNIQUE.fullmatch(name)) and renamed[1] in columns:
        return _candidates(renamed[1], columns)
    return _Candidates()


def _settle(found: dict[str, _Candidates]) -> dict[str, str]:
    """Choose one gene for each name that means one or can be told; names that can't be told are absent."""
    gene_of = {name: genes[0] for name, (genes, _, _) in found.items() if len(genes) == 1}
    named = set(gene_of.values())
    chosen: dict[str, str] = {}
    # vocabulary's symbols before aliases, then by name: whatever the order of the columns
    undecided = sorted(
        (candidates.how != "symbol", candidates.symbol, name)
        for name, candidates in found.items()
        if len(candidates.genes) > 1
    )
    for _, symbol, name in undecided:
        genes = found[name].genes
        if symbol not in chosen:  # a renamed duplicate goes where its first column went
            chosen[symbol] = _choose(genes, symbol, named)
            named.add(chosen[symbol])
        if chosen[symbol]:
            gene_of[name] = chosen[symbol]
    return gene_of


def _choose(genes: tuple[str, ...], symbol: str, named: Collection[str]) -> str:
    """Choose the gene that a symbol of several genes means, "" if that cannot be told."""
    free = [gene for gene in genes if gene not in named]
    today = [gene for gene in free if gene in current_symbols().get(symbol, ())]
    primary = [gene for gene in today or free if gene in primary_genes()]
    for narrowed in (free, today, primary):
        if len(narrowed) == 1:
            return narrowed[0]
    return ""


def _too_few(match: GeneMatch, names: list[str], min_matched: int) -> str:
    kind = describe_names(names)
    shown = f": {examples(match.unmatched or names)}" if names else ""
    return (
        f"Only {match.n_matched:,} of {match.n_columns:,} genes match the model's vocabulary of human genes, "
        f"and at least {min_matched:,} are expected ({kind.description}{shown}). {kind.advice}"
    )
