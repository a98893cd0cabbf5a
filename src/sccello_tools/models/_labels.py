"""The cell types that a model's prototypes stand for."""

from __future__ import annotations

import csv
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools.errors import WeightsError

from ._records import LABELS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._records import ModelEntry

_CL_ID = re.compile(r"CL:\d{7}")
ID_COLUMN, CELL_TYPE_COLUMN = "cell_type_ontology_term_id", "cell_type"


class Labels(NamedTuple):
    """Cell types in the order of the prototypes."""

    ids: tuple[str, ...]
    """Cell Ontology ids."""

    names: tuple[str, ...]
    """Their names."""


def read_labels(entry: ModelEntry, folder: Path) -> Labels:
    """Read a model's cell types from its folder, or from the package for models that lack the table.

    Parameters
    ----------
    entry
        The model.
    folder
        Where its files are.

    Returns
    -------
    Nothing but empty tuples for a model without labels.

    Raises
    ------
    WeightsError
        If the table is damaged or has another length than the manifest says.
    """
    path = folder / LABELS_FILE
    if not path.is_file():
        if entry.label_space is None or entry.label_space.resource is None:
            return Labels((), ())
        path = Path(str(files("sccello_tools") / "resources" / entry.label_space.resource))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The table of labels {path} cannot be read: {error}."
        raise WeightsError(msg) from error
    labels = read_label_table(lines, where=str(path))
    if entry.label_space is not None and entry.label_space.n_labels != len(labels.ids):
        msg = f"{path} names {len(labels.ids)} cell types, but {entry.label_space.n_labels} are stated for model {entry.name!r}. Fetch or write the model again."
        raise WeightsError(msg)
    return labels


def read_label_table(lines: Iterable[str], *, where: str) -> Labels:
    """Check a table of labels: index, Cell Ontology id and name, divided by tabs.

    Parameters
    ----------
    lines
        The table, header first.
    where
        Name of the table, for messages.

    Raises
    ------
    WeightsError
        With the line that is wrong and what was expected there.
    """
    rows = list(csv.reader(lines, delimiter="\t"))
    header = rows[0] if rows else []
    # The first column is the index, called "index" in our own form and "label" in the published one.
    if len(header) < 3 or ID_COLUMN not in header or CELL_TYPE_COLUMN not in header:
        msg = f"{where} has columns {header}, expected an index, {ID_COLUMN} and {CELL_TYPE_COLUMN}, divided by tabs."
        raise WeightsError(msg)
    at_id, at_name = header.index(ID_COLUMN), header.index(CELL_TYPE_COLUMN)
    for i, row in enumerate(rows[1:]):
        if len(row) != len(header) or row[0] != str(i) or not _CL_ID.fullmatch(row[at_id]):
            msg = f"{where}, line {i + 2} is {row}; expected index {i}, a Cell Ontology id (CL:0000000) and a name."
            raise WeightsError(msg)
    labels = Labels(tuple(row[at_id] for row in rows[1:]), tuple(row[at_name] for row in rows[1:]))
    if len(set(labels.ids)) != len(labels.ids):
        twice = sorted({label for label in labels.ids if labels.ids.count(label) > 1})
        msg = (
            f"{where} names cell types twice: {twice[:5]}. Each prototype needs a type of its own."
        )
        raise WeightsError(msg)
    return labels
