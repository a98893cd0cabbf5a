"""Consensus of several annotators' terms on the Cell Ontology."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools.errors import ArgumentError

from .labels.uninformative import is_uninformative

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .graph import CellOntology


class Consensus(NamedTuple):
    """Term that several votes agree on."""

    term: str
    """Cell Ontology id; "" if the votes only agree on a term that is true of every cell."""
    agreement: float
    """Fraction of the weight of the votes that supports the term; 0 without a term."""


def consensus_term(
    votes: Mapping[str, float], ontology: CellOntology, *, min_agreement: float = 0.5
) -> Consensus:
    """Return the deepest term that more than a fraction of the votes supports.

    A vote supports its term and all ancestors of it, so that a T cell and a B cell agree on "lymphocyte".
    With a fraction of at least one half, all supported terms have a common descendant among the votes. Among terms of equal depth,
    the one with more support is returned, then the one with the smaller id.

    Parameters
    ----------
    votes
        Weight by Cell Ontology id; ids must be current. Weights of 0 are ignored.
    ontology
        The ontology.
    min_agreement
        Fraction of the weight, in [0.5, 1), that must be exceeded.

    Returns
    -------
    The consensus; without a term if there are no votes, or if they only agree on a term such as "cell".

    Raises
    ------
    ArgumentError
        If ``min_agreement`` is not in [0.5, 1).
    LabelError
        If a term is unknown or obsolete.

    Examples
    --------
    >>> from sccello_tools.ontology import CellOntology, consensus_term
    >>> ontology = CellOntology.load()
    >>> t_cell, b_cell, monocyte = "CL:0000084", "CL:0000236", "CL:0000576"
    >>> consensus = consensus_term({t_cell: 1, b_cell: 1, monocyte: 1}, ontology)
    >>> ontology.name(consensus.term), round(consensus.agreement, 2)
    ('lymphocyte', 0.67)
    """
    check_min_agreement(min_agreement)
    total = sum(votes.values())
    if total <= 0:
        return Consensus("", 0.0)
    support: dict[str, float] = defaultdict(float)
    for term, weight in votes.items():
        if weight > 0:
            for ancestor in ontology.ancestors(term, include_self=True):
                support[ancestor] += weight
    # the tolerance keeps sums of equal weights, such as three times 1 / 3, from exceeding a half by rounding
    supported = [
        term for term, weight in support.items() if weight > min_agreement * total * (1 + 1e-9)
    ]
    informative = [term for term in supported if not is_uninformative(term)]
    if not informative:
        return Consensus("", 0.0)
    best = min(informative, key=lambda term: (-ontology.depth(term), -support[term], term))
    return Consensus(best, min(1.0, support[best] / total))


def check_min_agreement(min_agreement: float) -> None:
    """Raise an ArgumentError unless a fraction is in [0.5, 1)."""
    if not 0.5 <= min_agreement < 1:
        msg = f"min_agreement must be in [0.5, 1), got {min_agreement}"
        raise ArgumentError(msg)
