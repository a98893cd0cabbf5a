"""Scores of embeddings, annotations and predicted drug responses: arrays in, floats out."""

from __future__ import annotations

from .classification import (
    AnnotationScore,
    accuracy_at,
    annotation_score,
    knn_vote,
    term_auroc,
)
from .confidence import Reliability, RiskCoverage, open_set_auroc, reliability, risk_coverage
from .embedding import ClusteringScore, IntegrationScore, clustering_score, integration_score
from .ontology_aware import OntologyScore, ontology_score
from .ontology_structure import OntologyStructureScore, scgraph_onto_rwr
from .regression import ResponseScore, drug_correlations, response_score

__all__ = [
    "AnnotationScore",
    "ClusteringScore",
    "IntegrationScore",
    "OntologyScore",
    "OntologyStructureScore",
    "Reliability",
    "ResponseScore",
    "RiskCoverage",
    "accuracy_at",
    "annotation_score",
    "clustering_score",
    "drug_correlations",
    "integration_score",
    "knn_vote",
    "ontology_score",
    "open_set_auroc",
    "reliability",
    "response_score",
    "risk_coverage",
    "scgraph_onto_rwr",
    "term_auroc",
]
