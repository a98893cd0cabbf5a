"""Annotations in the formats of public archives: CELLxGENE and the Cell Annotation Schema."""

from __future__ import annotations

from ._cell_annotation_schema import cell_annotation_schema
from ._cellxgene import cellxgene

__all__ = ["cell_annotation_schema", "cellxgene"]
