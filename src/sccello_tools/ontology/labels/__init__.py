"""Map free-text cell type labels to Cell Ontology terms."""

from __future__ import annotations

from .match import LabelMatch, LabelReport, match_label, match_labels

__all__ = ["LabelMatch", "LabelReport", "match_label", "match_labels"]
