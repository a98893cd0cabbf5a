"""Assign terms without training cells, by their position in the Cell Ontology (arXiv 2408.12373, novel cell type classification)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal

from sccello_tools._messages import listed
from sccello_tools.errors import LabelError
from sccello_tools.ontology import RankedRows, match_label, pagerank_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

ZeroShotMethod = Literal["published", "combined"]
Organism = Literal["human", "any"]
# the taxa that a term is restricted to in its name or definition, unless they include humans
_SENSU = re.compile(
    r"\(sensu (?!Vertebrata|Mammalia|Primates|Homo)|\((?:Mmus|Mus musculus)\)|\bin taxon some (?!Eukaryota|Homo)"
)
_CELL = "CL:0000000"
_LEAST_DEPTH = 3  # "native cell", "animal cell", "eukaryotic cell" and the like are uninformative


@dataclass(frozen=True, eq=False)
class Candidates:
    """Cell Ontology terms to choose from, with their similarity to the known types."""

    terms: tuple[str, ...]
    rows: NDArray[np.float64]
    """(n_terms, n_types): personalised PageRank of each known type, restarting at each term."""

    @classmethod
    def of(cls, terms: Sequence[str], types: Sequence[str], ontology: CellOntology) -> Candidates:
        """Compute the rows of terms.

        Raises
        ------
        LabelError
            If there are fewer than two terms, or fewer than two known types, or none of the terms is connected to a known type.
        """
        if len(terms) < 2 or len(types) < 2:
            msg = (
                f"{len(terms)} candidates and {len(types)} known types; a choice needs at least two of each. "
                "Pass more candidates, or an ancestor that has descendants."
            )
            raise LabelError(msg)
        rows = pagerank_rows(ontology, terms, columns=types)
        if not rows.any():
            msg = (
                f"No path of the Cell Ontology leads from any candidate ({listed(terms)}) to a known type. "
                "Pass candidates below 'cell' (CL:0000000)."
            )
            raise LabelError(msg)
        return cls(tuple(terms), rows)

    def scores(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score each candidate for each cell; the highest wins.

        Parameters
        ----------
        cosines
            (n_cells, n_types) cosine of each cell to each known type's prototype.

        Returns
        -------
        (n_cells, n_candidates) float32: Spearman correlation of the cosines with the candidate's PageRank row (arXiv 2408.12373, novel cell type
        classification); rows with NaN give NaN.
        """
        return self._ranked.correlations(cosines)

    @cached_property
    def _ranked(self) -> RankedRows:
        return RankedRows(self.rows)


def resolve_candidates(
    candidates: Sequence[str] | str | None,
    ontology: CellOntology,
    *,
    exclude: Sequence[str] = (),
    organism: Organism = "human",
) -> tuple[str, ...]:
    """Convert requested candidates to current terms.

    Parameters
    ----------
    candidates
        Ids or names; or one id or name, which stands for all of its descendants. If not given, every term below "cell" that is at
        least three steps down.
    ontology
        Ontology in which they are looked up.
    exclude
        Terms to leave out.
    organism
        ``"human"`` leaves out terms that are restricted to other organisms ("hemocyte (sensu Arthropoda)") and what is below
        them, where terms are not named one by one; ``"any"`` keeps them.

    Returns
    -------
    Distinct ids, in the order given, or ascending.

    Raises
    ------
    LabelError
        If a candidate is unknown, ambiguous, or obsolete without a successor; the message names it and similar terms.
    """
    if candidates is None or isinstance(candidates, str):
        top = _CELL if candidates is None else _term(candidates, ontology)
        found = sorted(ontology.descendants(top))
        if organism == "human":
            foreign = _foreign(ontology)
            found = [term for term in found if term not in foreign]
        if candidates is None:
            found = [term for term in found if ontology.depth(term) >= _LEAST_DEPTH]
        elif not found:
            msg = (
                f"{top} ({ontology.name(top)}) has no terms below it, so it leaves no choice. "
                "Give a broader ancestor, or a list of candidates."
            )
            raise LabelError(msg)
    else:
        found = [_term(candidate, ontology) for candidate in candidates]
    return tuple(dict.fromkeys(term for term in found if term not in set(exclude)))


@cache
def _foreign(ontology: CellOntology) -> frozenset[str]:
    """Return the terms of organisms other than humans, and their descendants."""
    named = [
        term
        for term in ontology.terms
        if _SENSU.search(ontology.name(term)) or _SENSU.search(ontology.definition(term) or "")
    ]
    found: set[str] = set()
    for term in named:
        found |= ontology.descendants(term, include_self=True)
    return frozenset(found)


def _term(text: str, ontology: CellOntology) -> str:
    if text in ontology or text.startswith("CL:"):
        return ontology.current(text)
    match = match_label(text, ontology)
    if match.is_mapped:
        return match.id
    near = ", ".join(f"{hit.id} ({hit.name})" for hit in match.candidates[:5])
    what = "fits several terms" if match.status == "ambiguous" else "is no name of a term"
    listed = f": {near}" if near else ""
    msg = f"Candidate {text!r} {what}{listed}. Give an id such as CL:0000084; see ontology.match_label and CellOntology.find."
    raise LabelError(msg)
