"""Gene names and feature types of the variables of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import feature_type_column, match_gene_names

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray


def names_of(var: Any, column: str | None) -> list[str]:
    """Return the gene names of a ``var`` table: its index, or a column with missing values as "". Bytes are decoded.

    Raises
    ------
    GeneMatchError
        If several columns have that name.
    """
    if column is None:
        return [_text(name) for name in var.index]
    values = _values(var, column)
    # a missing name is an unmatched gene, not a gene called "nan"
    return ["" if gone else _text(name) for name, gone in zip(values, pd.isna(values))]


def is_missing(var: Any, column: str) -> NDArray[np.bool_]:
    """Return where a column of ``var`` has no value, shape (n_vars,)."""
    return np.asarray(pd.isna(_values(var, column)), dtype=bool)


def feature_types_of(var: Any) -> NDArray[np.object_] | None:
    """Return the feature type of each variable, such as "Gene Expression"; None if ``var`` has no such column."""
    column = feature_type_column(var.columns)
    if column is None or isinstance(var[column], pd.DataFrame):
        return None
    found: NDArray[np.object_] = np.array(names_of(var, column), dtype=object)
    return found


def transposed_hint(adata: AnnData) -> str:
    """Return a sentence if the observations of an AnnData are genes, for the message about variables that are not; else ""."""
    names = [_text(name) for name in adata.obs_names]
    if names and match_gene_names(names, min_matched=0).n_matched > len(names) / 2:
        return " adata.obs_names are gene names: the matrix is transposed. Pass adata.T.copy()."
    return ""


def _values(var: Any, column: str) -> NDArray[Any]:
    found = var[column]
    if isinstance(found, pd.DataFrame):
        msg = f"adata.var has {found.shape[1]} columns named {column!r}. Rename all but one."
        raise GeneMatchError(msg)
    return np.asarray(found, dtype=object)


def _text(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
