"""Free text or ids to Cell Ontology terms: what fits is applied, what might fit is only suggested."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sccello_tools.errors import LabelError
from sccello_tools.ontology.graph import CellOntology
from sccello_tools.ontology.search import TermHit, search_terms, term_scores

from ._compounds import read_more
from ._index import label_index
from ._names import Found, is_id, read_id, read_name, says_nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from ._names import MatchStatus


_N_SUGGESTIONS = 5
_N_EXAMPLES = 5
_LEAST_LIKE = 0.2  # similar names below this have a syllable in common, not a meaning


@dataclass(frozen=True)
class LabelMatch:
    """What a label means in the Cell Ontology."""

    query: str
    """The label."""

    status: MatchStatus
    """``exact``: an id or a name, letter by letter. ``synonym``: an exact synonym of the ontology, letter by letter. ``normalized``:
    the same after case, plural, punctuation, word order or a known short form. ``obsolete``: out of use, and replaced. ``override``:
    decided by the caller. These five carry an `id`. ``ambiguous``: several terms fit, or what fits is not surely meant. ``unknown``:
    none is known to fit."""

    id: str
    """Cell Ontology id; "" where ambiguous or unknown."""

    name: str
    """Name of that term; "" where ambiguous or unknown."""

    candidates: tuple[TermHit, ...]
    """Where there is no id: terms to choose from (ambiguous) or similar names (unknown), best first."""

    reason: str
    """The rule that decided."""

    @property
    def is_mapped(self) -> bool:
        """Whether there is a term."""
        return bool(self.id)


@dataclass(frozen=True)
class LabelReport:
    """What became of a list of labels."""

    matches: tuple[LabelMatch, ...]
    """One for each distinct label, in order of first appearance."""

    counts: tuple[int, ...]
    """How often each occurs."""

    release: str
    """Release of the ontology."""

    @property
    def n_labels(self) -> int:
        """Distinct labels."""
        return len(self.matches)

    @property
    def n_rows(self) -> int:
        """Labels with repeats."""
        return sum(self.counts)

    @property
    def n_mapped(self) -> int:
        """Distinct labels that got a term."""
        return sum(match.is_mapped for match in self.matches)

    @property
    def n_rows_mapped(self) -> int:
        """Labels with repeats that got a term."""
        return sum(n for match, n in zip(self.matches, self.counts) if match.is_mapped)

    def __getitem__(self, query: str) -> LabelMatch:
        for match in self.matches:
            if match.query == query:
                return match
        raise KeyError(query)

    def __str__(self) -> str:
        by_status = Counter(match.status for match in self.matches)
        how = ", ".join(f"{n:,} {status}" for status, n in by_status.items()) or "none"
        parts = [
            (
                f"{self.n_mapped:,} of {self.n_labels:,} labels ({self.n_rows_mapped:,} of {self.n_rows:,} rows) have a term of the "
                f"Cell Ontology {self.release}: {how}"
            )
        ]
        for status in ("ambiguous", "unknown"):
            open_ones = [match for match in self.matches if match.status == status]
            if open_ones:
                shown = "; ".join(map(_suggestion, open_ones[:_N_EXAMPLES]))
                more = "; ..." if len(open_ones) > _N_EXAMPLES else ""
                parts.append(f"{status}, left open: {shown}{more}")
        return "\n".join(parts)

    def to_frame(self) -> pd.DataFrame:
        """Give the report as a table: label, n, status, id, name, reason, candidates ("id name" joined by "; ")."""
        import pandas as pd

        return pd.DataFrame(
            {
                "label": [match.query for match in self.matches],
                "n": list(self.counts),
                "status": [match.status for match in self.matches],
                "id": [match.id for match in self.matches],
                "name": [match.name for match in self.matches],
                "reason": [match.reason for match in self.matches],
                "candidates": [
                    "; ".join(f"{hit.id} {hit.name}" for hit in match.candidates)
                    for match in self.matches
                ],
            }
        )


def match_label(label: str, ontology: CellOntology | None = None) -> LabelMatch:
    """Find the Cell Ontology term that a label means, if that can be said for sure.

    Tried in this order, and the first that fits decides: id (``CL:0000084``, ``CL_0000084``, any case, or the address on the web);
    exact name; a short form of the table that ships with the package ("Treg", "pDC"); exact synonym; name of an obsolete term; the
    same in another case, number, punctuation, word order or spelling, with a marker's sign kept ("CD4+" is "CD4-positive"); the same
    without the number of a cluster ("fibroblasts 2"). A label that several terms fit, that joins several types, that hedges
    ("Paneth-like"), or that is an acronym outside the table is ambiguous. Nothing is applied because it looks similar.

    Parameters
    ----------
    label
        The label.
    ontology
        The ontology; the snapshot that ships with the package if not given.

    Returns
    -------
    The match. Where it has no id, its candidates are ranked.

    Examples
    --------
    >>> from sccello_tools.ontology import match_label
    >>> match_label("CD8+ T-cells").name
    'CD8-positive, alpha-beta T cell'
    >>> match = match_label("Ganglion cells")
    >>> match.status, match.id, match.candidates[0].name
    ('ambiguous', '', 'retinal ganglion cell')
    """
    ontology = CellOntology.load() if ontology is None else ontology
    text = " ".join(label.split())
    found = read_id(text, ontology)
    if found is None and says_nothing(text):
        return LabelMatch(label, "unknown", "", "", (), "the label says that the type is not known")
    if found is None:
        index = label_index(ontology)
        found = read_name(text, index, ontology) or read_more(text, index, ontology)
    if found is None:
        found = Found("unknown", (), "no name or synonym fits")
    if found.status not in {"ambiguous", "unknown"}:
        return LabelMatch(
            label, found.status, found.ids[0], ontology.name(found.ids[0]), (), found.reason
        )
    return LabelMatch(label, found.status, "", "", _candidates(text, found, ontology), found.reason)


def match_labels(
    labels: Iterable[str],
    ontology: CellOntology | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
) -> LabelReport:
    """Match many labels, each distinct one once; see :func:`match_label`.

    Parameters
    ----------
    labels
        Labels, with repeats.
    ontology
        The ontology; the snapshot that ships with the package if not given.
    overrides
        Terms for labels, decided by you: label to id or name. These go before every rule.

    Returns
    -------
    The report.

    Raises
    ------
    LabelError
        If ``overrides`` holds a label that is not among the labels, or a term that does not exist.

    Examples
    --------
    >>> from sccello_tools.ontology import match_labels
    >>> report = match_labels(["T cells", "Tregs", "T cells", "my favourite cluster"])
    >>> report.n_mapped, report.n_rows_mapped, report["Tregs"].id
    (2, 3, 'CL:0000815')
    """
    ontology = CellOntology.load() if ontology is None else ontology
    counts: Mapping[str, int] = Counter(labels)
    decided = {
        label: _override(label, term, counts, ontology) for label, term in (overrides or {}).items()
    }
    matches = tuple(decided.get(label) or match_label(label, ontology) for label in counts)
    return LabelReport(matches, tuple(counts.values()), ontology.release)


def _override(
    label: str, term: str, counts: Mapping[str, int], ontology: CellOntology
) -> LabelMatch:
    if label not in counts:
        near = get_close_matches(label, counts, n=_N_EXAMPLES) or list(counts)[:_N_EXAMPLES]
        shown = ", ".join(map(repr, near)) or "none"
        msg = f"overrides names {label!r}, which is not among the {len(counts):,} labels (such as {shown}). Write it as in the data."
        raise LabelError(msg)
    match = match_label(term, ontology)
    if not match.is_mapped:
        msg = (
            f"overrides maps {label!r} to {_suggestion(match)}, which is {match.status} in the Cell Ontology {ontology.release}. "
            "Give an id such as CL:0000084, or the exact name of a term; see CellOntology.find."
        )
        raise LabelError(msg)
    return LabelMatch(label, "override", match.id, match.name, (), "decided by the caller")


def _candidates(text: str, found: Found, ontology: CellOntology) -> tuple[TermHit, ...]:
    """Give what the rules found, with scores; for an unknown label also what looks similar."""
    hits: tuple[TermHit, ...] = ()
    if found.ids:
        scores = dict(zip(ontology.terms, term_scores(ontology, text).tolist()))
        hits = tuple(TermHit(term, ontology.name(term), scores[term]) for term in found.ids)
    if found.status == "unknown" and not is_id(text):
        similar = search_terms(ontology, text, n=_N_SUGGESTIONS)
        near = (hit for hit in similar if hit.id not in found.ids and hit.score >= _LEAST_LIKE)
        hits = (*hits, *near)[:_N_SUGGESTIONS]
    return hits


def _suggestion(match: LabelMatch) -> str:
    if not match.candidates:
        return repr(match.query)
    shown = ", ".join(f"{hit.id} {hit.name}" for hit in match.candidates[:3])
    return f"{match.query!r} ({shown})"
