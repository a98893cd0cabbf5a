"""Collections of files: reading every supported type, and embedding files that are too large for one AnnData."""

from __future__ import annotations

from .embedding import embed_files
from .read import WRITABLE, read_any, write_any
from .reader import EmbeddedCells, open_embedded

__all__ = ["WRITABLE", "EmbeddedCells", "embed_files", "open_embedded", "read_any", "write_any"]
