"""Lookup tables of the names of an ontology, from strict to lenient normalisation."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from sccello_tools.ontology.text import bag_of, content_of, words_of

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Final

    from sccello_tools.ontology.graph import CellOntology
    from sccello_tools.ontology.text import Words

_ACRONYM: Final = re.compile(r"(?=.*[A-Z0-9].*[A-Z0-9])\S{1,8}")
_OTHER_SPECIES: Final = re.compile(r"\((Mmus|Primate|sensu (?!Vert|Mamm)[^)]*)\)|, mouse$")
_OBSOLETE: Final = re.compile(r"^obsolete\s+", re.IGNORECASE)
# shorter words without "cell" are too ambiguous: "A", "M", "PP"
_SHORTEST: Final = 3


class Alias(NamedTuple):
    """An abbreviation used by annotators, from the table shipped with the package."""

    text: str
    ids: tuple[str, ...]
    """Terms that it may stand for."""
    reason: str
    applies: bool
    """Whether it is unambiguous; otherwise it is only reported."""
    content: Words
    """Its words without "cell"."""


@dataclass(frozen=True)
class NameTable:
    """Terms by normalised name and by normalised synonym; names take precedence."""

    by_name: defaultdict[Hashable, set[str]] = field(default_factory=lambda: defaultdict(set))
    by_synonym: defaultdict[Hashable, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, key: Hashable, term: str, *, is_name: bool) -> None:
        """Add a term under a normalised text."""
        (self.by_name if is_name else self.by_synonym)[key].add(term)

    def get(self, key: Hashable) -> tuple[str, ...]:
        """Terms of a normalised text, ascending; empty if there are none."""
        return tuple(sorted(self.by_name.get(key) or self.by_synonym.get(key) or ()))


@dataclass(frozen=True, eq=False)
class LabelIndex:
    """All lookup tables of one ontology."""

    text: NameTable = field(default_factory=NameTable)
    """Exact text, without unreliable synonyms."""
    synonyms: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Exact text of exact synonyms, including unreliable ones."""
    words: NameTable = field(default_factory=NameTable)
    """Normalised words (case, plural, punctuation, Greek letters, signs of markers)."""
    content: NameTable = field(default_factory=NameTable)
    """Words without "cell"."""
    bag: NameTable = field(default_factory=NameTable)
    """Words in any order."""
    squashed: NameTable = field(default_factory=NameTable)
    """`content` without spaces."""
    ending: dict[Words, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Terms whose names end with these words, such as "retinal ganglion cell" for "ganglion cell"."""
    unreliable: dict[Words, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Unreliable synonyms: a few capitals, or short names of cells of other species."""
    obsolete: dict[Words, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Obsolete terms by the words of their names and synonyms."""
    aliases: dict[Words, Alias] = field(default_factory=dict)
    """Abbreviations by their words without "cell", in any order."""


_INDEXES: WeakKeyDictionary[CellOntology, LabelIndex] = WeakKeyDictionary()


def label_index(ontology: CellOntology) -> LabelIndex:
    """Return the lookup tables of an ontology, which are built once."""
    if ontology not in _INDEXES:
        _INDEXES[ontology] = _build(ontology)
    return _INDEXES[ontology]


@cache
def read_aliases() -> tuple[Alias, ...]:
    """Read the table of abbreviations."""
    table = files("sccello_tools.resources").joinpath("cell_ontology", "label_aliases.tsv")
    lines = table.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(_alias(row["alias"], row["ids"], row["reason"]) for row in rows)


def _alias(text: str, ids: str, reason: str) -> Alias:
    terms = tuple(ids.removeprefix("?").split("|"))
    applies = len(terms) == 1 and not ids.startswith("?")
    return Alias(text, terms, reason, applies, content_of(words_of(text)))


def _build(ontology: CellOntology) -> LabelIndex:
    index = LabelIndex()
    for term in ontology:
        _add(index, ontology.name(term), term, is_name=True)
        for synonym in ontology.synonyms(term):
            index.synonyms[synonym].add(term)
            if _is_unreliable(synonym, ontology.name(term)):
                index.unreliable[words_of(synonym)].add(term)
            else:
                _add(index, synonym, term, is_name=False)
    for term in ontology.obsolete_terms:
        for text in (_OBSOLETE.sub("", ontology.name(term)), *ontology.synonyms(term)):
            index.obsolete[words_of(text)].add(term)
    for alias in read_aliases():
        # another release may lack a term of the table; ambiguous abbreviations stay ambiguous
        if ids := tuple(term for term in alias.ids if term in ontology):
            index.aliases[bag_of(alias.content)] = alias._replace(ids=ids)
    return index


def _is_unreliable(synonym: str, name: str) -> bool:
    if _ACRONYM.fullmatch(synonym):
        return True
    return bool(_OTHER_SPECIES.search(name)) and len(content_of(words_of(synonym))) <= 2


def _add(index: LabelIndex, text: str, term: str, *, is_name: bool) -> None:
    words = words_of(text)
    content = content_of(words)
    index.text.add(text, term, is_name=is_name)
    index.words.add(words, term, is_name=is_name)
    if sum(map(len, content)) >= _SHORTEST:
        index.content.add(content, term, is_name=is_name)
        index.bag.add(bag_of(content), term, is_name=is_name)
        index.squashed.add("".join(content), term, is_name=is_name)
    for first in range(1, len(content)):
        index.ending[content[first:]].add(term)
    if "of" in content:  # "endothelial cell of portal vein" is also an endothelial cell
        index.ending[content[: content.index("of")]].add(term)
