"""Preprocessing: match genes, tokenize counts, map cell types."""

from __future__ import annotations

from ._match_genes import match_genes
from ._tokenize import tokenize

__all__ = ["match_genes", "tokenize"]
