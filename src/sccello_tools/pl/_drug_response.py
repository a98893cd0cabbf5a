"""Predicted drug response: drugs by groups, one drug from the most to the least sensitive, predicted against measured."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools.errors import ArgumentError, DrugError, NotFoundError
from sccello_tools.get import drug_response_df

from ._drug_panels import heatmap, measured, waterfall
from ._figures import finish

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEASURED = ["drug", "measured", "predicted"]


def drug_response(
    source: AnnData | pd.DataFrame,
    drug: str | None = None,
    *,
    kind: Literal["auto", "heatmap", "waterfall", "measured"] = "auto",
    key: str = _keys.DRUG_RESPONSE,
    color: str | None = None,
    n_drugs: int = 30,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool | None = None,
) -> Figure | None:
    """Draw predicted drug response.

    Parameters
    ----------
    source
        Annotated data after :func:`sccello_tools.tl.drug_response`; or the table ``held_out`` of a trained model, to see predicted
        against measured.
    drug
        One drug: for a waterfall, or to show its pairs only.
    kind
        ``"heatmap"``: drugs by groups, as the difference from each drug's mean over the groups. ``"waterfall"``: groups or cells from the
        most to the least sensitive to ``drug``. ``"measured"``: predicted against measured. ``"auto"`` is what ``source`` and ``drug``
        allow.
    key
        What the prediction was written under.
    color
        Column of ``adata.obs`` that colours the cells of a waterfall.
    n_drugs
        Drugs of a heat map: those whose predictions differ most between groups.
    ax
        Where to draw; a figure of its own if not given.
    show
        Show the figure; by default only if it is not saved and ``ax`` is not given.
    save
        File to write the figure to; the ending decides the format.
    return_fig
        Return the figure; by default only if it is not shown.

    Returns
    -------
    The figure, or ``None`` if it was shown. Nothing is written to ``source``.

    Raises
    ------
    NotFoundError
        If there is no prediction, or no column ``color``.
    DrugError
        If ``drug`` is missing or unknown.
    ArgumentError
        If ``kind`` does not fit ``source``.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.drug_response(adata, groupby="cell_type")
    >>> figure = sccello.pl.drug_response(adata, show=False)
    >>> figure = sccello.pl.drug_response(adata, "Bortezomib", show=False)
    """
    done = partial(finish, show=show, save=save, return_fig=return_fig, own=ax is None)
    kinds = ("auto", "heatmap", "waterfall", "measured")
    if kind not in kinds:
        msg = f"kind is {kind!r}; expected is one of {kinds}"
        raise ArgumentError(msg)
    if isinstance(source, pd.DataFrame):
        if missing := [name for name in _MEASURED if name not in source]:
            msg = f"The table has no column {missing[0]!r} (columns: {[str(c) for c in source.columns[:5]]}). Expected is model.held_out, as tl.train_drug_response(data, split=...) makes it."
            raise NotFoundError(msg)
        if kind not in {"auto", "measured"}:
            msg = f"kind is {kind!r}, but a table of held-out pairs can only be drawn as 'measured'"
            raise ArgumentError(msg)
        table = source if drug is None else source[source["drug"] == drug]
        if not len(table):
            raise DrugError(_no_drug(str(drug), source["drug"].unique().tolist()))
        return done(measured(table, drug, ax))
    if kind == "measured":
        msg = "kind='measured' needs measured responses: pass model.held_out, as tl.train_drug_response(data, split=...) makes it"
        raise ArgumentError(msg)
    if kind == "waterfall" or (kind == "auto" and drug is not None):
        values, std, label = _of_one_drug(source, drug, key)
        figure = waterfall(values, std, _colours_of(source, values, color), str(drug), label, ax)
        return done(figure)
    groups = drug_response_df(source, key=key)
    if len(groups) < 2:
        msg = f"A heat map compares groups, but there is only {len(groups)}. Name a drug for a waterfall."
        raise ArgumentError(msg)
    return done(heatmap(groups, n_drugs, ax))


def _of_one_drug(
    adata: AnnData, drug: str | None, key: str
) -> tuple[pd.Series[float], pd.Series[float], str]:
    """Predictions and standard deviations of groups, or of cells, and what they are of."""
    if "ln_ic50" in adata.uns.get(key, {}):
        mean, std = (drug_response_df(adata, key=key, std=s) for s in (False, True))
        label = str(mean.index.name)
    elif key in adata.obsm:
        mean, std = (cast(pd.DataFrame, adata.obsm[k]) for k in (key, key + _keys.STD_SUFFIX))
        label = "cells"
    else:
        msg = f"adata holds no drug response under {key!r}. Call tl.drug_response(adata) first."
        raise NotFoundError(msg)
    if drug is None or drug not in mean:
        raise DrugError(_no_drug(drug, [str(name) for name in mean.columns]))
    kept = np.isfinite(mean[drug])
    if not kept.any():
        msg = f"No group or cell has a prediction for {drug!r}: none of them has a count in the genes that the model reads."
        raise NotFoundError(msg)
    return mean.loc[kept, drug], std.loc[kept, drug], label


def _colours_of(
    adata: AnnData, values: pd.Series[float], color: str | None
) -> pd.Series[str] | None:
    if color is None:
        return None
    if color not in adata.obs:
        msg = f"adata.obs has no column {color!r} (columns: {list(adata.obs.columns)})."
        raise NotFoundError(msg)
    if not values.index.isin(adata.obs_names).all():
        msg = "color= colours cells, but the prediction is of groups. Leave it out, or call tl.drug_response(adata) without groupby."
        raise ArgumentError(msg)
    column = pd.Series(np.asarray(adata.obs[color], dtype=str), index=adata.obs_names)
    return column.loc[values.index]


def _no_drug(drug: str | None, there: list[str]) -> str:
    shown = ", ".join(repr(name) for name in there[:5])
    asked = "No drug is named" if drug is None else f"There is no prediction for {drug!r}"
    return f"{asked}; there are {len(there)} drugs: {shown}{', ...' if len(there) > 5 else ''}."
