"""Rules that match a label to one name of the ontology, from strict to lenient; nothing is guessed."""

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
_NO_TYPE: Final = frozenset({
    "ambiguous", "artefact", "artifact", "debris", "doublet", "doublets", "fail", "filtered", "low-quality", "low-quality-cells",
    "mixed", "multiplet", "n/a", "na", "nan", "none", "not-applicable", "null", "other", "others", "singlet", "unannotated",
    "unassigned", "unclassified", "undefined", "undetermined", "unidentified", "unknown", "unknown-cell", "unlabeled", "unlabelled",
    "unspecified",
})  # fmt: skip
_CAPITALS: Final = re.compile(r"(?=.*[A-Z0-9].*[A-Z0-9])\w{1,5}")
_STRONG_JOINS: Final = re.compile(r"[/&;|]|\s\+\s|\b(?:and|or|vs)\b", re.IGNORECASE)
_JOINS: Final = re.compile(f"{_STRONG_JOINS.pattern}|,", re.IGNORECASE)
# stem, progenitor and precursor cell: "adipocyte progenitor cell" is one type, not two
_UNSPECIFIC: Final = frozenset({"CL:0000034", "CL:0011026", "CL:0011115"})
_UNRELIABLE: Final = "an abbreviation in the ontology that may have another meaning here"

# abbreviations that are unambiguous within a longer label only
_ABBREVIATIONS: Final[dict[str, Words]] = {
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
    """Result of the rules for a label."""

    status: MatchStatus
    ids: tuple[str, ...]
    """The term, or the candidates if there are several."""
    reason: str


def is_id(label: str) -> bool:
    """Whether a label has the form of a Cell Ontology id, known or not."""
    return _ID.fullmatch(label) is not None


def match_id(label: str, ontology: CellOntology) -> Found | None:
    """Match ``CL:0000084``, ``CL_0000084`` in any case, or the URL of a term."""
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


def match_name(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Match a label as one name: exact text, abbreviation, other spelling or word order."""
    if terms := index.text.by_name.get(label):
        return _one_or_several(terms, "exact", "name")
    words = words_of(label)
    if not words or label.endswith("?"):
        return None
    found = match_words(words, index, label) or _match_obsolete(words, index, ontology)
    if found and found.status == "normalized" and found.ids[0] in index.synonyms.get(label, ()):
        return Found("synonym", found.ids, "exact synonym")
    return found


def match_words(words: Words, index: LabelIndex, label: str = "") -> Found | None:
    """Match words as one name.

    Names take precedence over abbreviations of the table, and those over synonyms, some of which are outdated or concern other
    species. The given word order takes precedence over other orders. A sequence of several names is ambiguous if the label joins
    them with a separator, or if they form a single name in another order only: "NK/T" is not "NK T cell".

    Parameters
    ----------
    words
        Words of the label or of a part of it.
    index
        Lookup tables.
    label
        The label, if the words cover all of it.
    """
    for variant, note in _variants(words):
        found = _match_in_order(variant, index, label)
        check_several = _JOINS.search(label) and not index.words.get(variant)
        if found is None and variant.count("cell") < 2 and not _STRONG_JOINS.search(label):
            found, check_several = _match_in_any_order(variant, index, label), True
        if found:
            several = several_names(words, index) if check_several else None
            return several or found._replace(reason=found.reason + note)
    return None


def _match_in_order(words: Words, index: LabelIndex, label: str) -> Found | None:
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
    if terms := index.unreliable.get(words):
        return Found("ambiguous", tuple(sorted(terms)), _UNRELIABLE)
    if terms := index.words.by_synonym.get(words):
        return _one_or_several(terms, "normalized", "spelling")
    if terms := index.content.by_synonym.get(short):
        return _unless_capitals(terms, short, label)
    return None


def _match_in_any_order(words: Words, index: LabelIndex, label: str) -> Found | None:
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
    return Found(status, alias.ids, f"abbreviation: {alias.reason}")


def _unless_capitals(terms: Iterable[str], words: Words, label: str) -> Found:
    """Treat a single word in capitals as ambiguous: "CCK" is a gene, although there is a "CCK cell"."""
    if len(words) == 1 and _CAPITALS.fullmatch(label):
        return Found("ambiguous", tuple(sorted(terms)), _UNRELIABLE)
    return _one_or_several(terms, "normalized", "spelling")


def several_names(words: Words, index: LabelIndex) -> Found | None:
    """Match "monocyte macrophage": a sequence of several full names."""
    best: list[tuple[str, ...] | None] = [(), *[None] * len(words)]
    for stop in range(1, len(words) + 1):
        # shortest names first: "T NK cells" are T and NK cells
        for start in range(stop - 1, -1, -1):
            before = best[start]
            if before is None or (start, stop) == (0, len(words)):
                continue
            if terms := _full_name(words[start:stop], index):
                best[stop] = (*before, *terms)
                break
    ids = best[-1]
    if not ids or ids[-1] in _UNSPECIFIC:
        return None
    return Found("ambiguous", tuple(dict.fromkeys(ids)), "the label names several types")


def _full_name(words: Words, index: LabelIndex) -> tuple[str, ...]:
    """Terms that match a part of a label by full name or capitals ("T", "MAIT"), not by an adjective or Greek letter."""
    alias = index.aliases.get(bag_of(words))
    if alias and alias.applies and alias.text[0].isupper() and " " not in alias.text:
        return alias.ids
    found = match_words(words, index) if words[-1] == "cell" else None
    terms = found.ids if found else index.words.get(words)
    return () if ROOT in terms else terms


def _variants(words: Words) -> Iterator[tuple[Words, str]]:
    """Yield the words as given, then with additions that annotators commonly omit."""
    seen = set()
    for expand, positive, lineage in product((False, True), repeat=3):
        variant, notes = words, []
        if expand and len(words) > 1:
            variant = tuple(full for word in variant for full in _ABBREVIATIONS.get(word, (word,)))
            notes.append("abbreviations expanded")
        if positive:
            variant = bare_markers_positive(variant)
            notes.append("marker without sign taken as positive")
        if lineage and "t" in variant and {"cd4+", "cd8+"} & set(variant):
            if not {"alpha", "gamma", "delta", "killer"} & set(variant):
                variant = (*variant, "alpha", "beta")
            notes.append("CD4+ and CD8+ T cells are alpha-beta")
        if variant not in seen:
            seen.add(variant)
            yield variant, "".join(f"; {note}" for note in notes)


def _match_obsolete(words: Words, index: LabelIndex, ontology: CellOntology) -> Found | None:
    for term in sorted(index.obsolete.get(words, ())):
        found = match_id(term, ontology)
        if found and found.status == "obsolete":
            return found._replace(reason=f"name of {term}, replaced by {found.ids[0]}")
    return None


def _one_or_several(terms: Iterable[str], status: MatchStatus, reason: str) -> Found:
    terms = tuple(sorted(terms))
    if len(terms) == 1:
        return Found(status, terms, reason)
    return Found("ambiguous", terms, f"{len(terms)} terms share this {reason}")


def states_no_type(label: str) -> bool:
    """Whether a label only states that the type is not known ("unknown", "nan", "doublet")."""
    return re.sub(r"[\s_]+", "-", label.strip().lower()) in _NO_TYPE or not words_of(label)
