"""Results in tidy form."""

from __future__ import annotations

from ._marker_genes_df import marker_genes_df

__all__ = ["marker_genes_df"]
