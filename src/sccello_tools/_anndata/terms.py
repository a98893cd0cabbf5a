"""A column of cell types, with the Cell Ontology term of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools.errors import GroupError
from sccello_tools.ontology import match_label

from .columns import obs_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


class TypeColumn(NamedTuple):
    """Categories of a column, in its order."""

    names: tuple[str, ...]
    terms: tuple[str, ...]
    """Cell Ontology id of each; "" where a name fits none."""
    codes: NDArray[np.intp]
    """(n_obs,) category of each cell, -1 where it is missing."""
    counts: NDArray[np.intp]
    """Cells of each category."""


def type_column(
    adata: AnnData, key: str, ontology: CellOntology, *, any_names: bool = False
) -> TypeColumn:
    """Read a column of cell types and find the term of each.

    Raises
    ------
    GroupError
        If the column is missing or numeric, or none of its names fits a term.
    """
    if key not in adata.obs:
        msg = (
            f"adata.obs has no column {key!r} (columns: {list(adata.obs.columns)}). Call tl.annotate_novel(adata) first, or name a "
            "column of cell types."
        )
        raise GroupError(msg)
    values = obs_column(adata, key)
    if pd.api.types.is_numeric_dtype(values):
        msg = f"adata.obs[{key!r}] is numeric ({values.dtype}); expected is a column of cell types."
        raise GroupError(msg)
    column = values.astype("category").cat
    names = tuple(str(name) for name in column.categories)
    codes = np.asarray(column.codes, dtype=np.intp)
    given = (
        pd.Series(obs_column(adata, id_key), dtype=object)
        if (id_key := key + _keys.TERM_ID_SUFFIX) in adata.obs
        else None
    )
    terms = []
    for code, name in enumerate(names):
        ids = [] if given is None else given[codes == code].dropna().astype(str).unique().tolist()
        if len(ids) == 1 and ids[0] in ontology:
            terms.append(ontology.current(ids[0]))
        else:
            is_id = name in ontology or name.startswith("CL:")
            terms.append(ontology.current(name) if is_id else match_label(name, ontology).id)
    if names and not any(terms) and not any_names:
        msg = (
            f"None of the {len(names)} names in adata.obs[{key!r}] is a Cell Ontology term ({', '.join(map(repr, names[:5]))}). "
            "Map them with pp.map_cell_types first."
        )
        raise GroupError(msg)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return TypeColumn(names, tuple(terms), codes, counts)
