"""Tools: embed and annotate cells, find marker genes, pretrain a model."""

from __future__ import annotations

from ._add_types import add_types
from ._annotate import annotate
from ._annotate_novel import annotate_novel
from ._build_reference import build_reference
from ._calibrate import calibrate
from ._consensus import consensus
from ._drug_response import drug_response
from ._embed import embed
from ._enrich_go import enrich_go
from ._finetune import finetune
from ._gene_embeddings import gene_embeddings
from ._marker_genes import marker_genes
from ._perturb import perturb
from ._predict import predict
from ._pretrain import pretrain
from ._score_markers import score_markers
from ._search import search
from ._train_drug_response import train_drug_response

__all__ = [
    "add_types",
    "annotate",
    "annotate_novel",
    "build_reference",
    "calibrate",
    "consensus",
    "drug_response",
    "embed",
    "enrich_go",
    "finetune",
    "gene_embeddings",
    "marker_genes",
    "perturb",
    "predict",
    "pretrain",
    "score_markers",
    "search",
    "train_drug_response",
]
