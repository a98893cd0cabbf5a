"""Which variables the genes of a model are, and which of them cells express."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools.errors import GeneMatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.tokens import GeneMatch


def first_columns(match: GeneMatch) -> NDArray[np.int64]:
    """First variable of each token, -1 where there is none, shape (vocabulary size,)."""
    from sccello_tools.tokens import VOCABULARY_SIZE

    columns = np.flatnonzero(match.tokens >= 0)[::-1]
    column_of_token = np.full(VOCABULARY_SIZE, -1, dtype=np.int64)
    column_of_token[match.tokens[columns]] = columns
    return column_of_token


def columns_of(
    genes: Sequence[str],
    adata: AnnData,
    match: GeneMatch,
    column_of_token: NDArray[np.int64],
) -> NDArray[np.int64]:
    names = [genes] if isinstance(genes, str) else list(genes)
    columns = pd.Index(adata.var_names).get_indexer_for(names)
    if unknown := [name for name, column in zip(names, columns) if column < 0]:
        msg = f"{len(unknown)} of {len(names)} genes are not in adata.var_names: {', '.join(unknown[:5])}. Name them as var_names does ({', '.join(adata.var_names[:3])}, …)."
        raise GeneMatchError(msg)
    if unmatched := [str(adata.var_names[c]) for c in columns if match.tokens[c] < 0]:
        msg = f"{len(unmatched)} of {len(names)} genes are not in the model's vocabulary: {', '.join(unmatched[:5])}. Leave them out; pp.match_genes tells which genes are known."
        raise GeneMatchError(msg)
    found = np.unique(column_of_token[match.tokens[columns]])
    if not len(found):
        msg = "genes is empty; expected are names of adata.var_names, or None for all genes."
        raise GeneMatchError(msg)
    return found


def check_expressed(
    asked: NDArray[np.int64] | None, columns: NDArray[np.int64], adata: AnnData, n_cells: int
) -> None:
    if asked is None:
        return
    absent = np.setdiff1d(asked, columns)
    if not len(absent):
        return
    named = ", ".join(str(name) for name in adata.var_names[absent[:5]])
    if len(absent) == len(asked):
        msg = (
            f"None of the {len(asked)} genes asked for ({named}) is among the tokens of the {n_cells} cells drawn, so that there is nothing "
            "to mask. Ask for genes that these cells express, raise n_cells_per_group, or raise max_length if cells are cut."
        )
        raise GeneMatchError(msg)
    warnings.warn(
        f"{len(absent)} of {len(asked)} genes are in none of the {n_cells} cells drawn and score 0: {named}.",
        UserWarning,
        stacklevel=3,
    )
