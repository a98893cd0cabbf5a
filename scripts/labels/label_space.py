"""Types of the bundled models, and what each label says about each type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sccello_tools.ontology import CellOntology

HELD_OUT = ("CL:0000451", "CL:0002275", "CL:0000815")
"""Dendritic cell, PP cell, regulatory T cell: with their subtypes, not known to the evaluation twin."""

RESERVED_TISSUES = ("Adult Pancreas_Baron",)
"""Profiles that may summarise cells that are kept for evaluation."""

TUMOUR = "CL:0000066|tumour"
"""Label of tumour epithelium whose malignant cells are not labelled: "malignant cell" is neither correct nor incorrect."""
MALIGNANT = "CL:0001064"

BROAD = (
    "leukocyte", "lymphocyte", "myeloid leukocyte", "mononuclear phagocyte", "professional antigen presenting cell", "granulocyte",
    "erythroid lineage cell", "stromal cell", "glial cell", "ciliated cell", "goblet cell", "eye photoreceptor cell",
    "trophoblast cell", "alpha-beta T cell", "epithelial cell of large intestine", "squamous epithelial cell", "epithelial cell of nephron",
    "kidney epithelial cell", "pancreatic endocrine cell", "intestine goblet cell", "pulmonary alveolar epithelial cell",
    "cardiac muscle cell", "cell of skeletal muscle", "enterocyte", "intestinal epithelial cell", "epithelial cell of lung",
    "kidney collecting duct cell", "epithelial cell of distal tubule", "neuron", "mammary gland epithelial cell", "autonomic neuron", "GABAergic interneuron",
)  # fmt: skip
"""Labels that only constrain the type of a cell; they have no prototype, because a subtype that is known is more informative."""

SINGLE = ("retinal cone cell", "retina horizontal cell", "Langerhans cell", "fallopian tube secretory epithelial cell")  # fmt: skip
"""Types that rest on a single profile with the expected marker genes."""

MIN_CELLS, MIN_PROFILES = 20, 2


def read_label_map(path: Path = Path(__file__).parent / "label_map.tsv") -> pd.DataFrame:
    """Return the reviewed term of each profile and cell label."""
    return pd.read_csv(path, sep="\t", keep_default_na=False)


def with_subtypes(terms: Collection[str], ontology: CellOntology) -> set[str]:
    """Return terms and all their descendants."""
    return set(terms).union(*(ontology.descendants(term) for term in terms))


def broad_terms() -> set[str]:
    """Return the ids of :data:`BROAD`."""
    table = read_label_map()
    return set(table.cl_id[table.cl_name.isin(BROAD)])


def known_types(ontology: CellOntology, *, folders: Collection[str], left_out: Collection[str] = ()) -> list[str]:  # fmt: skip
    """Return the types of a model: terms with at least 20 cells or two profiles, without broad ones.

    Parameters
    ----------
    ontology
        Cell Ontology.
    folders
        Folders of `cells/` that train.
    left_out
        Terms that the model must not know, with their subtypes.
    """
    table = read_label_map()
    mapped = table[(table.decision == "map") & ~table.tissue.isin(RESERVED_TISSUES)]
    cells = mapped[(mapped.kind == "cells") & mapped.source.str.split("/").str[0].isin(folders)]
    n_cells = cells.groupby("cl_id").n.sum()
    n_profiles = mapped[mapped.kind == "profile"].groupby("cl_id").size()
    single = set(mapped.cl_id[mapped.cl_name.isin(SINGLE)])
    enough = set(n_cells.index[n_cells >= MIN_CELLS]) | set(n_profiles.index[n_profiles >= MIN_PROFILES])  # fmt: skip
    return sorted((enough | single) - broad_terms() - with_subtypes(left_out, ontology))


def labels_of(obs: pd.DataFrame) -> np.ndarray:
    """Return the label of each measured cell; epithelium of ovarian tumours has its own."""
    labels = obs.cl_id.to_numpy().astype(object)
    labels[((obs.study == "qian_ovary") & (obs.cl_id == "CL:0000066")).to_numpy()] = TUMOUR
    return labels.astype(str)


@dataclass(frozen=True, eq=False)
class Targets:
    """What each label says about each type."""

    labels: tuple[str, ...]
    """Cell Ontology ids, or :data:`TUMOUR`."""
    types: tuple[str, ...]
    correct: np.ndarray
    """(n_labels, n_types) bool: the type is the label or a subtype of it."""
    ignored: np.ndarray
    """(n_labels, n_types) bool: the type is an ancestor of the label, or shares subtypes with a broad label."""

    @classmethod
    def of(cls, labels: Sequence[str], types: Sequence[str], ontology: CellOntology) -> Targets:
        """Derive the table from the ontology."""
        below = {t: ontology.descendants(term_of(t), include_self=True) for t in {*labels, *types}}
        broad = broad_terms()
        correct = np.array([[t in below[label] for t in types] for label in labels])
        ignored = np.array([[term_of(label) in below[t] for t in types] for label in labels])
        for i, label in enumerate(labels):
            if label in broad:
                ignored[i] |= [bool(below[t] & below[label]) for t in types]
            if label == TUMOUR:
                ignored[i] |= np.array(types) == MALIGNANT
        return cls(tuple(labels), tuple(types), correct, ignored & ~correct)

    def exact(self) -> np.ndarray:
        """Return (n_labels, n_types) bool targets of a classifier of exclusive types.

        The type of the label itself, if the model has it, otherwise its subtypes.
        """
        exact = np.array([[t == term_of(label) for t in self.types] for label in self.labels])
        return np.where(exact.any(1, keepdims=True), exact, self.correct)


def term_of(label: str) -> str:
    """Return the Cell Ontology id of a label."""
    return label.split("|", maxsplit=1)[0]
