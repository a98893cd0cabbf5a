"""The Cell Ontology: graph, semantic similarity of terms, mapping of labels to terms. No torch, no AnnData."""

from __future__ import annotations

from .consensus import Consensus, consensus_term
from .graph import CellOntology, published_labels
from .labels.match import LabelMatch, LabelReport, match_label, match_labels
from .labels.uninformative import is_uninformative
from .search import TermHit
from .similarity import RankedRows, ancestor_mask, pagerank_rows, similarity_levels, spearman_matrix

__all__ = [
    "CellOntology",
    "Consensus",
    "LabelMatch",
    "LabelReport",
    "RankedRows",
    "TermHit",
    "ancestor_mask",
    "consensus_term",
    "is_uninformative",
    "match_label",
    "match_labels",
    "pagerank_rows",
    "published_labels",
    "similarity_levels",
    "spearman_matrix",
]
