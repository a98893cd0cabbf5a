"""Which known types a tissue may hold, so that a pancreas gets no alveolar macrophage."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_EVERYWHERE = ("CL:0000115", "CL:0000057", "CL:0000669", "CL:0000232", "CL:0000136")
"""Endothelial cells, fibroblasts, pericytes, erythrocytes, adipocytes: recorded in few tissues, at home in most."""
_LEUKOCYTE = "CL:0000738"
_ROAMING = ("blood", "spleen")  # what passes here passes everywhere
_GENERIC = 10  # a term with as many kinds is no more bound to an organ than "epithelial cell" is


@cache
def tissue_types() -> Mapping[str, tuple[str, ...]]:
    """Return the Cell Ontology ids that were recorded in each tissue.

    From the labels of CellProfileLibrary's profiles (CC BY 4.0) and of the bundled model's training cells.

    Examples
    --------
    >>> from sccello_tools.annotation import tissue_types
    >>> "CL:0000169" in tissue_types()["pancreas"]  # beta cell
    True
    """
    text = files("sccello_tools.resources").joinpath("tissue_types.tsv").read_text("utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines()[1:]:
        tissue, term, *_ = line.split("\t")
        found.setdefault(tissue, []).append(term)
    return {tissue: tuple(terms) for tissue, terms in found.items()}


def check_tissues(tissue: str | Sequence[str]) -> list[str]:
    """Return the tissues as a list, or raise LabelError if nothing is recorded of one."""
    table = tissue_types()
    asked = [tissue] if isinstance(tissue, str) else list(tissue)
    if unknown := [name for name in asked if name not in table]:
        msg = f"Nothing is recorded of the tissue {unknown[0]!r}. Recorded are: {', '.join(sorted(table))}. Leave tissue= out to allow every type."
        raise LabelError(msg)
    return asked


def allowed_types(
    tissue: str | Sequence[str],
    types: Sequence[str],
    ontology: CellOntology,
    *,
    parents: Mapping[str, str] | None = None,
) -> NDArray[np.bool_]:
    """Tell which known types a tissue may hold.

    A type is ruled out if it is bound to other organs: recorded in one or two other tissues only. Of leukocytes, which roam, those are
    bound that were recorded in a single tissue (Hofbauer cells, in placenta), and none that were in blood or spleen. Broad terms, and types that
    were recorded nowhere, are allowed. Names that are no terms of the ontology go by their parent; without one they are allowed.

    Parameters
    ----------
    tissue
        One or more tissues of :func:`tissue_types`.
    types
        Known types.
    ontology
        Cell Ontology.
    parents
        The term that a name of a user's own belongs under.

    Returns
    -------
    (n_types,)

    Raises
    ------
    LabelError
        If a tissue is not in the table, or fewer than two types are left.
    """
    asked = check_tissues(tissue)
    table = tissue_types()
    homes: dict[str, set[str]] = {}
    for name, terms in table.items():
        for term in terms:
            homes.setdefault(term, set()).add(name)
    here = {*asked, *_ROAMING}

    def bound_elsewhere(term: str) -> bool:
        home = homes.get(term, set())
        if not home or home & here or term in _EVERYWHERE or term not in ontology:
            return False
        few = 1 if _LEUKOCYTE in ontology.ancestors(term) else 2
        return len(home) <= few and len(ontology.descendants(term)) < _GENERIC

    own_parents = parents or {}
    found = np.array([not bound_elsewhere(own_parents.get(name, name)) for name in types])
    if found.sum() < 2:
        msg = f"Of the {len(types)} known types only {int(found.sum())} can be in {', '.join(asked)}; a choice needs two. Leave tissue= out."
        raise LabelError(msg)
    return found
