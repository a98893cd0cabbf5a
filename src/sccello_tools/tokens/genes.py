"""Match the columns of a matrix to the genes of the vocabulary, and report those that do not match."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from sccello_tools._messages import quoted
from sccello_tools.errors import GeneMatchError

from ._gene_names import describe_names, is_control, is_missing, non_gene_types
from ._name_repair import clean, genes_of_date, human_prefix, repairs
from .gene_match import GeneMatch, counted
from .orthologs import MouseOrthologs, looks_like_mouse, without_mouse_prefix
from .vocabulary import UNMATCHED, GeneVocabulary, current_symbols, gene_aliases, primary_genes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from numpy.typing import NDArray

# GENCODE up to release 24 wrote the pseudoautosomal genes of chromosome Y as ENSGR...
_ENSEMBL = re.compile(r"(ENSG[\dR]\d{10})(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
# var_names_make_unique, make.unique of R, pandas
_MADE_UNIQUE = re.compile(r"(.+?)(?:[-.]|__?)\d+")
_DATE = "date "  # start of the key under which the genes of a date are looked up
_MANY_COLUMNS = 3  # an alias of this many columns is a placeholder, such as "U6", and not one gene
# a targeted panel: few genes, nearly all of them human
_PANEL_GENES = 50
_PANEL_FRACTION = 0.9
Organism = Literal["auto", "human", "mouse"]
"""Organism of gene names; "auto" recognises mouse genes."""
DEFAULT_MIN_MATCHED = 500
"""Default of ``min_matched`` in all functions."""


def match_gene_names(
    names: Sequence[str],
    *,
    min_matched: int = DEFAULT_MIN_MATCHED,
    feature_types: Sequence[Any] | NDArray[Any] | None = None,
    organism: Organism = "auto",
) -> GeneMatch:
    """Match names to the genes of the vocabulary: Ensembl IDs with or without version, current and former symbols, also mixed.

    A name is matched by the first rule that applies; the order of the names does not matter:

    1. Ensembl ID, without its version.
    2. Current symbol (NCBI, Ensembl) or symbol of the vocabulary.
    3. A name made unique ("INS-1", "INS.1") next to its base name ("INS") is the gene of the base name.
    4. Former or alternative symbol, unless three or more columns share it.
    5. A changed name, if this gives exactly one gene: prefix of a human genome (``GRCh38_``), Ensembl ID within a longer name, "." or
       "_" instead of "-" ("HLA.A"), symbol converted to a date ("2-Sep").

    A symbol of several genes is assigned to the one that no other column names; among several of those, to the one with this
    current symbol, then to the one on the primary assembly (the others are copies on alternative haplotypes, as of HLA-A and TNF).
    Otherwise it is reported as ambiguous. Texts for missing values ("NA", "nan", "NA.1") match nothing.

    Mouse genes, by Ensembl ID or current symbol, are matched by the human orthologue that most databases of HCOP support. Mouse genes
    with the same human orthologue (Ins1, Ins2) are summed when tokenizing; those with several equally supported ones are ambiguous.

    Parameters
    ----------
    names
        One name per column.
    min_matched
        Minimum number of columns that must match. With the default or less, a targeted panel of at least 50 matched genes is also
        accepted if at least 90 % of its names match; see :attr:`GeneMatch.is_panel`.
    feature_types
        Feature type of each column, such as ``adata.var["feature_types"]``. Columns that are not genes match nothing.
    organism
        Organism of the genes. ``"auto"`` recognises mouse Ensembl IDs and mouse symbols in their usual case ("Cd3e"), if these are
        most of the names; ``"mouse"`` also accepts symbols in upper case.

    Returns
    -------
    The match of each column, with counts of how it was found.

    Raises
    ------
    GeneMatchError
        If too few names match, or ``organism`` is another one. The message describes the names.

    Examples
    --------
    >>> from sccello_tools.tokens import match_gene_names
    >>> print(match_gene_names(["HLA-A", "TNF", "SEPT7"], min_matched=1).gene_ids)
    ['ENSG00000206503' 'ENSG00000232810' 'ENSG00000122545']
    """
    if organism not in get_args(Organism):
        msg = (
            f"organism must be 'auto', 'human' or 'mouse', got {organism!r}. Map genes of other organisms to human one-to-one "
            "orthologs first."
        )
        raise GeneMatchError(msg)
    types = None if feature_types is None else tuple(non_gene_types(feature_types).tolist())
    found = _match(tuple(map(str, names)), min_matched, types, organism)
    # the arrays belong to the caller
    return replace(
        found,
        gene_ids=found.gene_ids.copy(),
        tokens=found.tokens.copy(),
        excluded=found.excluded.copy(),
    )


@lru_cache(maxsize=4)  # one call of the package matches the same columns for several steps
def _match(
    columns: tuple[str, ...], min_matched: int, kinds: tuple[str, ...] | None, organism: Organism
) -> GeneMatch:
    vocabulary = GeneVocabulary.load()
    names = [clean(name) for name in columns]
    types = np.array(("",) * len(names) if kinds is None else kinds, dtype=object)
    controls = np.array([not kind and is_control(name) for name, kind in zip(names, types)], dtype=bool)  # fmt: skip
    excluded = (types != "") | controls
    kept = [name for name, out in zip(names, excluded.tolist()) if not out]
    is_mouse = organism == "mouse" or (organism == "auto" and looks_like_mouse(kept))
    if is_mouse:
        found = _of_mouse(kept)
        gene_of = {name: each.genes[0] for name, each in found.items() if len(each.genes) == 1}
    else:
        resolver = _Resolver(Counter(kept))
        found = {name: resolver.candidates(name) for name in resolver.columns}
        _drop_shared_aliases(found, resolver.columns)
        gene_of = _settle(found)

    gene_ids = ["" if out else gene_of.get(name, "") for name, out in zip(names, excluded.tolist())]
    matched = [name for name, gene in zip(names, gene_ids) if gene]
    # several mouse genes may have one human orthologue
    sources = [found[n].symbol if gene else "" for n, gene in zip(names, gene_ids)] if is_mouse else gene_ids  # fmt: skip
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
        repeated=_repeated(names, sources),
        organism="mouse" if is_mouse else "human",
        many_to_one=_many_to_one(names, gene_ids, sources),
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


def _of_mouse(names: Sequence[str]) -> dict[str, _Candidates]:
    """Find the human orthologues of mouse genes."""
    orthologs = MouseOrthologs.load()
    present = set(names)
    found = {}
    for name in present:
        made_unique = _MADE_UNIQUE.fullmatch(name)
        base = made_unique[1] if made_unique and made_unique[1] in present else name
        plain = without_mouse_prefix(base)
        genes = () if is_missing(plain) else orthologs.genes_of(plain)
        how = "id" if plain[:7].upper() == "ENSMUSG" else "symbol"
        repair = "prefix of a mouse genome removed" if plain != base else ""
        found[name] = _Candidates(genes, plain.upper(), how, repair)
    return found


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


def _many_to_one(
    names: Sequence[str], gene_ids: Sequence[str], sources: Sequence[str]
) -> tuple[str, ...]:
    """Return the names whose gene is also that of another source."""
    sources_of: defaultdict[str, set[str]] = defaultdict(set)
    for gene, source in zip(gene_ids, sources):
        sources_of[gene].add(source)
    return tuple(name for name, gene in zip(names, gene_ids) if gene and len(sources_of[gene]) > 1)


def _too_few(match: GeneMatch, names: list[str], min_matched: int) -> str:
    kind = describe_names(names)
    shown = f": {quoted(match.unmatched or names)}" if names else ""
    excluded = f" Excluded feature types: {counted(match.non_genes)}." if match.non_genes else ""
    return (
        f"Only {match.n_matched:,} of {match.n_columns:,} genes match the model's vocabulary of human genes, "
        f"and min_matched={min_matched:,} are required ({kind.description}{shown}).{excluded} {kind.advice}"
    )
