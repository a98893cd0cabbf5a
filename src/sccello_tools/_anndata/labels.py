"""A column of labels of a user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._logging import logger
from sccello_tools.errors import GroupError, LabelError

from .columns import obs_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


_FEW = 5  # cells of a label


class LabelColumn(NamedTuple):
    """Labels of all cells."""

    names: tuple[str, ...]
    codes: NDArray[np.intp]
    """(n_obs,) label of each cell, -1 where it is missing."""


def label_column(adata: AnnData, key: str) -> LabelColumn:
    """Read a column of labels.

    Raises
    ------
    LabelError
        If it is not there or holds numbers.
    """
    if key not in adata.obs:
        msg = f"adata.obs has no column {key!r} (columns: {list(adata.obs.columns)}). Name the column of labels in label_key=."
        raise LabelError(msg)
    values = obs_column(adata, key).astype(object).infer_objects()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if not values.notna().any():
            msg = f"adata.obs[{key!r}] is empty: no cell has a label. Check label_key."
            raise LabelError(msg)
        msg = (
            f"adata.obs[{key!r}] holds numbers ({values.nunique()} distinct), and labels are names. If each number is a label, pass a "
            f"column of texts: adata.obs[{key!r}].astype(str). A quantity cannot be fine-tuned to."
        )
        raise LabelError(msg)
    texts = ["" if pd.isna(value) else str(value).strip() for value in values]
    names = sorted(set(texts) - {""})
    place = {label: code for code, label in enumerate(names)} | {"": -1}
    return LabelColumn(tuple(names), np.array([place[text] for text in texts], dtype=np.intp))


def labels_in_use(
    column: LabelColumn, usable: NDArray[np.intp], key: str
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Return the labels of the cells that can train, and each such cell's code among them.

    Raises
    ------
    LabelError
        If there are fewer than two labels, or about as many as cells.
    """
    present, codes, counts = np.unique(
        column.codes[usable], return_inverse=True, return_counts=True
    )
    names = tuple(column.names[code] for code in present)
    if len(names) < 2:
        msg = f"Fine-tuning needs cells of at least two labels; adata.obs[{key!r}] has {list(names)} in {len(usable):,} usable cells. Pass more cells, or check label_key."
        raise LabelError(msg)
    if len(names) > len(usable) / 2:
        msg = (
            f"adata.obs[{key!r}] has {len(names):,} labels for {len(usable):,} usable cells ({', '.join(map(repr, names[:5]))}, …): less "
            "than two cells each are nothing to learn from. Name a column that groups cells, or merge labels."
        )
        raise LabelError(msg)
    if rare := [label for label, count in zip(names, counts) if count < _FEW]:
        logger.warning(
            "%d labels of %r have fewer than %d usable cells, of which little can be learnt: %s",
            len(rare),
            key,
            _FEW,
            ", ".join(rare[:5]),
        )
    return names, codes.astype(np.intp)


def donor_column(adata: AnnData, key: str, labelled: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Read the donor of each cell.

    Raises
    ------
    GroupError
        If the column is not there, or missing for labelled cells.
    """
    if key not in adata.obs:
        msg = f"adata.obs has no column {key!r} (columns: {list(adata.obs.columns)}). Name the column of donors, or leave batch_key out."
        raise GroupError(msg)
    values = obs_column(adata, key)
    missing = values.isna().to_numpy() & labelled
    if missing.any():
        msg = f"adata.obs[{key!r}] is missing for {int(missing.sum()):,} of {int(labelled.sum()):,} labelled cells. Fill it in, or set those cells' label to missing."
        raise GroupError(msg)
    return np.asarray(values.astype(str), dtype=str)
