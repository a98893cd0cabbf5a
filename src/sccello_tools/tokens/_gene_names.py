"""Tell by their look what kind of names a matrix's columns have, to give an error that helps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class NameKind(NamedTuple):
    """What names look like, and what to do if they do not match."""

    description: str
    advice: str


_HUMAN_ID = re.compile(r"ENSG\d{11}(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_OTHER_ID = re.compile(r"ENS([A-Z]{3,4})?G\d{11}(\.\d+)?", re.IGNORECASE)
_TRANSCRIPT = re.compile(r"ENS[A-Z]*T\d{11}(\.\d+)?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(\.0)?")
_MOUSE_SYMBOL = re.compile(
    r"[A-Z][a-z]+[a-z0-9-]*|[A-Z][a-z]+\d*[A-Z]?[a-z0-9-]*|\d{7}[A-Z]\d{2}Rik|mt-[A-Z][a-z0-9]+|Gm\d+"
)

_SYMBOLS = "Expected are Ensembl ids (ENSG...) or human gene symbols"
_OF_COLUMN = (
    "If a column of adata.var holds them, name it: pp.match_genes(adata, gene_ids='that column')."
)


def describe_names(names: Sequence[str]) -> NameKind:
    """Say what most of the names look like."""
    if not names:
        return NameKind("there are none", f"{_SYMBOLS}, one a column.")

    if sum(not name for name in names) > len(names) / 2:
        return NameKind("most names are empty", f"{_SYMBOLS}, one a column. {_OF_COLUMN}")

    def mostly(pattern: re.Pattern[str]) -> bool:
        return sum(pattern.fullmatch(name) is not None for name in names) > len(names) / 2

    if mostly(_NUMBER):
        numbers = [int(float(name)) for name in names if _NUMBER.fullmatch(name)]
        # positions run from 0 or 1 without gaps; Entrez numbers are scattered up to a hundred million
        if max(numbers) <= len(names) and len(set(numbers)) == len(numbers):
            return NameKind(
                "ids look like positions, not gene names",
                f"{_SYMBOLS}; the names were lost on the way. {_OF_COLUMN}",
            )
        return NameKind(
            "ids look like Entrez numbers",
            f"{_SYMBOLS}: map the numbers to symbols or Ensembl ids first. {_OF_COLUMN}",
        )
    if mostly(_HUMAN_ID):
        return NameKind(
            "ids look like human Ensembl genes",
            "Lower min_matched if the panel is meant to be this small.",
        )
    if mostly(_OTHER_ID):
        return NameKind(
            "ids look like Ensembl genes of another species than human",
            "The model knows human genes only: map them to human one-to-one orthologues first.",
        )
    if mostly(_TRANSCRIPT):
        return NameKind(
            "ids look like Ensembl transcripts", f"{_SYMBOLS}: sum transcripts to genes first."
        )
    if mostly(_MOUSE_SYMBOL):
        return NameKind(
            "names look like mouse symbols",
            "The model knows human genes only: map them to human one-to-one orthologues first "
            "(upper-casing is a guess that this package does not make for you).",
        )
    return NameKind(
        "names look like symbols",
        f"{_SYMBOLS}. {_OF_COLUMN} Lower min_matched if the panel is meant to be this small.",
    )
