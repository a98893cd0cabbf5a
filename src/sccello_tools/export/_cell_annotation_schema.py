"""Annotations as a document of the Cell Annotation Schema."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import __version__, _keys
from sccello_tools._anndata.columns import check_anndata
from sccello_tools.get import annotation_df

from .fields import CELL_ANNOTATION_SCHEMA, field_values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from anndata import AnnData

SCHEMA_VERSION: Final = "1.1.0"
"""Release of the Cell Annotation Schema that the document follows."""

_REPOSITORY: Final = "https://github.com/DeepGraphLearning/scCello"  # of the method


def cell_annotation_schema(
    adata: AnnData,
    values: Mapping[str, object] | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    include_cell_ids: bool = True,
    n_markers: int = 5,
) -> dict[str, Any]:
    """Return the annotation as a document of the Cell Annotation Schema, to be written as JSON and read by cas-tools.

    Each type that occurs is one annotated set of cells. Cells without an annotation belong to none.

    Parameters
    ----------
    adata
        Annotated data.
    values
        ``title`` and ``author_name`` (first and last name), both required; ``author_contact``, ``orcid``, ``description`` and
        ``reference_location`` (URL of the reference of an annotation by :func:`~sccello_tools.tl.annotate`) are optional. ``title``
        may also be in ``adata.uns``.
    key
        ``key_added`` of the annotation.
    include_cell_ids
        Whether to list the names of the cells of each set.
    n_markers
        Number of expressed marker genes to list as evidence, see :func:`~sccello_tools.get.annotation_df`; 0 for none.

    Returns
    -------
    Dictionary with ``labelsets`` (one, named by ``key``: an algorithmic annotation) and ``annotations``: label, Cell Ontology id and
    name, ``cell_ids``, ``marker_gene_evidence``, and as ``author_annotation_fields`` the number of cells, the mean confidence and the
    fraction of cells of each status.

    Raises
    ------
    SchemaError
        If ``title`` or ``author_name`` is missing.
    NotFoundError
        If there is no annotation of that key.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:40].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> document = sccello.export.cell_annotation_schema(adata, {"title": "Islets", "author_name": "Ada Lovelace"})
    >>> sorted(document["annotations"][0])[:3]
    ['author_annotation_fields', 'cell_fullname', 'cell_ids']
    """
    check_anndata(adata)
    cells = annotation_df(adata, key=key, n_markers=0)
    types = annotation_df(adata, key, key=key, n_markers=n_markers)
    markers = types["supporting_markers"] if n_markers else pd.Series(dtype=object)
    found = field_values(adata, values, CELL_ANNOTATION_SCHEMA)
    record = adata.uns.get(key, {})
    model = f"model {record.get('model', 'unknown')} (weights {record.get('weights_sha256', 'unknown')})"
    labelset = {
        "name": key,
        "description": f"Cell Ontology terms assigned to single cells by sccello-tools, {model}.",
        "annotation_method": "algorithmic",
        "automated_annotation": {
            "algorithm_name": f"scCello ({record.get('method', 'sccello-tools')})",
            "algorithm_version": f"sccello-tools {__version__}",
            "algorithm_repo_url": _REPOSITORY,
            "reference_location": found.pop("reference_location", ""),  # cas-tools requires the key
        },
        "rank": 0,
    }
    return {
        **found,
        "cellannotation_schema_version": SCHEMA_VERSION,
        "cellannotation_timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "labelsets": [labelset],
        "annotations": [
            _annotation(
                str(label), own, key, markers.get(str(label)), include_cell_ids=include_cell_ids
            )
            for label, own in cells.groupby("cell_type", observed=True)
        ],
    }


def _annotation(
    label: str, cells: pd.DataFrame, key: str, markers: object, *, include_cell_ids: bool
) -> dict[str, Any]:
    """Return the entry of all cells of one type."""
    ids = cells["ontology_term_id"].dropna().astype(str)
    notes = {"n_cells": str(len(cells))}
    if cells["confidence"].notna().any():
        notes["mean_confidence"] = f"{cells['confidence'].mean():.3f}"
    for status in _keys.STATUSES:
        if cells["status"].notna().any():
            notes[f"fraction_{status}"] = f"{(cells['status'] == status).mean():.3f}"
    entry: dict[str, Any] = {"labelset": key, "cell_label": label, "cell_fullname": label}
    if len(ids):
        entry |= {"cell_ontology_term_id": ids.iloc[0], "cell_ontology_term": label}
    if include_cell_ids:
        entry["cell_ids"] = cells.index.astype(str).tolist()
    if isinstance(markers, str) and markers:
        entry["marker_gene_evidence"] = markers.split(", ")
    return {**entry, "author_annotation_fields": notes}
