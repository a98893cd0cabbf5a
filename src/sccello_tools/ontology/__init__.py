"""The Cell Ontology: its graph, likeness of its terms, and labels to terms. No torch, no AnnData."""

from __future__ import annotations

from .graph import CellOntology
from .label_space import published_labels
from .labels.match import LabelMatch, LabelReport, match_label, match_labels
from .labels.uninformative import is_uninformative
from .ranking import spearman_matrix
from .search import TermHit
from .similarity import ancestor_mask, pagerank_rows, similarity_levels

__all__ = [
    "CellOntology",
    "LabelMatch",
    "LabelReport",
    "TermHit",
    "ancestor_mask",
    "is_uninformative",
    "match_label",
    "match_labels",
    "pagerank_rows",
    "published_labels",
    "similarity_levels",
    "spearman_matrix",
]
