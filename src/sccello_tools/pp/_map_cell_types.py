"""Map a column of cell-type labels to Cell Ontology terms."""

from __future__ import annotations

from importlib.metadata import version
from logging import INFO, WARNING
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import as_text, require_obs
from sccello_tools._anndata.writing import check_writable, clear_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written, logger
from sccello_tools.errors import ArgumentError, LabelError
from sccello_tools.ontology import CellOntology, match_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from sccello_tools.ontology import LabelReport


@shared_docs
def map_cell_types(
    adata: AnnData,
    key: str,
    *,
    key_added: str = _keys.MAPPED_CELL_TYPE,
    overrides: Mapping[str, str] | None = None,
    min_mapped: float = 0.1,
    ontology: CellOntology | Path | str | None = None,
) -> LabelReport:
    """Map cell-type labels (Cell Ontology IDs or free text) to current terms of the Cell Ontology.

    A label is mapped only if its text identifies a term: an ID, a name, an exact synonym, a spelling variant of these, or an
    abbreviation of the bundled table (see :func:`sccello_tools.ontology.match_label`). Labels that match several terms or none are not
    mapped and are reported with suggestions; map them with ``overrides``. Only the text of the labels is used, not the cells or
    their tissue.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Column of ``adata.obs`` with the labels. Missing values and "" are not mapped.
    key_added
        Column of ``adata.obs`` for the names of the terms; IDs and the kind of match are written to companion columns.
    overrides
        User-defined terms by label: ID or name. They take precedence over all rules.
    min_mapped
        Minimum fraction of the labelled cells, in [0, 1], that must be mapped.
    ontology
        The Cell Ontology, or the path of a ``cl.obo`` file; the bundled release by default.

    Returns
    -------
    The report. Fields written, each categorical of shape (n_obs,), with "" for cells without a term:

    `adata.obs[key_added]`
        Name of the term.
    `adata.obs[key_added + "_ontology_term_id"]`
        ID of the term.
    `adata.obs[key_added + "_match"]`
        How the label was mapped ("exact", "synonym", "normalized", "obsolete", "override") or why not ("ambiguous", "unknown"); "" for
        cells without a label.
    `adata.uns[key_added]`
        Mapped column, release of the ontology and version of this package.

    Raises
    ------
    LabelError
        If ``key`` is not a column, less than ``min_mapped`` of the labelled cells are mapped, or ``overrides`` contains a label that
        does not occur or a term that does not exist.
    ArgumentError
        If ``min_mapped`` is not in [0, 1] or ``key_added`` cannot be stored in a file.
    OntologyError
        If the ontology cannot be read.
    BackedDataError
        If ``adata`` is a view of a backed AnnData.

    See Also
    --------
    sccello_tools.ontology.match_labels : the same for a list of labels.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> adata.obs["label"] = ["Acinar cells"] * 300 + ["beta"] * 200 + ["hybrid"] * 83
    >>> report = sccello.pp.map_cell_types(adata, "label")
    >>> report.n_mapped, report.n_rows_mapped
    (2, 500)
    >>> adata.obs["sccello_mapped_cell_type"].cat.categories.tolist()
    ['', 'acinar cell', 'type B pancreatic cell']
    """
    check_writable(adata, copy=False, key_added=key_added)
    values = require_obs(adata, key, argument="key", error=LabelError)
    if not 0 <= min_mapped <= 1:
        msg = f"min_mapped must be in [0, 1], got {min_mapped}"
        raise ArgumentError(msg)
    if not isinstance(ontology, CellOntology):
        ontology = CellOntology.load(ontology)
    labels = as_text(values)
    given = (label for label in labels if label)
    report = match_labels(given, ontology, overrides=overrides)
    if report.n_rows_mapped < min_mapped * report.n_rows or not report.n_mapped:
        raise LabelError(_too_few(report, key, min_mapped))

    columns = {"": "name", _keys.TERM_ID_SUFFIX: "id", _keys.MATCH_SUFFIX: "status"}
    with writing(adata, copy=False) as target:
        if key != key_added:
            clear_slots(target, key_added)
        for suffix, field in columns.items():
            text_of = {match.query: getattr(match, field) for match in report.matches}
            texts = [text_of.get(label, "") for label in labels]
            target.obs[key_added + suffix] = pd.Categorical(texts)
        target.uns[key_added] = {
            "key": key,
            "ontology_release": report.release,
            "sccello_tools_version": version("sccello-tools"),
        }
    # cells without a term are lost for later steps, so they are reported at the default verbosity
    logger.log(WARNING if report.n_mapped < report.n_labels else INFO, str(report))
    slots = [f".obs[{key_added + suffix!r}]" for suffix in columns]
    log_written("map_cell_types", *slots, f".uns[{key_added!r}]")
    return report


def _too_few(report: LabelReport, key: str, min_mapped: float) -> str:
    if not report.n_labels:
        return f"adata.obs[{key!r}] has no labels: all values are missing or empty. Pass another column as key=."
    return (
        f"Only {report.n_rows_mapped:,} of {report.n_rows:,} labelled cells in adata.obs[{key!r}] can be mapped, and "
        f"min_mapped={min_mapped:.0%} are required. {report}\nPass the column of cell types as key=, map labels with overrides=, or "
        "reduce min_mapped; see ontology.match_labels."
    )
