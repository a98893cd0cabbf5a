"""Mapping of free text and ids to Cell Ontology terms; uncertain matches are suggested, never applied."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sccello_tools._messages import listed
from sccello_tools.errors import LabelError
from sccello_tools.ontology.graph import CellOntology
from sccello_tools.ontology.search import TermHit

from ._compounds import match_compound
from ._index import label_index
from ._names import Found, is_id, match_id, match_name, states_no_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from ._names import MatchStatus


_N_SUGGESTIONS = 5
_N_EXAMPLES = 5
_MIN_SIMILARITY = 0.2  # below this, names share syllables, not meaning


@dataclass(frozen=True)
class LabelMatch:
    """Result of matching one label to the Cell Ontology."""

    query: str
    """The label."""

    status: MatchStatus
    """``exact``: identical to an id or name. ``synonym``: identical to an exact synonym. ``normalized``: identical after normalising
    case, plural, punctuation and word order, or a known abbreviation. ``obsolete``: obsolete and replaced. ``override``: given by
    the caller. These five have an `id`. ``ambiguous``: several terms match, or the match is unreliable. ``unknown``: no match."""

    id: str
    """Cell Ontology id; "" where ambiguous or unknown."""

    name: str
    """Name of that term; "" where ambiguous or unknown."""

    candidates: tuple[TermHit, ...]
    """If there is no id: possible terms (ambiguous) or similar names (unknown), best first."""

    reason: str
    """The rule that applied."""

    @property
    def is_mapped(self) -> bool:
        """Whether the label has a term."""
        return bool(self.id)


@dataclass(frozen=True)
class LabelReport:
    """Result of matching a list of labels."""

    matches: tuple[LabelMatch, ...]
    """One per distinct label, in order of first appearance."""

    counts: tuple[int, ...]
    """Number of occurrences of each."""

    release: str
    """Release of the ontology."""

    @property
    def n_labels(self) -> int:
        """Distinct labels."""
        return len(self.matches)

    @property
    def n_rows(self) -> int:
        """Labels, counting repeats."""
        return sum(self.counts)

    @property
    def n_mapped(self) -> int:
        """Distinct labels with a term."""
        return sum(match.is_mapped for match in self.matches)

    @property
    def n_rows_mapped(self) -> int:
        """Labels with a term, counting repeats."""
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
                f"{self.n_mapped:,} of {self.n_labels:,} labels ({self.n_rows_mapped:,} of {self.n_rows:,} rows) are mapped to the "
                f"Cell Ontology {self.release}: {how}"
            )
        ]
        for status in ("ambiguous", "unknown"):
            unmapped = [match for match in self.matches if match.status == status]
            if unmapped:
                shown = listed(map(_suggestion, unmapped), separator="; ")
                parts.append(f"{status}, not mapped: {shown}")
        return "\n".join(parts)

    def to_frame(self) -> pd.DataFrame:
        """Return a table with columns label, n, status, id, name, reason and candidates ("id name" joined by "; ")."""
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
    """Map a label to a Cell Ontology term, if the match is certain.

    The first rule that matches decides: id (``CL:0000084``, ``CL_0000084``, any case, or the URL); exact name; abbreviation of the
    table shipped with the package ("Treg", "pDC"); exact synonym; name of an obsolete term; the same after normalising case, number,
    punctuation, word order and spelling, where signs of markers are kept ("CD4+" equals "CD4-positive"); the same without a cluster
    number ("fibroblasts 2"). Labels that match several terms, name several types, express doubt ("Paneth-like") or are acronyms
    outside the table are ambiguous. Similarity alone never maps a label.

    Parameters
    ----------
    label
        The label.
    ontology
        The ontology; the bundled release by default.

    Returns
    -------
    The match; without id, its candidates are ranked.

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
    found = match_id(text, ontology)
    if found is None and states_no_type(text):
        return LabelMatch(
            label, "unknown", "", "", (), "the label states that the type is not known"
        )
    if found is None:
        index = label_index(ontology)
        found = match_name(text, index, ontology) or match_compound(text, index, ontology)
    if found is None:
        found = Found("unknown", (), "no name or synonym matches")
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
    """Map labels to Cell Ontology terms; see :func:`match_label`.

    Parameters
    ----------
    labels
        Labels; repeats are matched once.
    ontology
        The ontology; the bundled release by default.
    overrides
        Mapping of labels to ids or names, which takes precedence over all rules.

    Returns
    -------
    The report.

    Raises
    ------
    LabelError
        If ``overrides`` contains a label that is not among ``labels``, or a term that does not exist.

    Examples
    --------
    >>> from sccello_tools.ontology import match_labels
    >>> report = match_labels(["T cells", "Tregs", "T cells", "my favourite cluster"])
    >>> report.n_mapped, report.n_rows_mapped, report["Tregs"].id
    (2, 3, 'CL:0000815')
    """
    ontology = CellOntology.load() if ontology is None else ontology
    counts: Mapping[str, int] = Counter(labels)
    given = {
        label: _override(label, term, counts, ontology) for label, term in (overrides or {}).items()
    }
    matches = tuple(given.get(label) or match_label(label, ontology) for label in counts)
    return LabelReport(matches, tuple(counts.values()), ontology.release)


def _override(
    label: str, term: str, counts: Mapping[str, int], ontology: CellOntology
) -> LabelMatch:
    if label not in counts:
        near = get_close_matches(label, counts, n=_N_EXAMPLES) or list(counts)[:_N_EXAMPLES]
        shown = ", ".join(map(repr, near)) or "none"
        msg = f"overrides contains {label!r}, which is not among the {len(counts):,} labels (such as {shown}). Use the spelling of the data."
        raise LabelError(msg)
    match = match_label(term, ontology)
    if not match.is_mapped:
        msg = (
            f"overrides maps {label!r} to {_suggestion(match)}, which is {match.status} in the Cell Ontology {ontology.release}. "
            "Pass an id such as CL:0000084 or the exact name of a term; see CellOntology.find."
        )
        raise LabelError(msg)
    return LabelMatch(label, "override", match.id, match.name, (), "given by the caller")


def _candidates(text: str, found: Found, ontology: CellOntology) -> tuple[TermHit, ...]:
    """Return the candidates of the rules with scores; for unknown labels also similar names."""
    hits: tuple[TermHit, ...] = ()
    if found.ids:
        scores = dict(zip(ontology.terms, ontology.name_similarity(text).tolist()))
        hits = tuple(TermHit(term, ontology.name(term), scores[term]) for term in found.ids)
    if found.status == "unknown" and not is_id(text):
        similar = ontology.find(text, n=_N_SUGGESTIONS)
        near = (hit for hit in similar if hit.id not in found.ids and hit.score >= _MIN_SIMILARITY)
        hits = (*hits, *near)[:_N_SUGGESTIONS]
    return hits


def _suggestion(match: LabelMatch) -> str:
    if not match.candidates:
        return repr(match.query)
    shown = ", ".join(f"{hit.id} {hit.name}" for hit in match.candidates[:3])
    return f"{match.query!r} ({shown})"
