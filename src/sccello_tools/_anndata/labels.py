"""Label columns: text of each label, labels that do not name a cell type, donors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._logging import logger
from sccello_tools._messages import listed, quoted
from sccello_tools.errors import GroupError, LabelError
from sccello_tools.ontology import is_uninformative

from .columns import as_text, require_obs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray


_FEW = 5  # cells of a label


class InformativeLabels(NamedTuple):
    """Labels of cells without those that do not name a cell type."""

    texts: NDArray[np.object_]
    """Label of each cell, "" if missing or uninformative, shape (n_cells,)."""
    n_missing: int
    """Cells without a label."""
    uninformative: Mapping[str, int]
    """Number of cells of each uninformative label, most frequent first."""

    @property
    def n_excluded(self) -> int:
        """Cells without a usable label."""
        return self.n_missing + sum(self.uninformative.values())

    def report(self, key: str) -> str:
        """Return a sentence about the excluded cells for a warning; "" if there are none.

        Parameters
        ----------
        key
            Column of ``obs``.
        """
        parts = []
        if self.n_missing:
            parts.append(f"{self.n_missing:,} have no label")
        if self.uninformative:
            shown = [f"{label!r} ({n:,})" for label, n in self.uninformative.items()]
            n = sum(self.uninformative.values())
            parts.append(f"{n:,} have a label that does not name a cell type: {listed(shown)}")
        if not parts:
            return ""
        return (
            f"{self.n_excluded:,} of {len(self.texts):,} cells in adata.obs[{key!r}] are excluded: "
            + "; ".join(parts)
        )


def informative_labels(values: pd.Series) -> InformativeLabels:
    """Read labels as text and blank those that do not name a cell type ("unknown", "nan", "doublet", CL:0000000, ...).

    Parameters
    ----------
    values
        Column of labels of any type, such as ``require_obs`` returns it.
    """
    texts = as_text(values)
    codes, distinct = pd.factorize(texts)
    dropped = np.array([is_uninformative(label) for label in distinct], dtype=bool)
    counts = np.bincount(codes, minlength=len(distinct))
    n_missing = sum(int(n) for label, n in zip(distinct, counts) if not label)
    found = {str(label): int(n) for label, n, drop in zip(distinct, counts, dropped) if drop and label}  # fmt: skip
    kept = np.where(dropped, "", distinct) if len(distinct) else distinct
    ordered = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return InformativeLabels(
        np.asarray(kept, dtype=object)[codes] if len(texts) else texts, n_missing, ordered
    )


class LabelColumn(NamedTuple):
    """Labels of all cells."""

    names: tuple[str, ...]
    """Labels in use, sorted."""
    codes: NDArray[np.intp]
    """Label of each cell, -1 where it is missing or uninformative, shape (n_obs,)."""
    excluded: str = ""
    """Sentence about the cells without a usable label; "" if there are none."""


def label_column(adata: AnnData, key: str) -> LabelColumn:
    """Read a column of labels without those that do not name a cell type.

    Raises
    ------
    LabelError
        If the column does not exist, is empty, or holds numbers that are not categories.
    """
    values = require_obs(adata, key, argument="label_key", error=LabelError)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if not values.notna().any():
            msg = f"adata.obs[{key!r}] is empty: no cell has a label. Check label_key."
            raise LabelError(msg)
        msg = (
            f"adata.obs[{key!r}] holds numbers ({values.nunique():,} distinct values), and labels are names. "
            f"If each number is a label, make the column categorical: adata.obs[{key!r}] = adata.obs[{key!r}].astype('category')."
        )
        raise LabelError(msg)
    labels = informative_labels(values)
    names = sorted(set(labels.texts) - {""})
    code_of = {label: code for code, label in enumerate(names)} | {"": -1}
    codes = np.array([code_of[text] for text in labels.texts], dtype=np.intp)
    return LabelColumn(tuple(names), codes, labels.report(key))


def labels_in_use(
    column: LabelColumn, usable: NDArray[np.intp], key: str
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Return the labels of the cells that can be trained on, and each such cell's code among them.

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
        excluded = f" {column.excluded}." if column.excluded else ""
        msg = (
            f"Fine-tuning needs cells of at least two labels; adata.obs[{key!r}] has {list(names)} in {len(usable):,} usable cells."
            f"{excluded} Pass more cells, or check label_key."
        )
        raise LabelError(msg)
    if len(names) > len(usable) / 2:
        msg = (
            f"adata.obs[{key!r}] has {len(names):,} labels for {len(usable):,} usable cells ({quoted(names)}): fewer than two cells per "
            "label on average are too few to train on. Pass a column that groups cells as label_key, or merge labels."
        )
        raise LabelError(msg)
    if rare := [label for label, count in zip(names, counts) if count < _FEW]:
        logger.warning(
            "%d labels of %r have fewer than %d usable cells and will be predicted poorly: %s",
            len(rare),
            key,
            _FEW,
            listed(rare),
        )
    return names, codes.astype(np.intp)


def donor_column(adata: AnnData, key: str, labelled: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Read the donor of each cell.

    Raises
    ------
    GroupError
        If the column does not exist, or is missing for labelled cells.
    """
    values = require_obs(adata, key, argument="batch_key", remedy="Omit it if there is none.")
    texts = as_text(values)
    missing = (texts == "") & labelled
    if missing.any():
        msg = (
            f"adata.obs[{key!r}] is missing for {int(missing.sum()):,} of {int(labelled.sum()):,} labelled cells. "
            "Fill it in, or set the label of those cells to missing."
        )
        raise GroupError(msg)
    return np.asarray(texts, dtype=str)
