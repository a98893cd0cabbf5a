"""Plots with matplotlib. Arguments have the meaning that they have in scanpy."""

from __future__ import annotations

from ._compare_embeddings import compare_embeddings
from ._confidence import confidence
from ._confusion import confusion
from ._consensus import consensus
from ._drug_response import drug_response
from ._embedding_quality import embedding_quality
from ._evidence import evidence
from ._go_enrichment import go_enrichment
from ._marker_genes import marker_genes
from ._novelty import novelty
from ._ontology_tree import ontology_tree
from ._ontology_umap import ontology_umap
from ._perturbation import perturbation
from ._training import training

__all__ = [
    "compare_embeddings",
    "confidence",
    "confusion",
    "consensus",
    "drug_response",
    "embedding_quality",
    "evidence",
    "go_enrichment",
    "marker_genes",
    "novelty",
    "ontology_tree",
    "ontology_umap",
    "perturbation",
    "training",
]
