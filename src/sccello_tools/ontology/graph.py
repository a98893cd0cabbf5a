"""The Cell Ontology as a graph of is_a edges: names, relatives, depth, and what became of obsolete terms."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools.errors import ArgumentError, LabelError

from ._obo import CL_ID, read_obo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final, Literal

    from ._obo import OboFile, Term
    from .search import TermHit

ROOT: Final = "CL:0000000"
_ALMOST_ID: Final = re.compile(r"(?:.*\bCL)?[:_\s-]*(\d{1,7})\D?", re.IGNORECASE)
SNAPSHOT: Final = "cl-2026-03-26.obo.gz"


class CellOntology:
    """The terms of the Cell Ontology (ids such as ``CL:0000084``) and the is_a edges between them.

    Make one with :meth:`load`. Underneath is a ``goatools.obo_parser.GODag`` (attribute `dag`). Iteration, ``len`` and ``in`` run over
    the current terms; obsolete ones are known to :meth:`is_obsolete`, :meth:`current` and the methods that give texts. An id that the
    ontology does not know, or an obsolete one where a place in the graph is asked, raises :class:`LabelError`.

    Examples
    --------
    >>> from sccello_tools.ontology import CellOntology
    >>> ontology = CellOntology.load()
    >>> ontology.release, len(ontology), ontology.name("CL:0000084")
    ('2026-03-26', 3324, 'T cell')
    >>> ontology.lca("CL:0000084", "CL:0000236")  # T cell and B cell
    ('CL:0000542',)
    """

    def __init__(self, obo: OboFile) -> None:
        self._terms = obo.terms
        self._merged = obo.merged
        self._ancestors: dict[str, frozenset[str]] = {}
        self._current = {term.id: term for term in obo.terms.values() if not term.is_obsolete}
        self.release: str = obo.release
        """Date of the release, such as ``"2026-03-26"``."""
        self.dag: Any = obo.dag
        """The terms as goatools holds them, obsolete ones included."""
        self.terms: tuple[str, ...] = tuple(self._current)
        """Ids of the current terms, ascending."""
        self.obsolete_terms: tuple[str, ...] = tuple(t for t in obo.terms if t not in self._current)
        """Ids of the terms that are out of use, ascending."""

    @classmethod
    def load(cls, path: Path | str | None = None) -> CellOntology:
        """Load the snapshot that ships with the package (once per process), or a file.

        Parameters
        ----------
        path
            A release file of the Cell Ontology, ``cl.obo`` or ``cl.obo.gz``. Its terms of other ontologies and its relations other
            than is_a are left aside. If not given, the snapshot.

        Raises
        ------
        OntologyError
            If the file is missing, damaged, no obo file, or holds no term of the Cell Ontology.
        """
        return _snapshot() if path is None else cls(read_obo(Path(path)))

    def __repr__(self) -> str:
        return f"CellOntology(release={self.release!r}, {len(self):,} terms)"

    def __len__(self) -> int:
        return len(self.terms)

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def __contains__(self, term: object) -> bool:
        return term in self._current

    def name(self, term: str) -> str:
        """Name of a term; of an obsolete one as the release has it, "" if it has none."""
        return self._known(term).name

    def synonyms(self, term: str, *, scope: Literal["exact", "any"] = "exact") -> tuple[str, ...]:
        """Other names of a term; with ``scope="any"`` also narrower, broader and related ones (the snapshot has none)."""
        return tuple(
            synonym.text
            for synonym in self._known(term).synonyms
            if scope == "any" or synonym.scope == "EXACT"
        )

    def definition(self, term: str) -> str:
        """Definition of a term, "" if it has none."""
        return self._known(term).definition

    def is_obsolete(self, term: str) -> bool:
        """Whether a term was taken out of use, or merged into another."""
        return term in self._merged or self._known(term).is_obsolete

    def parents(self, term: str) -> tuple[str, ...]:
        """Terms that this one is a kind of, directly; ascending."""
        return self._placed(term).parents

    def children(self, term: str) -> tuple[str, ...]:
        """Terms that are a kind of this one, directly; ascending."""
        return self._placed(term).children

    def ancestors(self, term: str, *, include_self: bool = False) -> frozenset[str]:
        """All terms that this one is a kind of; a set, so sort it where order matters."""
        found = self._ancestors.get(term)
        if found is None:
            parents = self._placed(term).parents
            found = frozenset(parents).union(*map(self.ancestors, parents))
            self._ancestors[term] = found
        return found | {term} if include_self else found

    def descendants(self, term: str, *, include_self: bool = False) -> frozenset[str]:
        """All terms that are a kind of this one; a set, so sort it where order matters."""
        found: set[str] = set()
        waiting = list(self._placed(term).children)
        while waiting:
            child = waiting.pop()
            if child not in found:
                found.add(child)
                waiting.extend(self._current[child].children)
        return frozenset(found | {term} if include_self else found)

    def lca(self, a: str, b: str) -> tuple[str, ...]:
        """Lowest common ancestors of two terms, a term being an ancestor of itself here.

        Returns
        -------
        The common ancestors without another common ancestor below them; deepest first, then ascending. The graph is no tree, so there
        may be several. Empty for terms of separate parts of the graph.
        """
        common = self.ancestors(a, include_self=True) & self.ancestors(b, include_self=True)
        higher = frozenset[str]().union(*map(self.ancestors, common))
        return tuple(sorted(common - higher, key=lambda term: (-self.depth(term), term)))

    def depth(self, term: str, *, path: Literal["longest", "shortest"] = "longest") -> int:
        """Count the is_a edges from a term up to the top.

        Along the longest path by default, so that a term is always deeper than its ancestors; or along the shortest. "cell"
        (CL:0000000) has depth 0, and so have the few terms of the ontology that are no kind of cell and have no parent.
        """
        if path not in {"longest", "shortest"}:
            msg = f"path is {path!r}; expected is 'longest' or 'shortest'"
            raise ArgumentError(msg)
        found = self._placed(term)
        return found.depth if path == "longest" else found.level

    def current(self, term: str) -> str:
        """Id that is in use today for a term: itself, or what replaces it if it is obsolete or was merged.

        Raises
        ------
        LabelError
            If the id is unknown, or obsolete without a successor in the Cell Ontology; the message lists the terms to consider.
        """
        found = self._known(term)
        seen = {found.id}
        while found.is_obsolete:
            successor = self._terms.get(found.replaced_by)
            if successor is None or successor.id in seen:
                raise LabelError(self._no_successor(term, found))
            found = successor
            seen.add(found.id)
        return found.id

    def consider(self, term: str) -> tuple[str, ...]:
        """List the current terms that the ontology offers for an obsolete one without successor; empty if there are none."""
        found = self._terms.get(term)
        return tuple(other for other in found.consider if other in self) if found else ()

    def find(self, text: str, *, n: int = 10) -> tuple[TermHit, ...]:
        """Search names and synonyms for a text, spelling mistakes allowed.

        Parameters
        ----------
        text
            What to look for.
        n
            Most hits.

        Returns
        -------
        Current terms with their score in (0, 1], best first. For a decision on a label use :func:`match_label`.

        Examples
        --------
        >>> from sccello_tools.ontology import CellOntology
        >>> CellOntology.load().find("purkinje", n=1)[0].name
        'Purkinje cell'
        """
        from .search import search_terms

        return search_terms(self, text, n=n)

    def _known(self, term: str) -> Term:
        found = self._terms.get(self._merged.get(term, term))
        if found is None:
            raise LabelError(self._unknown(term))
        return found

    def _placed(self, term: str) -> Term:
        found = self._current.get(term)
        if found is not None:
            return found
        if self._known(term).is_obsolete and not self._known(term).replaced_by:
            raise LabelError(self._no_successor(term, self._known(term)))
        msg = (
            f"{term} is obsolete and has no place in the graph of release {self.release}. "
            "Call current() for the id that is in use today."
        )
        raise LabelError(msg)

    def _named(self, term: str) -> str:
        return f"{term} ({self._terms[term].name})" if term in self._terms else term

    def _unknown(self, term: str) -> str:
        msg = f"{str(term)!r} is no term of the Cell Ontology, release {self.release} ({len(self):,} terms)."
        number = _ALMOST_ID.fullmatch(term)
        if number and not CL_ID.fullmatch(term) and (tidy := f"CL:{number[1]:0>7}") in self._terms:
            return (
                f"{msg} Did you mean {self._named(tidy)}? Ids are written CL:, then seven digits."
            )
        if CL_ID.fullmatch(term):
            near = get_close_matches(term, self._terms, n=3, cutoff=0.85)
            alike = f" Similar ids: {', '.join(map(self._named, near))}." if near else ""
            return f"{msg}{alike} If the term is newer, load a newer release with CellOntology.load('cl.obo')."
        near = [f"{hit.id} ({hit.name})" for hit in self.find(term, n=3)]
        alike = f" Similar: {', '.join(near)}." if near else ""
        return f"{msg}{alike} An id such as CL:0000084 is expected; see ontology.match_label for names."

    def _no_successor(self, term: str, last: Term) -> str:
        to_where = (
            f" (replaced by {last.replaced_by}, which is not in it)" if last.replaced_by else ""
        )
        msg = (
            f"{self._named(term)} is obsolete and has no successor in the Cell Ontology{to_where}."
        )
        if consider := self.consider(last.id):
            return f"{msg} Consider instead: {', '.join(map(self._named, consider))}."
        return f"{msg} Choose a current term; see CellOntology.find."


@cache
def _snapshot() -> CellOntology:
    resource = files("sccello_tools.resources").joinpath("cell_ontology", SNAPSHOT)
    with as_file(resource) as path:
        return CellOntology(read_obo(path))
