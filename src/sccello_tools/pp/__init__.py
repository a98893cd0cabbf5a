"""Preprocessing: match genes, tokenize counts, map cell types."""

from __future__ import annotations

from ._build_corpus import build_corpus
from ._map_cell_types import map_cell_types
from ._match_genes import match_genes
from ._tokenize import tokenize

__all__ = ["build_corpus", "map_cell_types", "match_genes", "tokenize"]
