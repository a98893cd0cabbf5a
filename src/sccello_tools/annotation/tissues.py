"""Known types that occur in a tissue, and their frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_LEAST_WEIGHT = 1e-6
_MAX_ITER = 100
_EVERYWHERE = ("CL:0000115", "CL:0000057", "CL:0000669", "CL:0000232", "CL:0000136")
"""Endothelial cells, fibroblasts, pericytes, erythrocytes, adipocytes: recorded in few tissues, but present in most."""
_LEUKOCYTE = "CL:0000738"
_ROAMING = ("blood", "spleen")  # cells of these tissues circulate through all others
_GENERIC = 10  # terms with at least as many descendants are not specific to an organ, such as "epithelial cell"


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
    """Return the tissues as a list, or raise LabelError if one has no recorded types."""
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
    """Return which known types may occur in a tissue.

    A type is ruled out if it was recorded in one or two other tissues only. Leukocytes, which migrate between tissues, are ruled out only
    if they were recorded in a single other tissue (Hofbauer cells, in placenta), but not in blood or spleen. Broad terms, and types without
    records, are allowed. User-defined types are treated like their parents; without one they are allowed.

    Parameters
    ----------
    tissue
        One or more tissues of :func:`tissue_types`.
    types
        Known types.
    ontology
        Cell Ontology.
    parents
        Parent term of each user-defined type.

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


@dataclass(frozen=True, eq=False)
class TissueWeights:
    """Frequencies of the known types in tissues, as factors on their probabilities."""

    names: tuple[str, ...]
    """Tissues."""
    weights: NDArray[np.float32]
    """(n_tissues, n_types) factors in [0, 1]; 1 for types that were recorded in the tissue."""

    def of(self, tissue: str | Sequence[str]) -> NDArray[np.float32]:
        """Return the highest factor of each type over tissues, shape (n_types,).

        Raises
        ------
        LabelError
            If there are no factors for a tissue.
        """
        asked = [tissue] if isinstance(tissue, str) else list(tissue)
        if unknown := [name for name in asked if name not in self.names]:
            msg = f"There is no record of cell types in the tissue {unknown[0]!r}, only in {', '.join(self.names)}. Omit tissue= to infer it from the cells."
            raise LabelError(msg)
        found: NDArray[np.float32] = self.weights[[self.names.index(name) for name in asked]].max(
            axis=0
        )
        return found

    def infer(
        self, probabilities: NDArray[np.floating], *, prior_cells: float = 5.0
    ) -> NDArray[np.float64]:
        r"""Estimate the fractions of tissues in a data set from the types of its cells.

        Maximises :math:`\prod_i \sum_o \pi_o \sum_t p_{it} q_{ot} / \bar q_t` over the fractions :math:`\pi` by expectation
        maximisation, where :math:`q_o` are the weights of tissue o scaled to sum to one, and :math:`\bar q` is their mean.

        Parameters
        ----------
        probabilities
            (n_cells, n_types) without a tissue prior.
        prior_cells
            Pseudo-count, distributed equally over tissues, so that a few cells have little influence.

        Returns
        -------
        (n_tissues,), summing to 1.
        """
        q = self.weights.astype(float)
        q = q / q.sum(axis=1, keepdims=True)
        likelihood = (
            np.asarray(probabilities, dtype=float) @ (q / np.maximum(q.mean(axis=0), 1e-12)).T
        )
        fractions = np.full(len(q), 1 / len(q))
        for _ in range(_MAX_ITER):
            of_cell = fractions * likelihood
            of_cell /= np.maximum(of_cell.sum(axis=1, keepdims=True), 1e-30)
            updated = of_cell.sum(axis=0) + prior_cells / len(q)
            updated /= updated.sum()
            is_done = np.abs(updated - fractions).max() < 1e-5
            fractions = updated
            if is_done:
                break
        return fractions


def log_factors(weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the logarithm of factors on probabilities; types with factor 0 stay at -inf."""
    with np.errstate(divide="ignore"):
        found: NDArray[np.float32] = np.where(
            weights > 0, np.log(np.maximum(weights, _LEAST_WEIGHT)), -np.inf
        ).astype(np.float32)
    return found
