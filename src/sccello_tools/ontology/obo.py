"""Parser of OBO files of the Cell Ontology: plain or gzipped, the shipped release or a full one."""

from __future__ import annotations

import gzip
import re
import zlib
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools._messages import listed
from sccello_tools.errors import OntologyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Final

CL_ID: Final = re.compile(r"CL:\d{7}")
_SYNONYM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*([A-Z]*)')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_ESCAPE: Final = re.compile(r"\\(.)")
_GZIP_MAGIC: Final = b"\x1f\x8b"


class Synonym(NamedTuple):
    """A synonym of a term."""

    text: str
    scope: str
    """EXACT, NARROW, BROAD or RELATED."""


class Term(NamedTuple):
    """A CL term of an OBO file. Parents and children are terms of the same file."""

    id: str
    name: str
    definition: str
    synonyms: tuple[Synonym, ...]
    parents: tuple[str, ...]
    children: tuple[str, ...]
    depth: int
    """Number of edges of the longest path to a term without parents."""
    level: int
    """Number of edges of the shortest path to a term without parents."""
    is_obsolete: bool
    replaced_by: str
    consider: tuple[str, ...]


class OboFile(NamedTuple):
    """The CL terms of an OBO file."""

    release: str
    terms: dict[str, Term]
    """By id, ascending."""
    merged: dict[str, str]
    """Current id by alternative id."""


def read_obo(path: Path) -> OboFile:
    """Parse the CL terms of an OBO file and the is_a edges between them.

    Parameters
    ----------
    path
        Plain or gzipped OBO file.

    Raises
    ------
    OntologyError
        As :meth:`CellOntology.load`.
    """
    header, stanzas = _split(_read_text(path))
    cl = {stanza["id"][0]: stanza for stanza in stanzas if CL_ID.fullmatch(stanza["id"][0])}
    if not cl:
        raise OntologyError(_no_terms(path, stanzas))
    obsolete = {term for term, stanza in cl.items() if "true" in stanza.get("is_obsolete", ())}
    parents = {
        term: tuple(sorted(_ids(stanza, "is_a") & cl.keys() - obsolete))
        if term not in obsolete
        else ()
        for term, stanza in cl.items()
    }
    children: dict[str, list[str]] = defaultdict(list)
    depth: dict[str, int] = {}
    level: dict[str, int] = {}
    try:
        for term in TopologicalSorter(parents).static_order():
            depth[term] = max((depth[parent] + 1 for parent in parents[term]), default=0)
            level[term] = min((level[parent] + 1 for parent in parents[term]), default=0)
            for parent in parents[term]:
                children[parent].append(term)
    except CycleError as error:
        msg = f"The is_a edges of {str(path)!r} form a cycle: {' -> '.join(error.args[1])}. Use a release file."
        raise OntologyError(msg) from None
    terms = {
        term: Term(
            id=term,
            name=_unescape(_first(stanza, "name")),
            definition=_definition(_first(stanza, "def")),
            synonyms=tuple(_synonyms(stanza.get("synonym", ()))),
            parents=parents[term],
            children=tuple(sorted(children[term])),
            depth=depth[term],
            level=level[term],
            is_obsolete=term in obsolete,
            replaced_by=_id_of(_first(stanza, "replaced_by")),
            consider=tuple(sorted(_ids(stanza, "consider"))),
        )
        for term, stanza in sorted(cl.items())
    }
    merged = {
        alt: term for term, stanza in cl.items() for alt in _ids(stanza, "alt_id") - cl.keys()
    }
    version = header.get("data-version", "")  # cl/releases/2026-03-26, releases/..., or a URL
    date = _DATE.search(version)
    return OboFile(date[0] if date else version or "unknown", terms, merged)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP_MAGIC):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8")
    except FileNotFoundError:
        msg = f"Ontology file not found: {str(path)!r}. Pass the path of a cl.obo or cl.obo.gz, or None for the shipped release."
        raise OntologyError(msg) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{str(path)!r} cannot be read as an OBO file ({error}). Download it again; it must be a cl.obo or cl.obo.gz in UTF-8."
        raise OntologyError(msg) from error


def _split(text: str) -> tuple[dict[str, str], list[dict[str, list[str]]]]:
    """Split an OBO file into its header and its [Term] stanzas, each a list of values by tag."""
    header: dict[str, str] = {}
    stanzas: list[dict[str, list[str]]] = []
    stanza: dict[str, list[str]] | None = None
    in_header = True
    for line in text.split("\n"):  # not splitlines: definitions contain other separators
        if line.startswith("["):
            in_header = False
            stanza = {} if line.strip() == "[Term]" else None  # not [Typedef], not [Instance]
            if stanza is not None:
                stanzas.append(stanza)
            continue
        tag, colon, value = line.partition(":")
        if not colon:
            continue
        if in_header:
            header.setdefault(tag, value.strip())
        elif stanza is not None:
            stanza.setdefault(tag, []).append(value.strip())
    return header, [stanza for stanza in stanzas if "id" in stanza]


def _first(stanza: dict[str, list[str]], tag: str) -> str:
    return stanza.get(tag, [""])[0]


def _id_of(value: str) -> str:
    """Return the id of a value such as ``CL:0000000 {is_inferred="true"} ! cell``."""
    return value.split(maxsplit=1)[0] if value else ""


def _ids(stanza: dict[str, list[str]], tag: str) -> set[str]:
    return {_id_of(value) for value in stanza.get(tag, ())} - {""}


def _definition(value: str) -> str:
    found = _QUOTED.match(value)
    return _unescape(found[1]) if found else ""


def _synonyms(values: Iterable[str]) -> Iterator[Synonym]:
    for value in values:
        found = _SYNONYM.match(value)
        if found and (text := _unescape(found[1]).strip()):
            yield Synonym(text, found[2] or "RELATED")


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: " " if found[1] in "nWt" else found[1], text)


def _no_terms(path: Path, stanzas: list[dict[str, list[str]]]) -> str:
    if not stanzas:
        return f"{str(path)!r} has no [Term] stanza. Pass an OBO file (not OWL, not JSON) of the Cell Ontology."
    prefixes = sorted({stanza["id"][0].partition(":")[0] for stanza in stanzas})
    return f"{str(path)!r} has {len(stanzas):,} terms but none of the Cell Ontology (prefixes: {listed(prefixes)}; ids must look like CL:0000084)."
