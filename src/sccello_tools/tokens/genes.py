"""Match the columns of a matrix to the genes of the vocabulary, and report those that do not match."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import GeneMatchError

from ._gene_names import describe_names, is_control, is_missing, non_gene_types
from ._name_repair import clean, genes_of_date, human_prefix, is_date, repairs
from .vocabulary import UNMATCHED, GeneVocabulary, current_symbols, gene_aliases, primary_genes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

# GENCODE up to release 24 wrote the pseudoautosomal genes of chromosome Y as ENSGR...
_ENSEMBL = re.compile(r"(ENSG[\dR]\d{10})(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_MADE_UNIQUE = re.compile(
    r"(.+?)(?:[-.]|__?)\d+"
)  # var_names_make_unique, make.unique of R, pandas
_DATE = "date "  # start of the key under which the genes of a date are looked up
_N_EXAMPLES = 5
_MANY_COLUMNS = 3  # an alias of this many columns is a placeholder, such as "U6", and not one gene
# a targeted panel: few genes, nearly all of them human
_PANEL_GENES = 50
_PANEL_FRACTION = 0.9
DEFAULT_MIN_MATCHED = 500
"""Default of ``min_matched`` in all functions."""


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
    """Unversioned Ensembl ID of each column, "" if unmatched, array of shape (n_columns,)."""

    tokens: NDArray[np.int32]
    """Token id of each column, -1 if unmatched, array of shape (n_columns,)."""

    excluded: NDArray[np.bool_]
    """Whether a column is known not to be a gene: another feature type, a control probe or a spike-in. Array of shape (n_columns,)."""

    n_by_id: int
    """Number of columns matched by Ensembl ID."""

    n_by_symbol: int
    """Number of columns matched by the vocabulary's symbol."""

    n_by_alias: int
    """Number of columns matched by a current, former or alternative symbol."""

    looks_like: str
    """Description of what the names look like."""

    n_repaired: Mapping[str, int] = field(default_factory=dict)
    """Number of matched columns whose name was changed first, by kind of change."""

    non_genes: Mapping[str, int] = field(default_factory=dict)
    """Number of excluded columns by feature type."""

    n_controls: int = 0
    """Number of excluded columns that are control probes or spike-ins by their name."""

    repeated: tuple[str, ...] = ()
    """Names of matched columns beyond the first one of their gene."""

    ambiguous: tuple[str, ...] = ()
    """Unmatched names that fit several genes of the vocabulary."""

    unmatched: tuple[str, ...] = ()
    """Names that fit no gene of the vocabulary, without excluded columns."""

    n_vocabulary: int = 0
    """Number of genes in the vocabulary."""

    is_panel: bool = False
    """Whether fewer genes than ``min_matched`` were accepted because nearly all names match."""

    @property
    def n_columns(self) -> int:
        """Number of columns of the matrix."""
        return len(self.tokens)

    @property
    def n_matched(self) -> int:
        """Number of columns that are genes of the vocabulary."""
        return self.n_by_id + self.n_by_symbol + self.n_by_alias

    @property
    def n_genes(self) -> int:
        """Number of distinct genes of the vocabulary among the columns."""
        return len(np.unique(self.tokens[self.tokens != UNMATCHED]))

    @property
    def n_duplicates(self) -> int:
        """Number of matched columns beyond the first of their gene, whose counts are summed when tokenizing."""
        return self.n_matched - self.n_genes

    @property
    def fraction_matched(self) -> float:
        """Fraction of the columns that match, without columns of another feature type."""
        return self.n_matched / max(1, self.n_columns - sum(self.non_genes.values()))

    def __repr__(self) -> str:
        return f"GeneMatch({self.n_matched:,} of {self.n_columns:,} columns match)"

    def __str__(self) -> str:
        summary = (
            f"{self.n_matched:,} of {self.n_columns:,} genes match ({self.looks_like}): "
            f"{self.n_by_id:,} by Ensembl ID, {self.n_by_symbol:,} by symbol, {self.n_by_alias:,} by alias; "
            f"{self.n_genes:,} of the vocabulary's {self.n_vocabulary:,} genes are covered"
        )
        parts = [summary, *(f"{n:,} names changed: {kind}" for kind, n in self.n_repaired.items())]
        if self.non_genes:
            parts.append(f"excluded feature types: {_counted(self.non_genes)}")
        if self.n_controls:
            parts.append(f"{self.n_controls:,} control probes or spike-ins are excluded")
        if self.n_duplicates:
            parts.append(
                f"{self.n_duplicates:,} columns repeat a gene and are summed ({examples(self.repeated)})"
            )
        if self.ambiguous:
            parts.append(
                f"{len(self.ambiguous):,} names fit several genes and are left out ({examples(self.ambiguous)})"
            )
        if self.unmatched:
            dates = sum(map(is_date, self.unmatched))
            converted = f", {dates:,} of them dates made by spreadsheet software" if dates else ""
            parts.append(
                f"{len(self.unmatched):,} are not in the vocabulary{converted} ({examples(self.unmatched)})"
            )
        return "; ".join(parts)

    def warnings(self) -> list[str]:
        """Return one sentence for everything about the match that changes results and may be unintended."""
        found = []
        if self.non_genes:
            found.append(
                f"{sum(self.non_genes.values()):,} of {self.n_columns:,} variables are not genes by their feature type and are ignored: "
                f"{_counted(self.non_genes)}."
            )
        if self.n_duplicates:
            found.append(
                f"{self.n_duplicates:,} of {self.n_columns:,} variables repeat a gene of another variable ({examples(self.repeated)}), "
                "and the counts of both are summed. Remove or rename variables that should not be counted."
            )
        if self.is_panel:
            found.append(
                f"Only {self.n_matched:,} genes match ({self.fraction_matched:.0%} of the names), as in a targeted panel. Cells have "
                "fewer tokens than the cells that the model was trained and calibrated on, so results are less accurate."
            )
        return found


def examples(names: Sequence[str]) -> str:
    """Return up to five quoted names for a message."""
    shown = ", ".join(repr(str(name)) for name in names[:_N_EXAMPLES])
    return shown + (", ..." if len(names) > _N_EXAMPLES else "")


def match_gene_names(
    names: Sequence[str],
    *,
    min_matched: int = DEFAULT_MIN_MATCHED,
    feature_types: Sequence[Any] | NDArray[Any] | None = None,
) -> GeneMatch:
    """Match names to the genes of the vocabulary: Ensembl IDs with or without version, current and former symbols, also mixed.

    A name is matched by the first rule that applies; the order of the names does not matter:

    1. Ensembl ID, without its version.
    2. Current symbol (NCBI, Ensembl) or symbol of the vocabulary.
    3. A name made unique ("INS-1", "INS.1") next to its base name ("INS") is the gene of the base name.
    4. Former or alternative symbol, unless three or more columns share it.
    5. A changed name, if this gives exactly one gene: prefix of a human genome ("GRCh38_"), Ensembl ID within a longer name, "." or
       "_" instead of "-" ("HLA.A"), symbol converted to a date ("2-Sep").

    A symbol of several genes is assigned to the one that no other column names; among several of those, to the one with this
    current symbol, then to the one on the primary assembly (the others are copies on alternative haplotypes, as of HLA-A and TNF).
    Otherwise it is reported as ambiguous. Texts for missing values ("NA", "nan", "NA.1") match nothing.

    Parameters
    ----------
    names
        One name per column.
    min_matched
        Minimum number of columns that must match. With the default or less, a targeted panel of at least 50 matched genes is also
        accepted if at least 90 % of its names match; see :attr:`GeneMatch.is_panel`.
    feature_types
        Feature type of each column, such as ``adata.var["feature_types"]``. Columns that are not genes match nothing.

    Returns
    -------
    The match of each column, with counts of how it was found.

    Raises
    ------
    GeneMatchError
        If too few names match. The message describes the names.

    Examples
    --------
    >>> from sccello_tools.tokens import match_gene_names
    >>> print(match_gene_names(["HLA-A", "TNF", "SEPT7"], min_matched=1).gene_ids)
    ['ENSG00000206503' 'ENSG00000232810' 'ENSG00000122545']
    """
    vocabulary = GeneVocabulary.load()
    names = [clean(str(name)) for name in names]
    types = np.full(len(names), "", dtype=object) if feature_types is None else non_gene_types(feature_types)  # fmt: skip
    controls = np.array([not kind and is_control(name) for name, kind in zip(names, types)], dtype=bool)  # fmt: skip
    excluded = (types != "") | controls
    kept = [name for name, out in zip(names, excluded.tolist()) if not out]
    resolver = _Resolver(Counter(kept))
    found = {name: resolver.candidates(name) for name in resolver.columns}
    _drop_shared_aliases(found, resolver.columns)
    gene_of = _settle(found)

    gene_ids = ["" if out else gene_of.get(name, "") for name, out in zip(names, excluded.tolist())]
    matched = [name for name, gene in zip(names, gene_ids) if gene]
    n_found = Counter(found[name].how for name in matched)
    left_out = [name for name in kept if name not in gene_of]
    n_matched = len(matched)
    match = GeneMatch(
        gene_ids=np.array(gene_ids, dtype="<U15"),
        tokens=np.array(
            [vocabulary.token_of[gene] if gene else UNMATCHED for gene in gene_ids], dtype=np.int32
        ),
        excluded=excluded,
        n_by_id=n_found["id"],
        n_by_symbol=n_found["symbol"],
        n_by_alias=n_found["alias"],
        looks_like=describe_names(kept).description,
        n_repaired=dict(Counter(kind for name in matched if (kind := found[name].repair))),
        non_genes=dict(Counter(str(kind) for kind in types if kind).most_common()),
        n_controls=int(controls.sum()),
        repeated=_repeated(names, gene_ids),
        ambiguous=tuple(name for name in left_out if found[name].genes),
        unmatched=tuple(name for name in left_out if not found[name].genes),
        n_vocabulary=len(vocabulary),
        is_panel=_PANEL_GENES <= n_matched < min_matched <= DEFAULT_MIN_MATCHED
        and n_matched >= _PANEL_FRACTION * int((types == "").sum()),
    )
    if n_matched < min_matched and not match.is_panel:
        raise GeneMatchError(_too_few(match, kept, min_matched))
    return match


class _Candidates(NamedTuple):
    """Genes that a name may refer to."""

    genes: tuple[str, ...] = ()
    symbol: str = ""  # the symbol that was looked up
    how: str = ""  # "id", "symbol" or "alias"
    repair: str = ""  # what was changed in the name, if anything


class _Resolver:
    """Finds the candidate genes of a name, given all names of the matrix."""

    def __init__(self, columns: Counter[str]) -> None:
        self.columns = columns
        self._vocabulary = GeneVocabulary.load()
        self._aliases = gene_aliases()
        self._current = current_symbols()
        self._prefix = human_prefix(list(columns), lambda name: bool(self._exact(name).genes))

    def candidates(self, name: str) -> _Candidates:
        if is_missing(name):
            return _Candidates()
        exact = self._exact(name)
        if exact.how == "id" or (exact.genes and not self._is_former(name, exact)):
            return exact
        # "TBCE-1" next to a column "TBCE" is the second column of that name, made unique
        if (renamed := _MADE_UNIQUE.fullmatch(name)) and renamed[1] in self.columns:
            base = self.candidates(renamed[1])
            if base.genes:
                return base
        return exact if exact.genes else self._repaired(name)

    def _is_former(self, name: str, found: _Candidates) -> bool:
        return found.how == "alias" and name not in self._current

    def _exact(self, name: str) -> _Candidates:
        token_of = self._vocabulary.token_of
        if ensembl := _ENSEMBL.fullmatch(name):
            gene = ensembl[1].upper()
            if gene not in token_of:  # not all ENSGR ids are in the vocabulary: take chromosome X
                gene = gene.replace("R", "0")
            return _Candidates((gene,) if gene in token_of else (), how="id")
        if is_missing(name):
            return _Candidates()
        genes = self._vocabulary.genes_by_symbol.get(name, ())
        known = self._aliases.get(name, ())
        # if the symbol of the vocabulary now belongs to another gene, its own id is retired
        if known and set(known).isdisjoint(genes):
            return _Candidates(known, name, "alias")
        return _Candidates(genes, name, "symbol") if genes else _Candidates()

    def _repaired(self, name: str) -> _Candidates:
        if name[:1].isdigit() or "-" in name:
            found = self._from_date(name)
            if found.genes:
                return found
        for group in repairs(name, self._prefix):
            options = {}
            for kind, changed in group:
                found = self._exact(changed)
                # "." and "_" occur in clone names, which resemble former symbols by chance
                if found.genes and not ("'-'" in kind and self._is_former(changed, found)):
                    options[found.genes] = found._replace(repair=kind)
            if len(options) == 1:
                return next(iter(options.values()))
        return _Candidates()

    def _from_date(self, name: str) -> _Candidates:
        symbols = genes_of_date(name)
        genes = {gene for symbol in symbols for gene in self._exact(symbol).genes}
        # two columns with the same date are two genes, such as MARCHF1 and MTARC1
        if not genes or self.columns[name] > 1:
            return _Candidates()
        return _Candidates(tuple(sorted(genes)), _DATE + name.lower(), "alias", "date converted back to a symbol")  # fmt: skip


def _drop_shared_aliases(found: dict[str, _Candidates], columns: Counter[str]) -> None:
    """Remove the candidates of former symbols that many columns share: these are placeholders, such as "U6", not one gene."""
    current = current_symbols()
    by_alias: defaultdict[str, list[str]] = defaultdict(list)
    for name, candidates in found.items():
        if candidates.how == "alias" and candidates.symbol not in current:
            by_alias[candidates.symbol].append(name)
    for names in by_alias.values():
        if sum(columns[name] for name in names) >= _MANY_COLUMNS:
            for name in names:
                found[name] = _Candidates()


def _settle(found: dict[str, _Candidates]) -> dict[str, str]:
    """Choose one gene for each name; names of several genes that cannot be told apart are absent."""
    gene_of = {name: each.genes[0] for name, each in found.items() if len(each.genes) == 1}
    named = set(gene_of.values())
    chosen: dict[str, str] = {}
    # symbols of the vocabulary before aliases, then by name, so that the order of the columns does not matter
    undecided = sorted(
        (candidates.how != "symbol", candidates.symbol, name)
        for name, candidates in found.items()
        if len(candidates.genes) > 1
    )
    for _, symbol, name in undecided:
        genes = found[name].genes
        if symbol not in chosen:  # a duplicate made unique is the gene of its base name
            chosen[symbol] = _choose(genes, symbol, named)
            named.add(chosen[symbol])
        if chosen[symbol]:
            gene_of[name] = chosen[symbol]
    return gene_of


def _choose(genes: tuple[str, ...], symbol: str, named: Collection[str]) -> str:
    """Choose the gene of a symbol that several genes have, "" if they cannot be told apart."""
    free = [gene for gene in genes if gene not in named]
    if symbol.startswith(_DATE):  # nothing tells which of several symbols a date was
        return free[0] if len(free) == 1 else ""
    current = [gene for gene in free if gene in current_symbols().get(symbol, ())]
    primary = [gene for gene in current or free if gene in primary_genes()]
    for narrowed in (free, current, primary):
        if len(narrowed) == 1:
            return narrowed[0]
    return ""


def _repeated(names: Sequence[str], gene_ids: Sequence[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    repeated = []
    for name, gene in zip(names, gene_ids):
        if gene and gene in seen:
            repeated.append(name)
        seen.add(gene)
    return tuple(repeated)


def _counted(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{n:,} {kind!r}" for kind, n in list(counts.items())[:_N_EXAMPLES])
    return shown + (", ..." if len(counts) > _N_EXAMPLES else "")


def _too_few(match: GeneMatch, names: list[str], min_matched: int) -> str:
    kind = describe_names(names)
    shown = f": {examples(match.unmatched or names)}" if names else ""
    excluded = f" Excluded feature types: {_counted(match.non_genes)}." if match.non_genes else ""
    return (
        f"Only {match.n_matched:,} of {match.n_columns:,} genes match the model's vocabulary of human genes, "
        f"and min_matched={min_matched:,} are required ({kind.description}{shown}).{excluded} {kind.advice}"
    )
