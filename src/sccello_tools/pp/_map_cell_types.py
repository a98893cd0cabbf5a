"""Map a column of cell type labels to terms of the Cell Ontology."""

from __future__ import annotations

from importlib.metadata import version
from logging import INFO, WARNING
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import obs_column
from sccello_tools._anndata.writing import check_writable, writing
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
    """Map labels of cells, ids or free text, to current terms of the Cell Ontology.

    A label gets a term only if its text says which: an id, a name, an exact synonym, one of these in another spelling, or a short form
    of the table that ships with the package (see :func:`sccello_tools.ontology.match_label`). Labels that several terms fit and labels
    that none fits stay open and are reported with suggestions; settle them with ``overrides``. The text is all that is looked at, not
    the cells and not their tissue.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Column of ``adata.obs`` with the labels. Missing values and "" stay without a term.
    key_added
        Column of ``adata.obs`` to write the names to; the ids and the kind of match go beside it.
    overrides
        Terms for labels, decided by you: label to id or name. These go before every rule.
    min_mapped
        Smallest share, 0 to 1, of the labelled cells that must get a term; fewer raise :class:`LabelError`.
    ontology
        An ontology, or the path of a ``cl.obo``; the snapshot that ships with the package if not given.

    Returns
    -------
    The report. Fields written, each a category of shape (n_obs,), "" where there is no term:

    `adata.obs[key_added]`
        Name of the term.
    `adata.obs[key_added + "_ontology_term_id"]`
        Its id.
    `adata.obs[key_added + "_match"]`
        How the label was mapped: "exact", "synonym", "normalized", "obsolete", "override"; or not: "ambiguous", "unknown"; "" where
        there is no label.
    `adata.uns[key_added]`
        Provenance: the column that was mapped, the release of the ontology, version of this package.

    Raises
    ------
    LabelError
        If ``key`` is no column, fewer than ``min_mapped`` of the labelled cells get a term, or ``overrides`` names a label that is not
        there or a term that does not exist.
    OntologyError
        If the ontology cannot be read.
    BackedDataError
        If ``adata`` is a view of a backed AnnData.

    See Also
    --------
    sccello_tools.ontology.match_labels : the same for a list.

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
    if key not in adata.obs:
        found = ", ".join(repr(name) for name in adata.obs.columns) or "none"
        msg = f"adata.obs has no column {key!r} (columns: {found}). Name the one that holds the labels in key."
        raise LabelError(msg)
    if not 0 <= min_mapped <= 1:
        msg = f"min_mapped is {min_mapped}; expected is a share between 0 and 1"
        raise ArgumentError(msg)
    check_writable(adata, copy=False)
    if not isinstance(ontology, CellOntology):
        ontology = CellOntology.load(ontology)
    values = obs_column(adata, key)
    labels = values.astype(object).where(values.notna(), "").map(str)
    given = (label for label in labels if label.strip())
    report = match_labels(given, ontology, overrides=overrides)
    if report.n_rows_mapped < min_mapped * report.n_rows or not report.n_mapped:
        raise LabelError(_too_few(report, key, min_mapped))

    columns = {"": "name", _keys.TERM_ID_SUFFIX: "id", _keys.MATCH_SUFFIX: "status"}
    with writing(adata, copy=False) as target:
        for suffix, field in columns.items():
            text_of = {match.query: getattr(match, field) for match in report.matches}
            texts = [text_of.get(label, "") for label in labels]
            target.obs[key_added + suffix] = pd.Categorical(texts)
        target.uns[key_added] = {
            "key": key,
            "ontology_release": report.release,
            "sccello_tools_version": version("sccello-tools"),
        }
    # labels that stay open are a loss of data, and said without being asked for
    logger.log(WARNING if report.n_mapped < report.n_labels else INFO, str(report))
    slots = [f".obs[{key_added + suffix!r}]" for suffix in columns]
    log_written("map_cell_types", *slots, f".uns[{key_added!r}]")
    return report


def _too_few(report: LabelReport, key: str, min_mapped: float) -> str:
    if not report.n_labels:
        return f"adata.obs[{key!r}] holds no label: every value is missing or empty. Name another column in key."
    return (
        f"Only {report.n_rows_mapped:,} of {report.n_rows:,} labelled cells in adata.obs[{key!r}] get a term; expected is a share of at "
        f"least {min_mapped:.0%}, and one label. {report}\nName the column that holds cell types in key, decide labels by overrides=, "
        "or lower min_mapped; see ontology.match_labels."
    )
