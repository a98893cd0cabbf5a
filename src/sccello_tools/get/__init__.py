"""Results in tidy form."""

from __future__ import annotations

from ._drug_response_df import drug_response_df
from ._marker_genes_df import marker_genes_df

__all__ = ["drug_response_df", "marker_genes_df"]
