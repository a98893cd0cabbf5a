"""A column of cell types with the Cell Ontology term of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._messages import quoted
from sccello_tools.errors import GroupError
from sccello_tools.ontology import is_uninformative, match_label

from .columns import obs_column, require_obs
from .labels import InformativeLabels

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology


class TypeColumn(NamedTuple):
    """Categories of a column, in their order."""

    names: tuple[str, ...]
    terms: tuple[str, ...]
    """Cell Ontology id of each category; "" if its name matches none."""
    codes: NDArray[np.intp]
    """Category of each cell, -1 if missing, shape (n_obs,)."""
    counts: NDArray[np.intp]
    """Number of cells of each category."""
    excluded: str = ""
    """Sentence about the cells without a usable label, for a warning; "" if there are none or all labels are kept."""


def type_column(
    adata: AnnData,
    key: str,
    ontology: CellOntology,
    *,
    argument: str = "",
    any_names: bool = False,
    skip_uninformative: bool = False,
) -> TypeColumn:
    """Read a column of cell types and find the Cell Ontology term of each.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Column of ``obs``; ids are taken from ``key + "_ontology_term_id"`` if present.
    ontology
        The Cell Ontology.
    argument
        Name of the argument that the user passed, for messages.
    any_names
        Accept a column in which no name matches a term.
    skip_uninformative
        Treat labels that do not name a cell type ("unknown", "doublet", CL:0000000) as missing.

    Raises
    ------
    GroupError
        If the column is missing or numeric, or no name matches a term.
    """
    values = require_obs(
        adata,
        key,
        argument=argument,
        remedy="tl.annotate_novel writes a column of cell types.",
    )
    if pd.api.types.is_numeric_dtype(values):
        msg = f"adata.obs[{key!r}] is numeric ({values.dtype}), but a column of cell types is required. Pass another column."
        raise GroupError(msg)
    column = values.astype("category").cat
    names = tuple(str(name) for name in column.categories)
    codes = np.asarray(column.codes, dtype=np.intp)
    ids: NDArray[np.object_] | None = None
    if (id_key := key + _keys.TERM_ID_SUFFIX) in adata.obs:
        ids = np.asarray(obs_column(adata, id_key), dtype=object)
    terms = []
    for code, name in enumerate(names):
        found = [] if ids is None else pd.Series(ids[codes == code]).dropna().astype(str).unique().tolist()  # fmt: skip
        if len(found) == 1 and found[0] in ontology:
            terms.append(ontology.current(found[0]))
        else:
            is_id = name in ontology or name.startswith("CL:")
            terms.append(ontology.current(name) if is_id else match_label(name, ontology).id)
    if names and not any(terms) and not any_names:
        msg = (
            f"None of the {len(names)} names in adata.obs[{key!r}] is a Cell Ontology term ({quoted(names)}). "
            "Map them with pp.map_cell_types first."
        )
        raise GroupError(msg)
    excluded = ""
    if skip_uninformative:
        useless = [
            is_uninformative(name) or (bool(term) and is_uninformative(term))
            for name, term in zip(names, terms)
        ]
        kept = [i for i, out in enumerate(useless) if not out]
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        dropped = {name or " ": int(n) for name, n, out in zip(names, sizes, useless) if out and n}
        excluded = InformativeLabels(
            np.empty(adata.n_obs, dtype=object), int((codes < 0).sum()), dropped
        ).report(key)
        code_of = np.full(len(names) + 1, -1, dtype=np.intp)
        code_of[kept] = np.arange(len(kept))
        names, terms = tuple(names[i] for i in kept), [terms[i] for i in kept]
        codes = code_of[codes]
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return TypeColumn(names, tuple(terms), codes, counts, excluded)
