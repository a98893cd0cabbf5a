"""Every AnnData slot name that this package writes, in one place."""

from __future__ import annotations

from typing import Final

GENE_ID: Final = "sccello_gene_id"  # var: unversioned Ensembl id, "" if unmatched
N_TOKENS: Final = "sccello_n_tokens"  # obs: int32, tokens that the model sees, <cls> included
TRUNCATED: Final = "sccello_truncated"  # obs: bool, whether genes were cut off at max_length
EMBEDDING: Final = "X_sccello"  # obsm: float32 (n_obs, d); uns: its provenance
CELL_TYPE: Final = "sccello_cell_type"  # obs: category
CELL_TYPE_ID: Final = "sccello_cell_type_ontology_term_id"  # obs: category
