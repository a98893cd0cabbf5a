"""Predict the response of cells, or of groups of cells, to drugs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import __version__, _keys
from sccello_tools._anndata.counts import CountsSource, warn_user
from sccello_tools._anndata.groups import group_labels
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._progress import progress_bar
from sccello_tools.errors import ArgumentError, GroupError

from ._drug_profiles import CountsOfGenes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.drug import DrugResponseModel
    from sccello_tools.drug.ensemble import Responses
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def drug_response(
    adata: AnnData,
    *,
    model: str | Path | DrugResponseModel = "gdsc-small",
    groupby: str | None = None,
    center: bool = False,
    drugs: Sequence[str] | Mapping[str, str] | None = None,
    key_added: str = _keys.DRUG_RESPONSE,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    copy: bool = False,
) -> AnnData | None:
    """Predict how cells, or groups of cells, respond to drugs: ln IC50 in µM, lower is more sensitive.

    The model learned from bulk expression of cancer cell lines. Counts are brought to that footing by the logarithm of counts per
    million, standardised within the cell or group. A single cell holds few counts: prefer groups (``groupby``), whose counts are summed.
    Healthy cells are unlike anything that the model saw. Read the model's card first, and compare cells within a drug rather than drugs.

    Parameters
    ----------
    adata
        %(adata)s
    model
        What :func:`train_drug_response` returned, the folder it wrote, or a name: ``"gdsc-small"`` ships, trained on GDSC2.
    groupby
        Column of ``adata.obs``: one answer for the summed counts of each group, instead of one for each cell.
    center
        With ``groupby``: move the mean of the groups, gene by gene, to the mean of the training lines, which takes away what the
        technique does to all groups alike. The answer for a group then depends on the other groups: they should be several, and of kinds
        as different as cancers are. On five lung cancer lines it turned an order at chance into one as good as from bulk expression.
    drugs
        Names of drugs that the model knows, in any way of writing them; or a mapping of names to SMILES for new drugs, which needs
        rdkit and is far less sure. All known drugs if not given.
    key_added
        Key of ``adata.obsm`` and ``adata.uns`` to write.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written without ``groupby``:

    `adata.obsm[key_added]` : DataFrame of float32, shape (n_obs, n_drugs)
        Predicted ln IC50 (µM); NaN for cells without any gene that the model reads.
    `adata.obsm[key_added + "_std"]` : DataFrame of float32, shape (n_obs, n_drugs)
        Standard deviation over the networks of the ensemble.
    `adata.uns[key_added]` : dict
        Model, hash of its weights, unit, versions.

    With ``groupby``, ``obsm`` stays as it is, and `adata.uns[key_added]` also holds ``groups`` and ``drugs`` (names), ``ln_ic50`` and ``std``
    (float32, shape (n_groups, n_drugs)) and ``n_cells``; :func:`sccello_tools.get.drug_response_df` makes a table of them.

    Raises
    ------
    DrugError
        If a drug is unknown to the model, or rdkit refuses a SMILES.
    WeightsError
        If the model is no drug response model, or the encoder it needs has changed.
    GroupError
        If ``groupby`` is no column, numeric or incomplete, or names one group and ``center`` is asked for.
    ArgumentError
        If ``center`` is asked for without ``groupby``.
    NotCountsError, GeneMatchError
        If the matrix does not hold raw counts of human genes.
    MissingExtraError
        If new drugs are given and rdkit is not installed: it comes with the extra ``drug``.

    Notes
    -----
    arXiv 2408.12373, section 4.5, for bulk cell lines; pseudobulk of single cells is this package's.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    >>> sccello.tl.drug_response(adata, drugs=["Erlotinib", "Gefitinib"])
    >>> adata.obsm["sccello_drug_response"].shape
    (40, 2)
    >>> sccello.tl.drug_response(adata, groupby="cell_type", key_added="by_type")
    >>> sccello.get.drug_response_df(adata, key="by_type").shape[1]
    228
    """
    check_writable(adata, copy=copy)
    if center and groupby is None:
        msg = "center=True compares groups, but groupby is not given. Name a column of adata.obs in groupby=, or leave center out."
        raise ArgumentError(msg)
    loaded = _drug_model(model)
    loaded.ensemble.resolve(drugs)  # refuse what cannot be answered before any work
    reader = CountsOfGenes(adata, loaded, CountsSource(layer, gene_ids, counts, min_matched))
    info = loaded.info() | {
        "layer": "X" if layer is None else layer,
        "groupby": groupby or "",
        "center": center,
        "sccello_tools_version": __version__,
    }
    if groupby is not None:
        labels = group_labels(adata, groupby)
        total = reader.by_group(labels.codes, len(labels.categories))
        if center and len(total) < 2:
            msg = f"adata.obs[{groupby!r}] names {len(total)} group, and center=True needs at least 2. Leave it out, or name a finer column."
            raise GroupError(msg)
        found = _predict(loaded, reader, total, drugs, center=center)
        info |= {
            "groups": np.array([str(name) for name in labels.categories], dtype=object),
            "drugs": np.array(found.drugs, dtype=object),
            "ln_ic50": found.mean,
            "std": found.spread,
            "n_cells": np.bincount(labels.codes, minlength=len(labels.categories)),
        }
        _warn_of_nan(found.mean, f"groups of {groupby!r}")
        with writing(adata, copy=copy) as target:
            target.uns[key_added] = info
        log_written("drug_response", f".uns[{key_added!r}]")
        return target if copy else None

    parts = []
    with progress_bar("predicting drug response", adata.n_obs) as advance:
        for _, values in reader:
            parts.append(_predict(loaded, reader, values, drugs))
            advance(len(values))
    if not parts:
        parts = [_predict(loaded, reader, np.zeros((0, len(reader.own_genes))), drugs)]
    mean, spread = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "spread")
    )
    _warn_of_nan(mean, "cells")
    std_key = key_added + _keys.STD_SUFFIX
    with writing(adata, copy=copy) as target:
        for key, values in ((key_added, mean), (std_key, spread)):
            target.obsm[key] = pd.DataFrame(
                values, index=target.obs_names, columns=list(parts[0].drugs)
            )
        target.uns[key_added] = info
    log_written(
        "drug_response", f".obsm[{key_added!r}]", f".obsm[{std_key!r}]", f".uns[{key_added!r}]"
    )
    return target if copy else None


def _drug_model(model: str | Path | DrugResponseModel) -> DrugResponseModel:
    from sccello_tools.drug import DrugResponseModel, load

    return model if isinstance(model, DrugResponseModel) else load(model)


def _predict(
    model: DrugResponseModel,
    reader: CountsOfGenes,
    counts: NDArray[np.float64],
    drugs: Sequence[str] | Mapping[str, str] | None,
    *,
    center: bool = False,
) -> Responses:
    from sccello_tools.drug.profiles import profiles_of_counts

    mean = model.ensemble.lines.mean
    profiles = profiles_of_counts(counts, reader.own_genes, mean)
    if center:
        # ranks of a difference from the mean have nothing to say of genes without a count
        usable = np.isfinite(profiles).all(axis=1)
        return model.predict_profiles(profiles - profiles[usable].mean(axis=0) + mean, drugs)
    absent = np.ones(profiles.shape, dtype=bool)
    absent[:, reader.own_genes] = counts <= 0
    return model.predict_profiles(profiles, drugs, absent=absent)


def _warn_of_nan(mean: NDArray[np.float32], what: str) -> None:
    if n_empty := int(np.isnan(mean).any(axis=1).sum()):
        warn_user(
            f"{n_empty:,} of {len(mean):,} {what} have no count in any gene that the drug response model reads. Their predictions are NaN."
        )
