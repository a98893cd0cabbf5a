"""Recover gene names that other software changed: genome prefixes, combined names, dots for dashes, dates."""

from __future__ import annotations

import os
import re
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

_BYTES: Final = re.compile(r"b'(.*)'|b\"(.*)\"")
# names of human genome builds with anything that Cell Ranger references append, and harmless prefixes of assays and attributes
HUMAN_PREFIX: Final = re.compile(
    r"(?:refdata[\w-]*?)?(?:GRCh3[678]|hg(?:18|19|38))|(?:human|homo_sapiens|hsapiens|gene|gene_id|gene_name|rna|gex)(?=[_:-])",
    re.IGNORECASE,
)
_SEPARATORS: Final = re.compile(r"[_:|.\s-]+")
_ID_INSIDE: Final = re.compile(
    r"(?<![A-Za-z0-9])(ENSG[\dR]\d{10})(?:\.\d+)?(?:_PAR_Y)?(?![A-Za-z0-9])", re.IGNORECASE
)
_WITH_NUMBER: Final = re.compile(r"([^|:;]+)[|:;]\d+")  # TCGA: symbol|Entrez ID
_OPEN_READING_FRAME: Final = re.compile(r"(C(?:\d+|X|Y))ORF(\d+)", re.IGNORECASE)
_DATE: Final = re.compile(
    r"(?P<day>\d{1,2})-(?P<month>mar|sep|dec)|(?P<month2>mar|sep|dec)-(?P<day2>\d{1,2})|"
    r"20\d\d-(?P<month3>03|09|12)-(?P<day3>\d{2})(?: 00:00:00)?",
    re.IGNORECASE,
)  # fmt: skip
_ANY_DATE: Final = re.compile(
    r"\d{1,2}-(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)-\d{1,2}|"
    r"(?:19|20)\d\d-\d\d-\d\d(?: 00:00:00)?",
    re.IGNORECASE,
)
_MONTHS: Final = {"03": "mar", "09": "sep", "12": "dec"}
_SYMBOLS_OF: Final = {  # current symbols of MARCH1, MARC1, SEPT1, DEC1
    "mar": ("MARCHF{}", "MTARC{}"),
    "sep": ("SEPTIN{}",),
    "dec": ("DELEC{}",),
}
_MOST_DOTS: Final = 4


class Repair(NamedTuple):
    """A name that is proposed instead of one that does not match."""

    kind: str
    """What was changed, for the report."""
    name: str


def clean(name: str) -> str:
    """Remove surrounding whitespace and quotes, and the ``b'...'`` of bytes that were converted to text."""
    name = name.strip().strip('\ufeff"')
    if name.startswith("b") and (found := _BYTES.fullmatch(name)):
        name = found[1] or found[2] or ""
    return name.strip()


def human_prefix(names: Sequence[str], is_known: Callable[[str], bool]) -> str:
    """Return the prefix of a human genome or assay ("GRCh38_", "hg19____", "rna-") that many names share; "" if there is none.

    Parameters
    ----------
    names
        Distinct names.
    is_known
        Whether a name is that of a gene.
    """
    prefixed = [name for name in names if HUMAN_PREFIX.match(name)]
    if len(prefixed) < max(2, len(names) / 10):
        return ""
    common = os.path.commonprefix(prefixed)  # noqa: RUF071 - character by character is intended
    sample = prefixed[:: max(1, len(prefixed) // 200)]
    best, n_best = "", 0
    for separator in _SEPARATORS.finditer(common):
        n = sum(is_known(name[separator.end() :]) for name in sample)
        if n > n_best:
            best, n_best = common[: separator.end()], n
    return best


def repairs(name: str, prefix: str) -> Iterator[tuple[Repair, ...]]:
    """Yield groups of names to try instead of one that does not match; the first group with exactly one gene decides.

    Parameters
    ----------
    name
        The name.
    prefix
        Result of :func:`human_prefix`.
    """
    if prefix and name.startswith(prefix):
        short = name[len(prefix) :]
        kind = f"prefix {prefix!r} removed"
        yield (Repair(kind, short),)
        yield from repairs(short, "")
        return
    ids = {found.upper() for found in _ID_INSIDE.findall(name)}
    if ids:
        if len(ids) == 1:
            yield (Repair("Ensembl ID taken from a longer name", ids.pop()),)
        return
    if found := _WITH_NUMBER.fullmatch(name):
        yield (Repair("number after the symbol removed", found[1].strip()),)
    if found := _OPEN_READING_FRAME.fullmatch(name):
        yield (Repair("upper case of 'orf' corrected", f"{found[1].upper()}orf{found[2]}"),)
    at = [i for i, character in enumerate(name) if character in "._"]
    if 0 < len(at) <= _MOST_DOTS:
        yield tuple(
            Repair("'.' or '_' replaced by '-'", _with_dashes(name, chosen))
            for n in range(1, len(at) + 1)
            for chosen in combinations(at, n)
        )


def genes_of_date(name: str) -> tuple[str, ...]:
    """Return the symbols that spreadsheet software may have converted to this date ("2-Sep", "Mar-01"); none if it is not one."""
    found = _DATE.fullmatch(name)
    if not found:
        return ()
    month = found["month"] or found["month2"] or _MONTHS[found["month3"]]
    number = int(found["day"] or found["day2"] or found["day3"])
    if (month.lower(), number) == ("sep", 15):
        return ("SEP15",)  # SELENOF; there is no SEPTIN15
    return tuple(symbol.format(number) for symbol in _SYMBOLS_OF[month.lower()])


def is_date(name: str) -> bool:
    """Whether a name looks like a date."""
    return _ANY_DATE.fullmatch(name) is not None


def _with_dashes(name: str, at: tuple[int, ...]) -> str:
    return "".join("-" if i in at else character for i, character in enumerate(name))
