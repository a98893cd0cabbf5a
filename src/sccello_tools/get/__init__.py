"""Results as tidy tables."""

from __future__ import annotations

from ._annotation_df import annotation_df
from ._drug_response_df import drug_response_df
from ._marker_genes_df import marker_genes_df
from ._neighbors import neighbor_fractions, neighbors_df
from ._perturbation_df import perturbation_df

__all__ = [
    "annotation_df",
    "drug_response_df",
    "marker_genes_df",
    "neighbor_fractions",
    "neighbors_df",
    "perturbation_df",
]
