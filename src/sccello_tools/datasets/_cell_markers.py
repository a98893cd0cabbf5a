"""Known marker genes by Cell Ontology term."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools.errors import FileFormatError
from sccello_tools.ontology import CellOntology, match_labels
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPE, _GENES = "cellType", "geneMarker"


def cell_markers(
    path: str | Path,
    *,
    type_column: str = _TYPE,
    genes_column: str = _GENES,
    ontology: CellOntology | None = None,
) -> pd.DataFrame:
    r"""Read a table of marker genes and map its cell types to Cell Ontology terms and its genes to Ensembl ids.

    Reads ``cellmarkers.tsv`` of the scCello repository (CellMarker and PanglaoDB), which is not shipped with this package because
    neither source states a licence for its gene lists.

    Parameters
    ----------
    path
        Tab-separated file, plain or gzipped, one row per cell type.
    type_column
        Column of cell type names.
    genes_column
        Column of gene symbols, separated by commas.
    ontology
        The Cell Ontology; by default the shipped release.

    Returns
    -------
    DataFrame with one row per cell type and gene: cell_type_ontology_term_id ("" if the name is not mapped), cell_type and symbol (as
    in the file) and gene_id (Ensembl). Genes outside the vocabulary are dropped.

    Raises
    ------
    FileFormatError
        If the file cannot be read or lacks a column.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import sccello_tools as sccello
    >>> path = Path(tempfile.mkdtemp()) / "markers.tsv"
    >>> _ = path.write_text("cellType\tgeneMarker\nB cells\tCD19,MS4A1,CD79A\nT cells\tCD3D,CD3E\n")
    >>> table = sccello.datasets.cell_markers(path)
    >>> table.groupby("cell_type_ontology_term_id")["symbol"].agg(list).to_dict()
    {'CL:0000084': ['CD3D', 'CD3E'], 'CL:0000236': ['CD19', 'MS4A1', 'CD79A']}
    """
    try:
        table = pd.read_csv(Path(path), sep="\t", dtype=str)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        msg = f"{path} cannot be read as a marker table ({error}). Pass a tab-separated file with columns {type_column!r} and {genes_column!r}."
        raise FileFormatError(msg) from error
    if missing := [name for name in (type_column, genes_column) if name not in table]:
        msg = f"{path} has no column {missing[0]!r} (columns: {list(table.columns)}). Pass type_column= and genes_column=."
        raise FileFormatError(msg)
    table = table.dropna(subset=[type_column, genes_column])
    genes = [_split(text) for text in table[genes_column]]
    names = table[type_column].to_numpy()
    report = match_labels(names.tolist(), ontology or CellOntology.load())
    terms = [report[name].id if report[name].is_mapped else "" for name in names.tolist()]
    lengths = [len(own) for own in genes]
    long = pd.DataFrame(
        {
            "cell_type_ontology_term_id": np.repeat(terms, lengths),
            "cell_type": np.repeat(names, lengths),
            "symbol": [symbol for own in genes for symbol in own],
        }
    )
    distinct = long["symbol"].unique().tolist()
    id_of = dict(zip(distinct, match_gene_names(distinct, min_matched=1).gene_ids.tolist()))
    long["gene_id"] = long["symbol"].map(id_of)
    return long[long["gene_id"] != ""].reset_index(drop=True)


def _split(text: str) -> Sequence[str]:
    return list(dict.fromkeys(symbol.strip() for symbol in text.split(",") if symbol.strip()))
