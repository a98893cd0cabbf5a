"""Predict the response of cells, or of groups of cells, to drugs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource, not_counts, warn_user
from sccello_tools._anndata.groups import group_labels
from sccello_tools._anndata.writing import check_writable, storable_names, write_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._progress import progress_bar
from sccello_tools.errors import (
    ArgumentError,
    DrugError,
    GroupError,
    NotCountsError,
)
from sccello_tools.tokens import ValueSummary, row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.drug import DrugResponseModel
    from sccello_tools.drug.ensemble import Responses
    from sccello_tools.tokens.counts import CountsPolicy

_ROWS = 512  # cells at a time, whose genes are stored densely


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
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    r"""Predict the response of cells, or groups of cells, to drugs: ln IC50 in µM, lower means more sensitive.

    The model was trained on bulk expression of cancer cell lines. Counts are transformed accordingly: for gene :math:`g` of a cell or
    group with counts :math:`x`,

    .. math:: p_g = \frac{\ell_g - \bar\ell}{\mathrm{sd}(\ell)}, \qquad \ell_g = \log\left(1 + 10^6 \frac{x_g}{\sum_h x_h}\right).

    A single cell has few counts, so prefer groups (``groupby``), whose counts are summed. Healthy cells are unlike the training data.
    Read the model card first, and compare cells within a drug rather than drugs.

    Parameters
    ----------
    adata
        %(adata)s
    model
        Result of :func:`train_drug_response`, a folder, or a name. ``"gdsc-small"``, trained on GDSC2, is shipped with the package.
    groupby
        Column of ``adata.obs``: predict for the summed counts of each group instead of for each cell.
    center
        With ``groupby``: shift the mean profile of the groups to the mean of the training lines, which removes technical effects that
        are shared by all groups. The prediction of a group then depends on the other groups, which should be several and as different
        as cancers are. For five lung cancer lines it increased the mean Spearman correlation with the measured order of lines from
        0.06 to 0.14 (0.27 from bulk expression).
    drugs
        Names of drugs of the model in any spelling, or a mapping of names to SMILES for new drugs, which requires rdkit and is much
        less accurate. By default all drugs of the model.
    key_added
        Key of ``adata.obsm`` and ``adata.uns``.
    %(counts_source)s
    device
        %(device)s
        It concerns the encoder of a model loaded by name or folder; the small networks of drug response run on the CPU.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the AnnData with ``copy=True``. Fields written without ``groupby``:

    `adata.obsm[key_added]` : DataFrame of float32, shape (n_obs, n_drugs)
        Predicted ln IC50 (µM); NaN for cells without counts in the genes of the model.
    `adata.obsm[key_added + "_std"]` : DataFrame of float32, shape (n_obs, n_drugs)
        Standard deviation over the networks of the ensemble.
    `adata.uns[key_added]` : dict
        Model, sha256 of its weights, unit, versions.

    With ``groupby``, `adata.uns[key_added]` also has ``groups`` and ``drugs`` (names), ``ln_ic50`` and ``std`` (float32, shape
    (n_groups, n_drugs)) and ``n_cells``; :func:`sccello_tools.get.drug_response_df` returns them as a table.

    Raises
    ------
    DrugError
        If a drug is unknown to the model, or a SMILES is missing or invalid.
    WeightsError
        If the model is not a drug response model, or its encoder has changed.
    GroupError
        If ``groupby`` is not a column, numeric or incomplete, or has one group and ``center=True``.
    ArgumentError
        If ``center=True`` without ``groupby``.
    NotCountsError, GeneMatchError
        If the matrix does not contain raw counts of human genes.
    MissingExtraError
        If new drugs are passed and rdkit is not installed.

    Notes
    -----
    DeepCDR (Liu et al., Bioinformatics 36:i911, 2020) with scCello embeddings, as in arXiv 2408.12373 for bulk cell lines; the
    application to single cells and groups is specific to this package.

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
    check_writable(adata, copy=copy, key_added=key_added)
    if center and groupby is None:
        msg = "center=True requires groups. Pass a column of adata.obs as groupby=, or omit center."
        raise ArgumentError(msg)
    loaded = _drug_model(model, device)
    known, new = loaded.ensemble.resolve(drugs)  # reject unknown drugs before the computation
    names = list(new) or [loaded.drugs[i] for i in known]
    stored = storable_names(names, what="drugs", error=DrugError)
    reader = _ModelGeneCounts(adata, loaded, CountsSource(layer, gene_ids, counts, min_matched))
    info = loaded.info() | {
        "layer": "X" if layer is None else layer,
        "groupby": groupby or "",
        "center": center,
    }
    if groupby is not None:
        labels = group_labels(adata, groupby)
        total = reader.by_group(labels.codes, len(labels.categories))
        if center and len(total) < 2:
            msg = f"center=True requires at least 2 groups; adata.obs[{groupby!r}] has {len(total)}. Omit it, or pass another column."
            raise GroupError(msg)
        found = _predict(loaded, reader, total, drugs, center=center)
        info |= {
            "groups": np.array([str(name) for name in labels.categories], dtype=object),
            "drugs": np.array(stored, dtype=object),
            "ln_ic50": found.mean,
            "std": found.std,
            "n_cells": np.bincount(labels.codes, minlength=len(labels.categories)),
        }
        _warn_of_nan(found.mean, f"groups of {groupby!r}")
        with writing(adata, copy=copy) as target:
            slots = write_slots(target, key_added, info)
        log_written("drug_response", *slots)
        return target if copy else None

    parts = []
    with progress_bar("predicting drug response", adata.n_obs) as advance:
        for _, values in reader:
            parts.append(_predict(loaded, reader, values, drugs))
            advance(len(values))
    if not parts:
        parts = [_predict(loaded, reader, np.zeros((0, len(reader.model_genes))), drugs)]
    mean = np.concatenate([part.mean for part in parts])
    _warn_of_nan(mean, "cells")
    std_key = key_added + _keys.STD_SUFFIX
    arrays = {key_added: mean, std_key: np.concatenate([part.std for part in parts])}
    tables = {
        key: pd.DataFrame(values, index=adata.obs_names, columns=stored)
        for key, values in arrays.items()
    }
    with writing(adata, copy=copy) as target:
        slots = write_slots(target, key_added, info, obsm=tables)
    log_written("drug_response", *slots)
    return target if copy else None


class _Chunk(NamedTuple):
    """Counts of consecutive cells."""

    start: int
    """Index of the first cell."""
    counts: NDArray[np.float64]
    """(n_cells, n_shared) counts of the genes shared by model and data."""


class _ModelGeneCounts:
    """Iterates over the counts of the genes of a drug response model, and checks that they are raw counts.

    Raises
    ------
    NotCountsError
        During iteration, at the first value that is not a count.
    GeneMatchError
        If too few genes match the vocabulary or the model.
    """

    def __init__(self, adata: AnnData, model: DrugResponseModel, source: CountsSource) -> None:
        self._adata, self._source = adata, source
        self._matrix = source.matrix(adata)
        ids = source.gene_match(adata).gene_ids.tolist()
        matched = [gene for gene in ids if gene]
        shared, self.model_genes = model.gene_columns(matched)
        position = {matched[i]: k for k, i in enumerate(shared.tolist())}
        pairs = [(column, position[gene]) for column, gene in enumerate(ids) if gene in position]
        # several columns of one gene are summed, as in tokens
        rows, columns = np.array(pairs, dtype=np.intp).T
        self._gather = sparse.csr_array(
            (np.ones(len(pairs)), (rows, columns)), shape=(len(ids), len(shared))
        )

    def __iter__(self) -> Iterator[_Chunk]:
        summary = ValueSummary()
        for chunk in row_chunks(self._matrix, n_rows=_ROWS):
            summary.add(chunk.rows.data)
            if complaint := summary.complaint(self._source.counts):
                trust_helps = not summary.complaint("trust")
                raise NotCountsError(
                    not_counts(self._adata, self._source, complaint, trust_helps=trust_helps)
                )
            yield _Chunk(chunk.start, np.asarray((chunk.rows @ self._gather).todense()))
        if self._adata.n_obs and not summary.n_positive:
            raise NotCountsError(
                not_counts(self._adata, self._source, "all values are zero", trust_helps=False)
            )

    def by_group(self, codes: NDArray[np.integer], n_groups: int) -> NDArray[np.float64]:
        """Return the summed counts of each group, shape (n_groups, n_shared)."""
        total = np.zeros((n_groups, len(self.model_genes)))
        for start, counts in self:
            np.add.at(total, codes[start : start + len(counts)], counts)
        return total


def _drug_model(model: str | Path | DrugResponseModel, device: str) -> DrugResponseModel:
    from sccello_tools.drug import DrugResponseModel, load

    return model if isinstance(model, DrugResponseModel) else load(model, device=device)


def _predict(
    model: DrugResponseModel,
    reader: _ModelGeneCounts,
    counts: NDArray[np.float64],
    drugs: Sequence[str] | Mapping[str, str] | None,
    *,
    center: bool = False,
) -> Responses:
    from sccello_tools.drug.profiles import profiles_of_counts

    mean = model.ensemble.lines.mean
    profiles = profiles_of_counts(counts, reader.model_genes, mean)
    if center:
        # after centring, genes without counts have ranks like all others
        usable = np.isfinite(profiles).all(axis=1)
        return model.predict_profiles(profiles - profiles[usable].mean(axis=0) + mean, drugs)
    absent = np.ones(profiles.shape, dtype=bool)
    absent[:, reader.model_genes] = counts <= 0
    return model.predict_profiles(profiles, drugs, absent=absent)


def _warn_of_nan(mean: NDArray[np.float32], what: str) -> None:
    if n_empty := int(np.isnan(mean).any(axis=1).sum()):
        warn_user(
            f"{n_empty:,} of {len(mean):,} {what} have no counts in the genes of the drug response model. Their predictions are NaN."
        )
