"""Collections of files, on this machine or a dask cluster: reading every supported type, tokenizing, embedding, annotating."""

from __future__ import annotations

from .annotate import annotate_files
from .embed import embed_files
from .read import WRITABLE, read_any, write_any
from .results import AnnotatedFiles, EmbeddedCells, open_embedded

__all__ = [
    "WRITABLE",
    "AnnotatedFiles",
    "EmbeddedCells",
    "annotate_files",
    "embed_files",
    "open_embedded",
    "read_any",
    "write_any",
]
