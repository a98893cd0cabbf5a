"""Normalise names of cell types: spelling, case, plural, punctuation, Greek letters, signs of markers."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

Words = tuple[str, ...]

_GREEK: Final = {
    "α": " alpha ", "β": " beta ", "γ": " gamma ", "δ": " delta ", "ε": " epsilon ", "μ": " mu ",
}  # fmt: skip
_SAME_CHARACTER: Final = str.maketrans(
    {
        **_GREEK, "⁺": "+", "⁻": "-", "−": "-", "‐": "-", "‑": "-", "–": "-", "—": "-", "’": "'", "‘": "'",
        "“": '"', "”": '"', "\u200b": "",
    }
)  # fmt: skip

# spelling variants of whole words and how the ontology spells them; applied to singulars
_SPELLINGS: Final = {
    "bcell": "b cell",
    "dc": "dendritic cell",
    "endothelia": "endothelial cell",
    "epithelia": "epithelial cell",
    "fibre": "fiber",
    "foetal": "fetal",
    "glia": "glial cell",
    "haematopoietic": "hematopoietic",
    "haemopoietic": "hematopoietic",
    "leucocyte": "leukocyte",
    "mesothelia": "mesothelial cell",
    "microglia": "microglial cell",
    "muller": "mueller",
    "neurone": "neuron",
    "nk": "natural killer",
    "nkcell": "natural killer cell",
    "nkt": "natural killer t",
    "oesophageal": "esophageal",
    "oogonia": "oogonium",
    "spermatogonia": "spermatogonium",
    "spermatozoa": "spermatozoon",
    "tcell": "t cell",
    "tumour": "tumor",
    "urothelia": "urothelial cell",
}
_ROMAN: Final = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}

_LEVEL: Final = r"bright|high|hi|dim|low|lo"
_LEVEL_NAMES: Final = {"hi": "high", "lo": "low"}
# CD4+, CD27-, CD8-positive, MARCOneg, CD56bright: the sign is part of the marker; \x00 marks its position
_SIGNED: Final = (
    (re.compile(r"(?<=\w)[- ]?\b(?:positive|pos)\b", re.IGNORECASE), "\x00p "),
    (re.compile(r"(?<=\w)[- ]?\b(?:negative|neg)\b", re.IGNORECASE), "\x00n "),
    (re.compile(r"\b([A-Z][A-Z0-9]{2,})pos\b"), "\\1\x00p "),
    (re.compile(r"\b([A-Z][A-Z0-9]{2,})neg\b"), "\\1\x00n "),
    (re.compile(rf"(?<=\w)-({_LEVEL})\b", re.IGNORECASE), "\x00\\1 "),
    (re.compile(rf"\b(CD\d+[a-zA-Z]?)[ ]?({_LEVEL})\b"), "\\1\x00\\2 "),
    (re.compile(r"(?<=\w)\+\+"), "\x00pp "),
    (re.compile(r"(?<=\w)\+"), "\x00p "),
    (re.compile(r"\b(CD\d+[a-zA-Z]?)-(?=CD\d)"), "\\1\x00n "),
    (re.compile(r"\b(\w*(?:\d|[A-Z]{2})\w*)-(?=[\s._,;/)]|$)"), "\\1\x00n "),
)
_WORD: Final = re.compile(r"[a-z0-9'\x00]+")
_BEFORE_LYMPHOCYTE: Final = frozenset({"t", "b", "killer"})
_NOT_PLURAL: Final = ("ss", "us", "is", "'s")


@lru_cache(maxsize=1 << 15)
def words_of(text: str) -> Words:
    """Split a name into normalised words: lower case, singular, one spelling, signs attached to their markers.

    Examples
    --------
    >>> words_of("CD4+ αβ T-cells"), words_of("CD4-positive, alpha-beta T cell")
    (('cd4+', 'alpha', 'beta', 't', 'cell'), ('cd4+', 'alpha', 'beta', 't', 'cell'))
    """
    text = text.translate(_SAME_CHARACTER)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = re.sub(r"[_.]", " ", text)
    for pattern, sign in _SIGNED:
        text = pattern.sub(sign, text)
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        words += _normalize(word).split()
    # "glia cell" has become "glial cell cell"
    words = [word for i, word in enumerate(words) if word != "cell" or words[i - 1 : i] != ["cell"]]
    return tuple(_replace_lymphocyte(_arabic_numerals(words)))


def content_of(words: Words) -> Words:
    """Remove "cell", which is optional: "endothelial" equals "endothelial cell"."""
    return tuple(word for word in words if word != "cell")


def bag_of(words: Words) -> Words:
    """Remove "cell" and function words and sort: "fibroblast of lung" equals "lung fibroblast"."""
    return tuple(sorted(word for word in words if word not in {"cell", "of", "the"}))


def bare_markers_positive(words: Words) -> Words:
    """Treat markers without a sign as positive: "CD4 T cell" equals "CD4+ T cell"."""
    return tuple(f"{word}+" if re.fullmatch(r"cd\d+[a-z]?", word) else word for word in words)


def _normalize(word: str) -> str:
    if "\x00" in word:
        marker, _, sign = word.partition("\x00")
        if sign in {"p", "n", "pp"}:
            return marker + {"p": "+", "n": "-", "pp": "++"}[sign]
        return f"{marker}~{_LEVEL_NAMES.get(sign, sign)}"
    word = word.strip("'")
    if word.endswith("'s"):
        return word[:-2]
    singular = _singular(word)
    return _SPELLINGS.get(singular, singular)


def _singular(word: str) -> str:
    if word.endswith("s") and word[:-1].isdigit():  # "type 1s" is the plural of "type 1"
        return word[:-1]
    if len(word) < 3 or not word.endswith("s") or word.endswith(_NOT_PLURAL):
        return word
    return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]


def _arabic_numerals(words: list[str]) -> list[str]:
    """Replace Roman numerals next to "type": "type II" becomes "type 2"."""
    near_type = [
        i
        for i, word in enumerate(words)
        if "type" in words[max(i - 1, 0) : i + 2] and word in _ROMAN
    ]
    return [_ROMAN[word] if i in near_type else word for i, word in enumerate(words)]


def _replace_lymphocyte(words: list[str]) -> list[str]:
    """Replace "T lymphocyte" by "T cell", which are synonyms in the ontology."""
    return [
        "cell" if word == "lymphocyte" and i and words[i - 1] in _BEFORE_LYMPHOCYTE else word
        for i, word in enumerate(words)
    ]
