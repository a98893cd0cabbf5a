"""Mouse genes and their human orthologues in the vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import pandas as pd

from ._name_repair import HUMAN_PREFIX
from .vocabulary import GeneVocabulary, group_genes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

_ID: Final = re.compile(r"ENSMUSG(\d{11})(?:\.\d+)?", re.IGNORECASE)
_PREFIX: Final = re.compile(
    r"(?:GRCm3[89]|mm(?:9|10|39)|mouse|mus_musculus)[_:|.\s-]+", re.IGNORECASE
)
_OF_RAT: Final = re.compile(r"RGD\d+|AABR\d+\.\d+|AC\d{6}\.\d+|LOC\d{6,9}|ENSRNOG\d{11}.*")
_RIKEN: Final = re.compile(r"[0-9A-Z]{10}Rik", re.IGNORECASE)
_HUMAN_ONLY: Final = ("HLA-", "ENSG0")
_SAMPLE = 5_000  # names that are examined to recognise the organism
# of the names of a mouse reference, some 35 to 90 % have an orthologue in the vocabulary; symbols of flies that look alike, below 5 %
_LEAST_FRACTION = 0.2
_FEWEST = 10


@dataclass(frozen=True, eq=False)
class MouseOrthologs:
    """Human genes of the vocabulary by mouse gene, from HCOP (HGNC Comparison of Orthology Predictions).

    A mouse gene has the human gene that most databases support, at least three of them; all of those with the same support.

    Examples
    --------
    >>> from sccello_tools.tokens import MouseOrthologs
    >>> orthologs = MouseOrthologs.load()
    >>> orthologs.genes_of("Cd79a"), orthologs.genes_of("ENSMUSG00000003379.10")
    (('ENSG00000105369',), ('ENSG00000105369',))
    """

    genes_by_symbol: dict[str, tuple[str, ...]]
    """Human Ensembl IDs by mouse symbol."""

    genes_by_number: dict[int, tuple[str, ...]]
    """Human Ensembl IDs by the digits of the mouse Ensembl ID."""

    @classmethod
    @cache
    def load(cls) -> MouseOrthologs:
        """Read the table that ships with the package (once per process)."""
        with files("sccello_tools.resources").joinpath("mouse_orthologs.tsv.gz").open("rb") as file:
            table = pd.read_csv(file, sep="\t", compression="gzip", keep_default_na=False)
        gene_of = GeneVocabulary.load().gene_of
        genes = [gene_of[token] for token in table["token"].tolist()]
        return cls(group_genes(table["symbol"], genes), group_genes(table["mouse"], genes))

    def __len__(self) -> int:
        return len(self.genes_by_number)

    def genes_of(self, name: str) -> tuple[str, ...]:
        """Return the human Ensembl IDs, none if there is no orthologue in the vocabulary, several if they cannot be told apart.

        Parameters
        ----------
        name
            Mouse Ensembl ID with or without version, or symbol in any case.
        """
        if found := _ID.fullmatch(name):
            return self.genes_by_number.get(int(found[1]), ())
        return self.genes_by_symbol.get(name) or self._genes_by_upper.get(name.upper(), ())

    @cached_property
    def _genes_by_upper(self) -> dict[str, tuple[str, ...]]:
        return {symbol.upper(): genes for symbol, genes in self.genes_by_symbol.items()}


def without_mouse_prefix(name: str) -> str:
    """Remove the prefix of a mouse genome, such as "mm10___" or "GRCm39_"."""
    found = _PREFIX.match(name)
    return name if found is None else name[found.end() :]


def looks_like_mouse(names: Sequence[str]) -> bool:
    """Whether names are those of mouse genes: Ensembl IDs (ENSMUSG...), or symbols.

    Symbols are recognised by their case ("Cd3e"); in upper case ("CD3E") only if there are RIKEN clones ("0610007P14RIK") and no HLA
    genes among them. Rat genes are not taken for mouse genes although their symbols are written alike.

    Parameters
    ----------
    names
        Names of genes, with the prefix of a mouse genome or without.
    """
    step = max(1, len(names) // _SAMPLE)
    sample = [without_mouse_prefix(name) for name in names[::step]]
    if sum(bool(_RIKEN.fullmatch(name)) for name in sample) >= max(_FEWEST, len(sample) / 200):
        return not any(name.startswith(_HUMAN_ONLY) for name in names)
    # human data end here, before the table is read
    n_possible = sum(
        bool(_ID.match(name)) or (name[:1].isupper() and name[1:2].islower()) for name in sample
    )
    if n_possible < max(_FEWEST, len(sample) / 2):
        return False
    if sum(bool(HUMAN_PREFIX.match(name)) for name in sample) > len(sample) / 10:
        return False  # cells of both species were counted together
    orthologs = MouseOrthologs.load()
    n_mouse = sum(
        name in orthologs.genes_by_symbol or bool(_ID.fullmatch(name) and orthologs.genes_of(name))
        for name in sample
    )
    n_rat = sum(bool(_OF_RAT.fullmatch(name)) for name in sample)
    return n_mouse >= max(_FEWEST, _LEAST_FRACTION * len(sample)) and n_rat < _FEWEST
