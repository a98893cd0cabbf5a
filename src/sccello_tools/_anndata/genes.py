"""Gene matches of an AnnData, shared by all functions that tokenize."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from anndata import AnnData

    from sccello_tools.tokens import GeneMatch


def gene_names(adata: AnnData, column: str | None) -> list[str]:
    """Return the gene names of all variables: a column of ``var``, or ``var_names``."""
    if column is None:
        return [str(name) for name in adata.var_names]
    if column not in adata.var:
        found = ", ".join(repr(name) for name in adata.var.columns) or "none"
        msg = f"adata.var has no column {column!r} (columns: {found}). Name one of them in gene_ids=, or leave it out to use var_names."
        raise GeneMatchError(msg)
    # a missing id is an unmatched gene, not a gene called "nan"
    return ["" if pd.isna(name) else str(name) for name in np.asarray(adata.var[column])]


def gene_match_of(adata: AnnData, *, gene_ids: str | None, min_matched: int) -> GeneMatch:
    """Match genes for a function that tokenizes, without writing: an earlier `match_genes` is honoured."""
    known = gene_ids is None and _keys.GENE_ID in adata.var
    if known:
        gene_ids = _keys.GENE_ID
    match = match_gene_names(gene_names(adata, gene_ids), min_matched=min_matched)
    if not known:  # match_genes has said it, by the names that the user knows
        logger.info(str(match))
    return match
