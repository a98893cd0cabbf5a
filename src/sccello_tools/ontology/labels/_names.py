"""Read a label as one name of the ontology, from strict to lenient; nothing is guessed."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

from sccello_tools.errors import LabelError
from sccello_tools.ontology.graph import ROOT
from sccello_tools.ontology.text import bag_of, bare_markers_positive, content_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from sccello_tools.ontology.graph import CellOntology
    from sccello_tools.ontology.text import Words

    from ._index import Alias, LabelIndex

MatchStatus = Literal[
    "exact", "synonym", "normalized", "obsolete", "override", "ambiguous", "unknown"
]

_ID: Final = re.compile(
    r"(?:<?https?://purl\.obolibrary\.org/obo/|obo:)?CL[:_ -]?(\d{7})>?", re.IGNORECASE
)
_NOTHING: Final = frozenset({
    "ambiguous", "artefact", "artifact", "debris", "doublet", "doublets", "fail", "filtered", "low-quality", "low-quality-cells",
    "mixed", "multiplet", "n/a", "na", "nan", "none", "not-applicable", "null", "other", "others", "singlet", "unannotated",
    "unassigned", "unclassified", "undefined", "undetermined", "unidentified", "unknown", "unknown-cell", "unlabeled", "unlabelled",
    "unspecified",
})  # fmt: skip
_CAPITALS: Final = re.compile(r"(?=.*[A-Z0-9].*[A-Z0-9])\w{1,5}")
_STRONG_JOINS: Final = re.compile(r"[/&;|]|\s\+\s|\b(?:and|or|vs)\b", re.IGNORECASE)
_JOINS: Final = re.compile(f"{_STRONG_JOINS.pattern}|,", re.IGNORECASE)
# stem, progenitor and precursor cell: "adipocyte progenitor cell" is one type, not two
_SAYS_LITTLE: Final = frozenset({"CL:0000034", "CL:0011026", "CL:0011115"})
_TOO_SHORT: Final = "a short form of the ontology that may mean something else here"

# words that are short for others inside a longer label, where they are clear; alone they are not
_SHORT_FOR: Final[dict[str, Words]] = {
    "astro": ("astrocyte",),
    "ec": ("endothelial", "cell"),
    "endo": ("endothelial",),
    "epi": ("epithelial",),
    "fib": ("fibroblast",),
    "fibro": ("fibroblast",),
    "ilc": ("innate", "lymphoid", "cell"),
    "lsec": ("liver", "sinusoidal", "endothelial", "cell"),
    "mac": ("macrophage",),
    "mono": ("monocyte",),
    "oligo": ("oligodendrocyte",),
    "prog": ("progenitor",),
    "smc": ("smooth", "muscle", "cell"),
    "treg": ("regulatory", "t", "cell"),
}


class Found(NamedTuple):
    """Outcome of the rules for a label."""

    status: MatchStatus
    ids: tuple[str, ...]
    """The term if one fits; those to choose from if several do."""
    reason: str


def is_id(label: str) -> bool:
    """Whether a label is written as an id of the Cell Ontology, known or not."""
    return _ID.fullmatch(label) is not None


def read_id(label: str, ontology: CellOntology) -> Found | None:
    """Read ``CL:0000084``, ``CL_0000084`` in any case, or the term's address on the web."""
    found = _ID.fullmatch(label)
    if not found:
        return None
    term = f"CL:{found[1]}"
    if term in ontology:
        return Found("exact", (term,), "id")
    try:
        successor = ontology.current(term)
    except LabelError as error:
        return Found("unknown", ontology.consider(term), str(error))
    return Found("obsolete", (successor,), f"{term} is replaced by {successor}")


def read_name(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Read a label as one name: as written, as a known short form, in another spelling or word order."""
    if terms := index.text.by_name.get(label):
        return _one_or_several(terms, "exact", "name")
    words = words_of(label)
    if not words or label.endswith("?"):
        return None
    found = read_words(words, index, label) or _read_obsolete(words, index, ontology)
    if found and found.status == "normalized" and found.ids[0] in index.synonyms.get(label, ()):
        return Found("synonym", found.ids, "exact synonym")
    return found


def read_words(words: Words, index: LabelIndex, label: str = "") -> Found | None:
    """Read words as one name.

    A name of the ontology goes before a short form of the table, and that before a synonym: the ontology has some of another age or of
    another species. Words in this order go before the same in another. What may be several names in a row is ambiguous if the label
    joins them, or if they are one name in another order only: "NK/T" is not "NK T cell".

    Parameters
    ----------
    words
        The words of the label, or of a part of it.
    index
        Look-up tables.
    label
        The label, if the words are all of it.
    """
    for variant, note in _variants(words):
        found = _read_in_order(variant, index, label)
        doubt = _JOINS.search(label) and not index.words.get(variant)
        if found is None and variant.count("cell") < 2 and not _STRONG_JOINS.search(label):
            found, doubt = _read_in_any_order(variant, index, label), True
        if found:
            several = several_names(words, index) if doubt else None
            return several or found._replace(reason=found.reason + note)
    return None


def _read_in_order(words: Words, index: LabelIndex, label: str) -> Found | None:
    content = content_of(words)
    # "cell" twice names two types, unless the ontology writes it so
    short = content if words.count("cell") < 2 else ()
    if terms := index.words.by_name.get(words) or index.content.by_name.get(short):
        return _one_or_several(terms, "normalized", "spelling")
    alias = index.aliases.get(bag_of(short))
    if alias and alias.content == short:
        return _by_alias(alias)
    if terms := index.text.by_synonym.get(label):
        return _one_or_several(terms, "synonym", "exact synonym")
    if terms := index.doubtful.get(words):
        return Found("ambiguous", tuple(sorted(terms)), _TOO_SHORT)
    if terms := index.words.by_synonym.get(words):
        return _one_or_several(terms, "normalized", "spelling")
    if terms := index.content.by_synonym.get(short):
        return _unless_capitals(terms, short, label)
    return None


def _read_in_any_order(words: Words, index: LabelIndex, label: str) -> Found | None:
    bag = bag_of(words)
    if terms := index.bag.by_name.get(bag):
        return _one_or_several(terms, "normalized", "spelling")
    if alias := index.aliases.get(bag):
        return _by_alias(alias)
    squashed = "".join(content_of(words))
    if similar := index.bag.by_synonym.get(bag) or index.squashed.get(squashed):
        return _unless_capitals(similar, bag, label)
    return None


def _by_alias(alias: Alias) -> Found:
    status: MatchStatus = "normalized" if alias.applies else "ambiguous"
    return Found(status, alias.ids, f"short form: {alias.reason}")


def _unless_capitals(terms: Iterable[str], words: Words, label: str) -> Found:
    """Distrust a single word in capitals: "CCK" is a gene, although the ontology calls one type "CCK cell"."""
    if len(words) == 1 and _CAPITALS.fullmatch(label):
        return Found("ambiguous", tuple(sorted(terms)), _TOO_SHORT)
    return _one_or_several(terms, "normalized", "spelling")


def several_names(words: Words, index: LabelIndex) -> Found | None:
    """Read "monocyte macrophage": several full names, one after the other."""
    best: list[tuple[str, ...] | None] = [(), *[None] * len(words)]
    for stop in range(1, len(words) + 1):
        for start in range(stop - 1, -1, -1):  # short names first: "T NK cells" are T and NK cells
            before = best[start]
            if before is None or (start, stop) == (0, len(words)):
                continue
            if terms := _full_name(words[start:stop], index):
                best[stop] = (*before, *terms)
                break
    ids = best[-1]
    if not ids or ids[-1] in _SAYS_LITTLE:
        return None
    return Found("ambiguous", tuple(dict.fromkeys(ids)), "the label names several types")


def _full_name(words: Words, index: LabelIndex) -> tuple[str, ...]:
    """Terms that a part of a label names by itself: in full, or with capitals ("T", "MAIT"); not by an adjective or a Greek letter."""
    alias = index.aliases.get(bag_of(words))
    if alias and alias.applies and alias.text[0].isupper() and " " not in alias.text:
        return alias.ids
    found = read_words(words, index) if words[-1] == "cell" else None
    terms = found.ids if found else index.words.get(words)
    return () if ROOT in terms else terms


def _variants(words: Words) -> Iterator[tuple[Words, str]]:
    """Give the words as they are, then with what annotators leave out."""
    seen = set()
    for expand, positive, lineage in product((False, True), repeat=3):
        variant, notes = words, []
        if expand and len(words) > 1:
            variant = tuple(full for word in variant for full in _SHORT_FOR.get(word, (word,)))
            notes.append("abbreviations written out")
        if positive:
            variant = bare_markers_positive(variant)
            notes.append("marker without sign read as positive")
        if lineage and "t" in variant and {"cd4+", "cd8+"} & set(variant):
            if not {"alpha", "gamma", "delta", "killer"} & set(variant):
                variant = (*variant, "alpha", "beta")
            notes.append("CD4+ and CD8+ T cells are alpha-beta")
        if variant not in seen:
            seen.add(variant)
            yield variant, "".join(f"; {note}" for note in notes)


def _read_obsolete(words: Words, index: LabelIndex, ontology: CellOntology) -> Found | None:
    for term in sorted(index.obsolete.get(words, ())):
        found = read_id(term, ontology)
        if found and found.status == "obsolete":
            return found._replace(reason=f"name of {term}, replaced by {found.ids[0]}")
    return None


def _one_or_several(terms: Iterable[str], status: MatchStatus, reason: str) -> Found:
    terms = tuple(sorted(terms))
    if len(terms) == 1:
        return Found(status, terms, reason)
    return Found("ambiguous", terms, f"{len(terms)} terms share this {reason}")


def says_nothing(label: str) -> bool:
    """Whether a label only says that the type is not known."""
    return re.sub(r"[\s_]+", "-", label.strip().lower()) in _NOTHING or not words_of(label)
