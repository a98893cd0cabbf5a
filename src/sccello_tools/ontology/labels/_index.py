"""Look-up tables over the names of an ontology, from the strictest reading of a label to the most lenient."""

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
# below this, a word without "cell" means too many things: "A", "M", "PP"
_SHORTEST: Final = 3


class Alias(NamedTuple):
    """A short form that annotators write, from the table that ships with the package."""

    text: str
    ids: tuple[str, ...]
    """What it may mean."""
    reason: str
    applies: bool
    """Whether it means one thing; else it is reported."""
    content: Words
    """Its words without "cell"."""


@dataclass(frozen=True)
class Readings:
    """Terms by name and by synonym, for one way of reading a text; a name goes before a synonym."""

    by_name: defaultdict[Hashable, set[str]] = field(default_factory=lambda: defaultdict(set))
    by_synonym: defaultdict[Hashable, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, key: Hashable, term: str, *, is_name: bool) -> None:
        """Note that a text, so read, names a term."""
        (self.by_name if is_name else self.by_synonym)[key].add(term)

    def get(self, key: Hashable) -> tuple[str, ...]:
        """Terms that a text may name, so read, ascending; empty if none."""
        return tuple(sorted(self.by_name.get(key) or self.by_synonym.get(key) or ()))


@dataclass(frozen=True, eq=False)
class LabelIndex:
    """All look-up tables of one ontology."""

    text: Readings = field(default_factory=Readings)
    """As written, doubtful synonyms left out."""
    synonyms: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Exact synonyms as written, doubtful ones included."""
    words: Readings = field(default_factory=Readings)
    """Case, plural, punctuation, Greek letters and signs of markers in one form."""
    content: Readings = field(default_factory=Readings)
    """The same without "cell"."""
    bag: Readings = field(default_factory=Readings)
    """The same in any order."""
    squashed: Readings = field(default_factory=Readings)
    """As `content`, without spaces."""
    ending: dict[Words, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names that end in these words, such as "retinal ganglion cell" for "ganglion cell"."""
    doubtful: dict[Words, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Synonyms too short to be trusted: a few capitals, or a word for a cell of another species."""
    obsolete: dict[Words, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Obsolete terms by the words of their names and synonyms."""
    aliases: dict[Words, Alias] = field(default_factory=dict)
    """Short forms by their words without "cell", in any order."""


_INDEXES: WeakKeyDictionary[CellOntology, LabelIndex] = WeakKeyDictionary()


def label_index(ontology: CellOntology) -> LabelIndex:
    """Make the look-up tables of an ontology, once."""
    if ontology not in _INDEXES:
        _INDEXES[ontology] = _build(ontology)
    return _INDEXES[ontology]


@cache
def read_aliases() -> tuple[Alias, ...]:
    """Read the table of short forms."""
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
            if _is_doubtful(synonym, ontology.name(term)):
                index.doubtful[words_of(synonym)].add(term)
            else:
                _add(index, synonym, term, is_name=False)
    for term in ontology.obsolete_terms:
        for text in (_OBSOLETE.sub("", ontology.name(term)), *ontology.synonyms(term)):
            index.obsolete[words_of(text)].add(term)
    for alias in read_aliases():
        # another release may not have a term of the table; what was ambiguous stays so
        if ids := tuple(term for term in alias.ids if term in ontology):
            index.aliases[bag_of(alias.content)] = alias._replace(ids=ids)
    return index


def _is_doubtful(synonym: str, name: str) -> bool:
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
    if "of" in content:  # "endothelial cell of portal vein" is an endothelial cell, too
        index.ending[content[: content.index("of")]].add(term)
