"""Predicted drug response of groups, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools.errors import NotFoundError

if TYPE_CHECKING:
    from anndata import AnnData


def drug_response_df(
    adata: AnnData, *, key: str = _keys.DRUG_RESPONSE, std: bool = False
) -> pd.DataFrame:
    """Return the drug response that :func:`sccello_tools.tl.drug_response` predicted for groups of cells.

    Parameters
    ----------
    adata
        Annotated data after ``tl.drug_response(adata, groupby=...)``.
    key
        ``key_added`` of the prediction.
    std
        Return the standard deviation over the ensemble instead of the mean.

    Returns
    -------
    DataFrame of shape (n_groups, n_drugs), float32: ln IC50 (µM).

    Raises
    ------
    NotFoundError
        If there is no prediction for groups under that key.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.drug_response(adata, groupby="cell_type", drugs=["Erlotinib"])
    >>> sccello.get.drug_response_df(adata).columns.tolist()
    ['Erlotinib']
    """
    found = adata.uns.get(key, {})
    if "ln_ic50" not in found:
        msg = f"adata.uns[{key!r}] contains no drug response of groups. Call tl.drug_response(adata, groupby=...) first; predictions for single cells are in adata.obsm[{key!r}]."
        raise NotFoundError(msg)
    values = np.asarray(found["std" if std else "ln_ic50"], dtype=np.float32)
    return pd.DataFrame(
        values,
        index=pd.Index([str(name) for name in found["groups"]], name=str(found["groupby"])),
        columns=[str(name) for name in found["drugs"]],
    )
