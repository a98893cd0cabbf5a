"""The cell types of a model: the table of labels, and the prototypes with their current Cell Ontology terms."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._logging import logger
from sccello_tools._messages import listed
from sccello_tools.errors import LabelError, WeightsError
from sccello_tools.ontology import CellOntology

from .registry import LABELS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from .registry import ModelEntry

_ROOT = "CL:0000000"  # "cell"
PUBLISHED_LABELS = "sccello_zeroshot_labels.tsv"
_CL_ID = re.compile(r"CL:\d{7}")
ID_COLUMN, CELL_TYPE_COLUMN = "cell_type_ontology_term_id", "cell_type"


class Labels(NamedTuple):
    """Cell types in the order of the prototypes."""

    ids: tuple[str, ...]
    """Cell Ontology ids."""
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Prototypes:
    """Prototypes of the known cell types of a model.

    Labels that are obsolete in the current ontology are replaced by their successors. Labels with the same current term share
    one prototype, the normalised mean of theirs. Labels without a current term, and those
    that stand for any cell (such as "native cell" in the published model), are omitted.
    """

    ids: tuple[str, ...]
    """Current Cell Ontology ids, unique, in the order of the labels."""
    names: tuple[str, ...]
    """Names of these terms."""
    vectors: NDArray[np.float32]
    """Array of shape (n_types, d), unit vectors in the space of ``representation="cell"``."""
    tau: float
    """Temperature: probabilities of the types are ``softmax(cell @ vectors.T / tau)``."""
    row_of_label: NDArray[np.intp]
    """Array of shape (n_labels,): row of each label of the model in :attr:`vectors`, -1 if omitted."""
    replaced: Mapping[str, str]
    """Obsolete labels and their current terms."""
    merged: Mapping[str, tuple[str, ...]]
    """Current terms that stand for several labels, with these labels."""
    omitted: tuple[str, ...]
    """Labels that the ontology does not know, that are obsolete without a successor, or that stand for any cell."""

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return (
            f"Prototypes({len(self)} types from {len(self.row_of_label)} labels, {len(self.replaced)} replaced, "
            f"{len(self.merged)} merged, {len(self.omitted)} omitted, tau={self.tau:g})"
        )


def make_prototypes(labels: Sequence[str], vectors: NDArray[np.float32], tau: float) -> Prototypes:
    """Map the labels of a model to current terms and normalise their prototypes.

    Parameters
    ----------
    labels
        Cell Ontology ids in the order of the rows.
    vectors
        Array of shape (n_labels, d).
    tau
        Temperature.
    """
    ontology = CellOntology.load()
    rows: dict[str, list[int]] = {}
    replaced, omitted = dict[str, str](), list[str]()
    for i, label in enumerate(labels):
        try:
            current = ontology.current(label)
        except LabelError:
            current = _ROOT
        if current == _ROOT:
            omitted.append(label)
            continue
        rows.setdefault(current, []).append(i)
        if current != label:
            replaced[label] = current
    unit = _normalised(vectors)
    row_of_label = np.full(len(labels), -1, dtype=np.intp)
    for row, members in enumerate(rows.values()):
        row_of_label[members] = row
    means = [unit[members].mean(axis=0) for members in rows.values()]
    found = Prototypes(
        ids=tuple(rows),
        names=tuple(ontology.name(term) for term in rows),
        vectors=_normalised(np.array(means, dtype=np.float32).reshape(-1, vectors.shape[1])),
        tau=tau,
        row_of_label=row_of_label,
        replaced=replaced,
        merged={t: tuple(labels[i] for i in m) for t, m in rows.items() if len(m) > 1},
        omitted=tuple(omitted),
    )
    if replaced or omitted:
        logger.log(
            30 if omitted else 20,
            "labels of the model in Cell Ontology release %s: %d of %d are current, %d are replaced by their successors (%d terms stand "
            "for several labels), %d have no informative term and are omitted%s",
            ontology.release, len(labels) - len(replaced) - len(omitted), len(labels), len(replaced), len(found.merged),
            len(omitted), f" ({listed(omitted)})" if omitted else "",
        )  # fmt: skip
    return found


def _normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def read_labels(entry: ModelEntry, folder: Path) -> Labels:
    """Read the cell types of a model from its folder, or from the package for models without the table.

    A published ``config.json`` states with ``data_branch`` that its prototypes are in the order of the table in this package.

    Parameters
    ----------
    entry
        The model.
    folder
        Location of its files.

    Returns
    -------
    Empty tuples for a model without labels.

    Raises
    ------
    WeightsError
        If the table is damaged or its length differs from the number of labels that the manifest states.
    """
    path = folder / LABELS_FILE
    if not path.is_file():
        stated = None if entry.label_space is None else entry.label_space.resource
        published = PUBLISHED_LABELS if entry.config.get("data_branch") == "frac100" else None
        if (resource := stated or published) is None:
            return Labels((), ())
        path = Path(str(files("sccello_tools") / "resources" / resource))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The label table {path} cannot be read: {error}."
        raise WeightsError(msg) from error
    labels = read_label_table(lines, where=str(path))
    if entry.label_space is not None and entry.label_space.n_labels != len(labels.ids):
        msg = f"{path} has {len(labels.ids)} cell types, but {entry.label_space.n_labels} are stated for model {entry.name!r}. Download or write the model again."
        raise WeightsError(msg)
    return labels


def read_label_table(lines: Iterable[str], *, where: str) -> Labels:
    """Validate a label table: index, Cell Ontology id and name, separated by tabs.

    Parameters
    ----------
    lines
        The table with its header.
    where
        Name of the table for messages.

    Raises
    ------
    WeightsError
        With the invalid line and what is required.
    """
    rows = list(csv.reader(lines, delimiter="\t"))
    header = rows[0] if rows else []
    # The first column is the index, called "index" in our format and "label" in the published one.
    if len(header) < 3 or ID_COLUMN not in header or CELL_TYPE_COLUMN not in header:
        msg = f"{where} has columns {header}; required are an index, {ID_COLUMN} and {CELL_TYPE_COLUMN}, separated by tabs."
        raise WeightsError(msg)
    at_id, at_name = header.index(ID_COLUMN), header.index(CELL_TYPE_COLUMN)
    for i, row in enumerate(rows[1:]):
        if len(row) != len(header) or row[0] != str(i) or not _CL_ID.fullmatch(row[at_id]):
            msg = f"{where}, line {i + 2} is {row}; required are index {i}, a Cell Ontology id (CL:0000000) and a name."
            raise WeightsError(msg)
    labels = Labels(tuple(row[at_id] for row in rows[1:]), tuple(row[at_name] for row in rows[1:]))
    if len(set(labels.ids)) != len(labels.ids):
        repeated = sorted({label for label in labels.ids if labels.ids.count(label) > 1})
        msg = f"{where} lists cell types more than once: {repeated[:5]}. Each prototype must have a different type."
        raise WeightsError(msg)
    return labels
