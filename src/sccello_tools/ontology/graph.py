"""The Cell Ontology: names, relatives, depth and obsolete terms."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache, cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools._validation import check_choice
from sccello_tools.errors import LabelError

from .obo import CL_ID, read_obo
from .search import NameIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, Literal

    import numpy as np
    from numpy.typing import NDArray

    from .obo import OboFile, Term
    from .search import TermHit

ROOT: Final = "CL:0000000"
SNAPSHOT: Final = "cl-2026-03-26.obo.gz"
PUBLISHED_LABELS: Final = "sccello_zeroshot_labels.tsv"

_ALMOST_ID: Final = re.compile(r"(?:.*\bCL)?[:_\s-]*(\d{1,7})\D?", re.IGNORECASE)


class CellOntology:
    """Terms of the Cell Ontology (ids such as ``CL:0000084``) and the is_a edges between them.

    Create it with :meth:`load`. Iteration, ``len`` and ``in`` cover the current terms. Obsolete terms are accepted by
    :meth:`is_obsolete`, :meth:`current` and the methods that return names and definitions. Unknown ids, and obsolete ids in methods
    that concern the graph, raise :class:`LabelError`.

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
        """Release date, such as ``"2026-03-26"``."""
        self.terms: tuple[str, ...] = tuple(self._current)
        """Ids of the current terms, ascending."""
        self.obsolete_terms: tuple[str, ...] = tuple(t for t in obo.terms if t not in self._current)
        """Ids of the obsolete terms, ascending."""

    @classmethod
    def load(cls, path: Path | str | None = None) -> CellOntology:
        """Load the bundled release (once per process), or an OBO file.

        Parameters
        ----------
        path
            Release file of the Cell Ontology, ``cl.obo`` or ``cl.obo.gz``; by default the bundled release. Terms of other
            ontologies and relations other than is_a are ignored.

        Raises
        ------
        OntologyError
            If the file is missing, damaged, not an OBO file, has no CL terms, or its is_a edges form a cycle.
        """
        return _shipped() if path is None else cls(read_obo(Path(path)))

    def __repr__(self) -> str:
        return f"CellOntology(release={self.release!r}, {len(self):,} terms)"

    def __len__(self) -> int:
        return len(self.terms)

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def __contains__(self, term: object) -> bool:
        return term in self._current

    def name(self, term: str) -> str:
        """Name of a current or obsolete term; "" if it has none."""
        return self._any_term(term).name

    def synonyms(self, term: str, *, scope: Literal["exact", "any"] = "exact") -> tuple[str, ...]:
        """Exact synonyms of a term; with ``scope="any"`` also narrow, broad and related ones (absent from the bundled release)."""
        return tuple(
            synonym.text
            for synonym in self._any_term(term).synonyms
            if scope == "any" or synonym.scope == "EXACT"
        )

    def definition(self, term: str) -> str:
        """Definition of a term; "" if it has none."""
        return self._any_term(term).definition

    def is_obsolete(self, term: str) -> bool:
        """Whether a term is obsolete or was merged into another term."""
        return term in self._merged or self._any_term(term).is_obsolete

    def parents(self, term: str) -> tuple[str, ...]:
        """Direct parents (is_a), ascending."""
        return self._current_term(term).parents

    def children(self, term: str) -> tuple[str, ...]:
        """Direct children, ascending."""
        return self._current_term(term).children

    def ancestors(self, term: str, *, include_self: bool = False) -> frozenset[str]:
        """All ancestors of a term."""
        found = self._ancestors.get(term)
        if found is None:
            parents = self._current_term(term).parents
            found = frozenset(parents).union(*map(self.ancestors, parents))
            self._ancestors[term] = found
        return found | {term} if include_self else found

    def descendants(self, term: str, *, include_self: bool = False) -> frozenset[str]:
        """All descendants of a term."""
        found: set[str] = set()
        waiting = list(self._current_term(term).children)
        while waiting:
            child = waiting.pop()
            if child not in found:
                found.add(child)
                waiting.extend(self._current[child].children)
        return frozenset(found | {term} if include_self else found)

    def lca(self, a: str, b: str) -> tuple[str, ...]:
        """Lowest common ancestors of two terms, where a term counts as its own ancestor.

        Returns
        -------
        Common ancestors that have no descendant among the common ancestors, deepest first, then ascending. There may be several,
        because terms can have several parents; there is none for terms of separate components.
        """
        common = self.ancestors(a, include_self=True) & self.ancestors(b, include_self=True)
        higher = frozenset[str]().union(*map(self.ancestors, common))
        return tuple(sorted(common - higher, key=lambda term: (-self.depth(term), term)))

    def depth(self, term: str, *, path: Literal["longest", "shortest"] = "longest") -> int:
        """Return the number of is_a edges from a term to a term without parents.

        Along the longest path by default, so that a term is always deeper than its ancestors. "cell" (CL:0000000) has depth 0, and
        so have the few terms that are not cells and have no parent.
        """
        check_choice("path", path, ("longest", "shortest"))
        found = self._current_term(term)
        return found.depth if path == "longest" else found.level

    def current(self, term: str) -> str:
        """Return the current id of a term: the term itself, or the one that replaces an obsolete or merged term.

        Raises
        ------
        LabelError
            If the id is unknown, or obsolete without a replacement in the Cell Ontology; the message lists terms to consider.
        """
        found = self._any_term(term)
        seen = {found.id}
        while found.is_obsolete:
            replacement = self._terms.get(found.replaced_by)
            if replacement is None or replacement.id in seen:
                raise LabelError(self._no_replacement(term, found))
            found = replacement
            seen.add(found.id)
        return found.id

    def consider(self, term: str) -> tuple[str, ...]:
        """Return the current terms that the ontology suggests for an obsolete term without replacement."""
        found = self._terms.get(term)
        return tuple(other for other in found.consider if other in self) if found else ()

    def find(self, text: str, *, n: int = 10) -> tuple[TermHit, ...]:
        """Search names and exact synonyms, tolerating spelling mistakes.

        Parameters
        ----------
        text
            Search text.
        n
            Maximum number of hits.

        Returns
        -------
        Current terms with a score in (0, 1], best first. To map a label to a term use :func:`match_label`.

        Examples
        --------
        >>> from sccello_tools.ontology import CellOntology
        >>> CellOntology.load().find("purkinje", n=1)[0].name
        'Purkinje cell'
        """
        return self._names.find(text, n=n)

    def name_similarity(self, text: str) -> NDArray[np.float64]:
        """Return the similarity of a text to the name or best synonym of each term of :attr:`terms`, in [0, 1]."""
        return self._names.scores(text)

    @cached_property
    def _names(self) -> NameIndex:
        return NameIndex({term: (self.name(term), *self.synonyms(term)) for term in self})

    def _any_term(self, term: str) -> Term:
        found = self._terms.get(self._merged.get(term, term))
        if found is None:
            raise LabelError(self._unknown(term))
        return found

    def _current_term(self, term: str) -> Term:
        found = self._current.get(term)
        if found is not None:
            return found
        known = self._any_term(term)
        if known.is_obsolete and not known.replaced_by:
            raise LabelError(self._no_replacement(term, known))
        msg = f"{term} is obsolete in release {self.release} and not part of the graph. Call current() for its current id."
        raise LabelError(msg)

    def _with_name(self, term: str) -> str:
        return f"{term} ({self._terms[term].name})" if term in self._terms else term

    def _unknown(self, term: str) -> str:
        msg = f"{str(term)!r} is not a term of the Cell Ontology, release {self.release} ({len(self):,} terms)."
        number = _ALMOST_ID.fullmatch(term)
        if number and not CL_ID.fullmatch(term) and (tidy := f"CL:{number[1]:0>7}") in self._terms:
            return f"{msg} Did you mean {self._with_name(tidy)}? Ids consist of 'CL:' and seven digits."
        if CL_ID.fullmatch(term):
            near = get_close_matches(term, self._terms, n=3, cutoff=0.85)
            similar = f" Similar ids: {', '.join(map(self._with_name, near))}." if near else ""
            return f"{msg}{similar} If the term is more recent, load a newer release with CellOntology.load('cl.obo')."
        near = [f"{hit.id} ({hit.name})" for hit in self.find(term, n=3)]
        similar = f" Similar: {', '.join(near)}." if near else ""
        return f"{msg}{similar} Pass an id such as CL:0000084; see ontology.match_label for names."

    def _no_replacement(self, term: str, last: Term) -> str:
        by = f" (replaced by {last.replaced_by}, which it does not contain)"
        msg = f"{self._with_name(term)} is obsolete and has no replacement in the Cell Ontology{by if last.replaced_by else ''}."
        if consider := self.consider(last.id):
            return f"{msg} Consider instead: {', '.join(map(self._with_name, consider))}."
        return f"{msg} Choose a current term; see CellOntology.find."


@cache
def _shipped() -> CellOntology:
    resource = files("sccello_tools.resources").joinpath("cell_ontology", SNAPSHOT)
    with as_file(resource) as path:
        return CellOntology(read_obo(path))


@cache
def published_labels() -> tuple[str, ...]:
    """Cell Ontology ids by label index of the published checkpoint ``scCello-zeroshot`` (arXiv 2408.12373).

    The ids are as published. Some have become obsolete, and a few of those share a replacement: see :meth:`CellOntology.current`.

    Returns
    -------
    398 ids.

    Examples
    --------
    >>> from sccello_tools.ontology import published_labels
    >>> len(published_labels()), published_labels()[0]
    (398, 'CL:0002320')
    """
    resource = files("sccello_tools.resources").joinpath(PUBLISHED_LABELS)
    lines = resource.read_text(encoding="utf-8").splitlines()
    return tuple(line.split("\t")[1] for line in lines[1:])
