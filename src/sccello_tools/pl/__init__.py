"""Plots, on matplotlib, with scanpy's habits."""

from __future__ import annotations

from ._compare_embeddings import compare_embeddings

__all__ = ["compare_embeddings"]
