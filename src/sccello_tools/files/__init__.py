"""Embeddings of files too large for one AnnData, by several processes."""

from __future__ import annotations

from .embedding import embed_files
from .reader import EmbeddedCells, open_embedded

__all__ = ["EmbeddedCells", "embed_files", "open_embedded"]
