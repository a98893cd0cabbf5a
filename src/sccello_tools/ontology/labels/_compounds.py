"""Rules for labels that are more than one name: hedges, explanations, several types, cluster numbers, modifiers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sccello_tools.ontology.graph import ROOT
from sccello_tools.ontology.text import content_of, words_of

from ._names import Found, match_id, match_name, match_words, several_names

if TYPE_CHECKING:
    from typing import Final

    from sccello_tools.ontology.graph import CellOntology
    from sccello_tools.ontology.text import Words

    from ._index import LabelIndex

_HEDGES: Final = frozenset({
    "contaminated", "doublet", "like", "possibly", "potential", "presumptive", "probably", "putative",
})  # fmt: skip
_NEGATES: Final = frozenset({"anti", "non", "not", "post", "pre", "pro", "un"})
_CLUSTER_WORDS: Final = frozenset({
    "c", "cluster", "group", "population", "state", "sub", "subset", "subtype", "type",
})  # fmt: skip
_CLUSTER_NUMBER: Final = re.compile(r"\d{1,3}[a-z]?|[a-z]")
_LEADING_NUMBER: Final = re.compile(
    r"(?:c|cluster ?)?\d{1,3}(?::\s*|\)\s*|\s*-\s+|\s+)", re.IGNORECASE
)
_AND: Final = re.compile(r"\s*(?:/|&|,|;|\||\s\+\s|\band\b|\bor\b|\bvs\b)\s*", re.IGNORECASE)
_PARENTHESES: Final = re.compile(r"\s*[(\[]([^()\[\]]+)[)\]]")


def match_compound(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Match a label that is not a single name: with a hedge, an explanation, several types, a cluster number or a modifier."""
    plain = re.sub(r"[._]+", " ", label)
    for rule in (_match_hedge, _match_explained, _match_joined, _match_numbered):
        if found := rule(plain, index, ontology):
            return found
    return _match_several(words_of(label), index, ontology)


def _match_several(words: Words, index: LabelIndex, ontology: CellOntology) -> Found | None:
    return (
        several_names(words, index)
        or _match_ending(words, index, ontology)
        or _match_head(words, index, ontology)
    )


def _match_hedge(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    words = words_of(label)
    kept = tuple(word for word in words if word not in _HEDGES)
    if len(kept) == len(words) and not label.rstrip().endswith("?"):
        return None
    found = match_words(kept, index) or _match_several(kept, index, ontology)
    if found is None or found.status == "unknown":
        return found
    return Found("ambiguous", found.ids, "the label expresses doubt")


def _match_explained(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Match "red blood cell (erythrocyte)" and "regulatory T (Treg) cell"."""
    inner = _PARENTHESES.findall(label)
    if not inner:
        return None
    outside = _single(_PARENTHESES.sub("", label), index, ontology)
    inside = [_single(text, index, ontology) for text in inner]
    if outside and outside.status != "ambiguous":
        wider = ontology.ancestors(outside.ids[0], include_self=True)
        if all(found and wider.issuperset(found.ids) for found in inside):
            return Found("normalized", outside.ids, "name and explanation agree")
    ids = dict.fromkeys(term for found in (outside, *inside) if found for term in found.ids)
    return (
        Found("ambiguous", tuple(ids), "the explanation in parentheses is not implied by the name")
        if ids
        else None
    )


def _match_joined(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Match "parietal and chief cells", "B/T cells"."""
    parts = [part for part in _AND.split(label) if part.strip()]
    if len(parts) < 2:
        return None
    tail = parts[-1].split()
    ids: dict[str, None] = {}
    for part in parts:
        # "corneal and conjunctival epithelial cells": the first part lacks the shared last words
        readings = [part, *(f"{part} {' '.join(tail[i:])}" for i in range(len(tail) - 1, 0, -1))]
        for reading in readings if part is not parts[-1] else readings[:1]:
            if found := _single(reading, index, ontology):
                ids |= dict.fromkeys(found.ids)
                break
    return Found("ambiguous", tuple(ids), "the label names several types") if ids else None


def _match_numbered(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Match "fibroblasts 2", "monocyte type 1", "12: T cells" without the cluster number."""
    base = _without_number(label)
    if base is None or words_of(base) in {(), ("cell",)}:
        return None
    found = _single(base, index, ontology) or _match_joined(base, index, ontology)
    found = found or _match_several(words_of(base), index, ontology)
    if found is None or found.status == "unknown":
        return found
    reason = f"without cluster number or letter: {base!r} ({found.reason})"
    if found.status != "ambiguous" and sum(map(len, words_of(base))) <= 2:
        return Found("ambiguous", found.ids, reason)  # "B 1" may be a B-1 cell or the first cluster
    return found._replace(
        status="ambiguous" if found.status == "ambiguous" else "normalized", reason=reason
    )


def _without_number(label: str) -> str | None:
    if leading := _LEADING_NUMBER.match(label):
        return label[leading.end() :]
    words = label.split()
    if len(words) < 2 or not _CLUSTER_NUMBER.fullmatch(words[-1].lower()):
        return None
    if words[-2].lower() in _CLUSTER_WORDS:
        return " ".join(words[:-2])
    return " ".join(words[:-1]) if words[-1].isdigit() else None


def _single(label: str, index: LabelIndex, ontology: CellOntology) -> Found | None:
    label = label.strip()
    return None if not label else match_id(label, ontology) or match_name(label, index, ontology)


def _match_ending(words: Words, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Match "ganglion cells", the ending of several names."""
    content = content_of(words)
    terms = index.ending.get(content, set())
    if len(terms) < 2 or not any(len(word) > 2 for word in content):
        return None
    ranked = sorted(terms, key=lambda term: (ontology.depth(term), len(ontology.name(term)), term))
    return Found("ambiguous", tuple(ranked), f"the names of {len(terms)} terms end with this")


def _match_head(words: Words, index: LabelIndex, ontology: CellOntology) -> Found | None:
    """Suggest "macrophage" for "foamy macrophage", which the ontology does not contain."""
    for first in range(1, len(words)):
        terms = index.words.get(words[first:])
        if terms and terms[0] != ROOT and words[first - 1] not in _NEGATES:
            reason = f"no name matches; the last words match {ontology.name(terms[0])}, which may be a broader type"
            return Found("unknown", terms, reason)
    return None
