"""Tools: embed cells, pretrain a model."""

from __future__ import annotations

from ._embed import embed
from ._gene_embeddings import gene_embeddings
from ._marker_genes import marker_genes
from ._pretrain import pretrain

__all__ = ["embed", "gene_embeddings", "marker_genes", "pretrain"]
