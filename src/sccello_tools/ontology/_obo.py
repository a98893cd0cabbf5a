"""Read an obo file of the Cell Ontology with goatools: plain or gzipped, the slim snapshot or a full release."""

from __future__ import annotations

import gzip
import locale
import re
import zlib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools.errors import OntologyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, Final

CL_ID: Final = re.compile(r"CL:\d{7}")
_SYNONYM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*([A-Z]*)')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_ESCAPE: Final = re.compile(r"\\(.)")
_GZIP_MAGIC: Final = b"\x1f\x8b"


class Synonym(NamedTuple):
    """Another name of a term."""

    text: str
    scope: str
    """How it relates to the name: EXACT, NARROW, BROAD or RELATED."""


class Term(NamedTuple):
    """One stanza of the file; ids point to terms of the same file, but for `replaced_by` and `consider`."""

    id: str
    name: str
    definition: str
    synonyms: tuple[Synonym, ...]
    parents: tuple[str, ...]
    children: tuple[str, ...]
    depth: int
    """Longest path to a term without parents."""
    level: int
    """Shortest path to a term without parents."""
    is_obsolete: bool
    replaced_by: str
    consider: tuple[str, ...]


class OboFile(NamedTuple):
    """What a file of the Cell Ontology holds, CL terms only."""

    release: str
    terms: dict[str, Term]
    """By id, ascending."""
    merged: dict[str, str]
    """Current id by alternative id."""
    dag: Any
    """The same terms as a ``goatools.obo_parser.GODag``."""


def read_obo(path: Path) -> OboFile:
    """Read the CL terms of an obo file and the is_a edges between them.

    Terms of other ontologies, relations other than is_a, type definitions and edges to terms that the file does not hold are left
    out before goatools sees the file: it takes every id for a term and stops at the first that is missing.

    Raises
    ------
    OntologyError
        If the file is missing, damaged, no obo file, holds no CL term, or its is_a edges run in a circle.
    """
    header, stanzas = _parse(_read_text(path))
    cell_terms = {stanza["id"][0]: stanza for stanza in stanzas if CL_ID.fullmatch(stanza["id"][0])}
    if not cell_terms:
        raise OntologyError(_no_terms(path, stanzas))
    in_use = {term_id for term_id, stanza in cell_terms.items() if not _is_obsolete(stanza)}
    for term_id, stanza in cell_terms.items():
        parents = set(map(_first_word, stanza.get("is_a", ()))) if term_id in in_use else set()
        stanza["is_a"] = sorted(parents & in_use)
    _refuse_circles(path, cell_terms)
    dag = _to_godag(cell_terms)
    terms = {term_id: _term(dag[term_id]) for term_id in sorted(cell_terms)}
    merged = {alt: rec.item_id for alt, rec in dag.items() if alt != rec.item_id}
    return OboFile(_release(header), terms, merged, dag)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP_MAGIC):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8")
    except FileNotFoundError:
        msg = f"No ontology file at {str(path)!r}. Give the path of a cl.obo or cl.obo.gz, or None for the snapshot that ships here."
        raise OntologyError(msg) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{str(path)!r} cannot be read as an obo file ({error}). Fetch it again; a cl.obo or cl.obo.gz in UTF-8 is expected."
        raise OntologyError(msg) from error


def _parse(text: str) -> tuple[dict[str, str], list[dict[str, list[str]]]]:
    """Split an obo file into its header and its [Term] stanzas, each a list of values by tag."""
    header: dict[str, str] = {}
    stanzas: list[dict[str, list[str]]] = []
    stanza: dict[str, list[str]] | None = None
    in_header = True
    for line in text.split("\n"):  # not splitlines: definitions hold other separators
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


def _is_obsolete(stanza: dict[str, list[str]]) -> bool:
    return "true" in stanza.get("is_obsolete", ())


def _first_word(value: str) -> str:
    """Take the id of a value such as ``CL:0000000 {is_inferred="true"} ! cell``."""
    return value.split(maxsplit=1)[0] if value else ""


def _no_terms(path: Path, stanzas: Sequence[dict[str, list[str]]]) -> str:
    if not stanzas:
        return f"{str(path)!r} holds no [Term] stanza. Expected is an obo file (not OWL, not JSON) of the Cell Ontology."
    prefixes = sorted({stanza["id"][0].partition(":")[0] for stanza in stanzas})
    shown = ", ".join(prefixes[:5]) + (", ..." if len(prefixes) > 5 else "")
    return f"{str(path)!r} holds {len(stanzas):,} terms but none of the Cell Ontology (found: {shown}; expected: ids such as CL:0000084)."


def _refuse_circles(path: Path, terms: dict[str, dict[str, list[str]]]) -> None:
    try:
        TopologicalSorter({term_id: stanza["is_a"] for term_id, stanza in terms.items()}).prepare()
    except CycleError as error:
        msg = f"The is_a edges of {str(path)!r} run in a circle: {' -> '.join(error.args[1])}. Use a released file."
        raise OntologyError(msg) from None


def _release(header: dict[str, str]) -> str:
    """Date of the release, as ``data-version: cl/releases/2026-03-26`` or ``releases/...`` or a URL give it."""
    version = header.get("data-version", "")
    date = _DATE.search(version)
    return date[0] if date else version or "unknown"


def _to_godag(terms: dict[str, dict[str, list[str]]]) -> Any:
    # imported here: goatools brings `requests` and sets up a logger
    from goatools.obo_parser import GODag

    with TemporaryDirectory() as folder:
        file = Path(folder) / "cl.obo"
        # goatools opens the file in the encoding of the locale; ours is ASCII, so that any will do
        file.write_text(
            "\n".join(_lines(terms)), encoding=locale.getpreferredencoding(do_setlocale=False)
        )
        return GODag(
            str(file),
            optional_attrs={"def", "synonym", "consider", "replaced_by"},
            load_obsolete=True,
            prt=None,
        )


def _lines(terms: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    """Write CL terms in the strict form that goatools reads, other characters than ASCII escaped."""
    for term_id, stanza in terms.items():
        yield f"[Term]\nid: {term_id}"
        if name := _escape(_unescape_obo(stanza.get("name", [""])[0])):
            yield f"name: {name}"
        if definition := _QUOTED.match(stanza.get("def", [""])[0]):
            yield f'def: "{_escape(_unescape_obo(definition[1]))}" []'
        for value in stanza.get("synonym", ()):
            found = _SYNONYM.match(value)
            text = _unescape_obo(found[1]).strip() if found else ""
            if found and len(text) > 1:  # goatools stops at a synonym of one character
                yield f'synonym: "{_escape(text)}" {found[2] or "RELATED"} []'
        for parent in stanza["is_a"]:
            yield f"is_a: {parent}"
        if _is_obsolete(stanza):
            yield "is_obsolete: true"
        for successor in stanza.get("replaced_by", ())[:1]:
            yield f"replaced_by: {_first_word(successor)}"
        for tag in ("consider", "alt_id"):
            for other in map(_first_word, stanza.get(tag, ())):
                if tag == "consider" or other not in terms:
                    yield f"{tag}: {other}"
        yield ""


def _unescape_obo(text: str) -> str:
    return _ESCAPE.sub(lambda found: " " if found[1] in "nWt" else found[1], text)


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _unescape(text: str) -> str:
    return text.encode("ascii").decode("unicode_escape")


def _ids(records: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted(record.item_id for record in records))


def _term(record: Any) -> Term:
    definition = getattr(record, "defn", "").removeprefix('"').removesuffix('" []')
    return Term(
        id=record.item_id,
        name=_unescape(record.name),
        definition=_unescape(definition),
        synonyms=tuple(
            Synonym(_unescape(synonym.text), synonym.scope) for synonym in record.synonym
        ),
        parents=_ids(record.parents),
        children=_ids(record.children),
        depth=record.depth,
        level=record.level,
        is_obsolete=record.is_obsolete,
        replaced_by=record.replaced_by,
        consider=tuple(sorted(record.consider)),
    )
