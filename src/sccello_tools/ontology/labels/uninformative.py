"""Labels that do not name a cell type: missing-value strings, quality flags, the root of the ontology."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sccello_tools.ontology.graph import ROOT
from sccello_tools.ontology.text import words_of

from ._names import is_id, states_no_type

if TYPE_CHECKING:
    from typing import Final

# "cell", "native cell" (obsolete), "eukaryotic cell", "animal cell": true of every cell in human data
_UNINFORMATIVE_TERMS: Final = frozenset({ROOT, "CL:0000003", "CL:0000255", "CL:0000548"})
_UNINFORMATIVE_NAMES: Final = frozenset({("cell",), ("native", "cell"), ("eukaryotic", "cell"), ("animal", "cell")})  # fmt: skip
_FILLERS: Final = frozenset({"a", "cell", "label", "of", "population", "the", "type"})
_MISSING_WORDS: Final = frozenset(
    {
        "ambiguous", "artefact", "artifact", "debris", "doublet", "empty", "fail", "failed", "filtered", "missing", "mixed",
        "multiplet", "na", "nan", "none", "null", "other", "singlet", "unannotated", "unassigned", "unclassified", "undefined",
        "undetermined", "unidentified", "unk", "unknown", "unlabeled", "unlabelled", "unresolved", "unspecified",
    }
)  # fmt: skip
_MISSING_PHRASES: Final = frozenset({("n", "a"), ("not", "applicable"), ("not", "available"), ("not", "assigned"), ("low", "quality"), ("not", "known")})  # fmt: skip


@lru_cache(maxsize=1 << 14)
def is_uninformative(label: str) -> bool:
    """Whether a label does not name a cell type.

    True for strings that stand for a missing value ("nan", "NA", "None", "", "?"), for "unknown", "unassigned", "doublet" and
    similar, with or without "cell" and a number ("unknown cells", "doublet 2"), and for the root of the Cell Ontology and
    equally general terms ("cell", CL:0000000, "native cell", CL:0000003).

    Examples
    --------
    >>> from sccello_tools.ontology import is_uninformative
    >>> [is_uninformative(label) for label in ("NA", "Doublets", "CL:0000003", "T cell")]
    [True, True, True, False]
    """
    text = label.strip()
    if is_id(text):
        return f"CL:{text.rstrip('>')[-7:]}" in _UNINFORMATIVE_TERMS
    if not text or states_no_type(text):
        return True
    words = words_of(text)
    if words in _UNINFORMATIVE_NAMES:
        return True
    numberless = tuple(word for word in words if not word.isdigit())
    if numberless in _MISSING_PHRASES:
        return True
    kept = tuple(word for word in numberless if word not in _FILLERS)
    return kept in _MISSING_PHRASES or (bool(kept) and all(word in _MISSING_WORDS for word in kept))
