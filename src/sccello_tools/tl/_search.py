"""Nearest reference cells of each cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.columns import check_anndata, missing_column, obs_column
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.writing import check_writable, write_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written, logger
from sccello_tools._validation import check_at_least
from sccello_tools.errors import ArgumentError, ConfigError, GroupError, ModelNotFoundError

from ._hidden_states import hidden_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from anndata import AnnData

    from sccello_tools.annotation import Neighbors, Reference
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def search(
    adata: AnnData,
    reference: AnnData | Reference | str | Path,
    *,
    n_neighbors: int = 15,
    obs_keys: Sequence[str] | None = None,
    model: str | Path | LoadedModel | None = None,
    use_rep: str | None = None,
    key_added: str = _keys.NEIGHBORS,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    r"""Find the most similar reference cells of each cell.

    The distance is :math:`1 - \cos(h_i, h_j)`, with :math:`h` the last hidden state at ``<cls>``. Up to 50,000 cells per part of a
    reference are compared exactly, more by an approximate index whose results are ranked exactly.

    Parameters
    ----------
    adata
        %(adata)s
    reference
        Reference cells, which need no labels: an AnnData, the result of :func:`build_reference`, or the folder it was saved to. The
        embedding of an AnnData is written to ``reference.obsm["X_sccello"]`` if it is not there, from the same ``layer`` as that of
        the cells; if its counts are elsewhere, call :func:`embed` first.
    n_neighbors
        Number of neighbours.
    obs_keys
        Columns of ``reference.obs`` to report, such as donor and study. By default none of an AnnData, and all that a reference
        holds (``obs_keys`` of :func:`build_reference`).
    model
        %(model)s By default ``"sccello-small"``, or the model that the reference was built with.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` computed with this model.
    key_added
        Key of ``adata.uns``, and prefix of the keys of ``adata.obsm``.
    %(counts_source)s
    device
        %(device)s
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written:

    `adata.obsm[key_added + "_indices"]` : int64, shape (n_obs, n_neighbors)
        Row of each neighbour in the reference AnnData, nearest first; for references that were extended, in the concatenation of
        their AnnData objects. -1 for cells without counts.
    `adata.obsm[key_added + "_distances"]` : float32, shape (n_obs, n_neighbors)
        Cosine distances, NaN for cells without counts.
    `adata.uns[key_added]` : dict
        ``"cells"``, a table of the reference cells found (index, name, ``obs_keys``); model, hash of its weights, parameters.

    Raises
    ------
    ArgumentError
        If ``n_neighbors`` is less than 1, or no reference cell has counts.
    GroupError
        If one of ``obs_keys`` is not a column.
    ConfigError
        If the model is not the one that the reference was built with, or that one is not found.
    WeightsError
        If a folder does not contain a reference.

    See Also
    --------
    sccello_tools.get.neighbors_df : neighbours as a table.
    sccello_tools.get.neighbor_fractions : fraction of the neighbours per donor, study or label.
    sccello_tools.tl.annotate : transfers labels; with ``return_neighbors=True`` it writes the neighbours that vote.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> cells = sccello.datasets.pancreas_tritschler()
    >>> adata, reference = cells[:40].copy(), cells[40:160].copy()
    >>> sccello.tl.search(adata, reference, n_neighbors=5, obs_keys=["cell_type"])
    >>> adata.obsm["sccello_neighbors_indices"].shape
    (40, 5)
    >>> list(sccello.get.neighbors_df(adata).columns)
    ['obs_name', 'rank', 'index', 'cell', 'distance', 'cell_type']
    """
    from sccello_tools.annotation import Reference
    from sccello_tools.annotation.reference_parts import (
        NAME,
        ReferencePart,
        annotation_of,
        cell_table,
        search_parts,
    )

    check_writable(adata, copy=copy, key_added=key_added)
    check_at_least("n_neighbors", n_neighbors, 1)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    target = adata.copy() if copy else adata
    if isinstance(reference, (str, Path)):
        reference = Reference.load(reference)
    if isinstance(reference, Reference):
        parts = reference.parts
        built_with = model_of(reference, model)
    else:
        check_anndata(reference)
        columns = check_obs_keys(reference.obs.columns, obs_keys)
        built_with = "sccello-small" if model is None else model
        known = hidden_states(reference, built_with, source, use_rep=None, device=device)
        built_with = known.model
        table = cell_table(reference.obs_names, {c: obs_column(reference, c) for c in columns})
        parts = (ReferencePart.of(known.hidden, table=table),)
        if not len(parts[0]):
            msg = f"None of the {reference.n_obs:,} reference cells has counts. Pass cells with counts in reference=."
            raise ArgumentError(msg)
    states = hidden_states(target, built_with, source, use_rep=use_rep, device=device)
    if isinstance(reference, Reference):
        check_same_model(states.model, reference)
    neighbors = search_parts(parts, states.hidden, n_neighbors)
    cells = annotation_of(parts, neighbors.indices)
    if obs_keys is not None:
        cells = cells[[NAME, *check_obs_keys(cells.columns.drop(NAME), obs_keys)]]
    n_reference = sum(len(part) for part in parts)
    with writing(target, copy=False) as writable:
        record = {
            "model": states.model.name,
            "weights_sha256": states.model.sha256,
            "use_rep": states.key,
            "n_reference": n_reference,
        }
        written = write_neighbors(writable, neighbors, cells, record, key_added)
    log_written("search", *written)
    return target if copy else None


def check_obs_keys(available: Iterable[str], obs_keys: Sequence[str] | str | None) -> list[str]:
    """Return the requested columns of a reference; none if there is no request."""
    names = list(available)
    columns = [obs_keys] if isinstance(obs_keys, str) else list(dict.fromkeys(obs_keys or ()))
    for column in columns:
        if column not in names:
            hint = (
                "A built reference holds those that were passed to tl.build_reference as obs_keys=."
            )
            raise GroupError(missing_column("reference.obs", column, names, "obs_keys", hint))
    return columns


def model_of(
    reference: Reference, model: str | Path | LoadedModel | None
) -> str | Path | LoadedModel:
    """Return the requested model, by default the one that the reference was built with.

    Raises
    ------
    ConfigError
        If none is requested and that of the reference is not found under its name.
    """
    from sccello_tools.models.load import find_model

    if model is not None:
        return model
    try:
        find_model(reference.model)
    except ModelNotFoundError as error:
        msg = f"The reference was built with model {reference.model!r}, which is not found here. Pass its name or folder in model=."
        raise ConfigError(msg) from error
    return reference.model


def check_same_model(model: LoadedModel, reference: Reference) -> None:
    """Refuse embeddings that are not comparable with those of a reference."""
    if model.sha256 != reference.weights_sha256:
        msg = (
            f"The reference was built with model {reference.model!r} (weights {reference.weights_sha256[:12]}…), the cells are embedded by "
            f"{model.address!r} ({model.sha256[:12]}…). Pass the model of the reference in model=."
        )
        raise ConfigError(msg)


def write_neighbors(
    adata: AnnData,
    neighbors: Neighbors,
    cells: pd.DataFrame,
    record: dict[str, object],
    key: str,
) -> list[str]:
    """Write neighbours, and return the names of the slots.

    Parameters
    ----------
    adata
        Where to.
    neighbors
        Neighbours of all cells.
    cells
        Name and columns of the reference cells, by index.
    record
        Provenance.
    key
        Key of ``uns``.
    """
    table = cells.reset_index()
    table.index = table.index.astype(str)
    _log_fractions(neighbors, table)
    obsm = {
        key + _keys.INDICES_SUFFIX: neighbors.indices,
        key + _keys.DISTANCES_SUFFIX: neighbors.distances,
    }
    n_neighbors = int(neighbors.indices.shape[1])
    return write_slots(
        adata, key, {**record, "n_neighbors": n_neighbors, "cells": table}, obsm=obsm
    )


def _log_fractions(neighbors: Neighbors, table: pd.DataFrame) -> None:
    """Log how the neighbours are distributed over the values of each column."""
    found = neighbors.indices[neighbors.indices >= 0]
    if not len(found):
        return
    at = np.searchsorted(table["index"].to_numpy(), found)
    for column in table.columns[2:]:
        if table[column].dtype != "category":
            continue
        fractions = table[column].iloc[at].value_counts(normalize=True)
        shown = ", ".join(f"{name} {share:.0%}" for name, share in fractions[:5].items())
        logger.info(
            "neighbours by %s: %s%s", column, shown, ", ..." if (fractions > 0).sum() > 5 else ""
        )
