"""Embeddings of files too large for one AnnData, by several processes."""

from __future__ import annotations

from ._embed_files import embed_files
from ._reader import EmbeddedCells, open_embedded

__all__ = ["EmbeddedCells", "embed_files", "open_embedded"]
