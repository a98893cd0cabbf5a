"""Scores of embeddings and annotations: arrays in, floats out."""

from __future__ import annotations

from .classification import AnnotationScore, annotation_score, knn_vote
from .clustering import ClusteringScore, clustering_score

__all__ = ["AnnotationScore", "ClusteringScore", "annotation_score", "clustering_score", "knn_vote"]
