"""Gene names of the variables of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from typing import Any


def names_of(var: Any, column: str | None) -> list[str]:
    """Return the gene names of a ``var`` table: its index, or a column with missing values as ""."""
    if column is None:
        return [str(name) for name in var.index]
    # a missing id is an unmatched gene, not a gene called "nan"
    return ["" if pd.isna(name) else str(name) for name in np.asarray(var[column])]
