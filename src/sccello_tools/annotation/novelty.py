"""Novelty of cells, made comparable between known types and corrected for shifts of a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHARE_OF_OFFSET = 0.6  # fraction of the difference between types that is removed
_PRIOR_CELLS = 8.0  # weight of related types in the estimate of a type's typical novelty
_RELATED = 6  # power of the Lin similarity that weights related types
_QUANTILE = 0.25  # of the novelty of the cells assigned to a type, to represent those that are certainly known
_HALF_GROUP = 10  # number of cells at which a type has half of the maximum weight in the shift
_PRIOR_TYPES = 6.0  # number of types in a data set at which half of its shift is removed


@dataclass(frozen=True, eq=False)
class NoveltyCalibration:
    r"""Typical novelty of the known types and the threshold for novel cells.

    The novelty of a cell is the log odds that its type is an open term rather than a known one. Types with many specific
    markers have lower values than types with few. :math:`\lambda = 0.6` of the type's typical value (shrunk towards related types) is
    therefore subtracted. What remains is corrected for a shift of the whole data set, the median over assigned types of the lower
    quartile of their cells minus the typical value in held-out studies, multiplied by n² / (n² + 36) for n types: a technical effect raises
    all types alike, whereas novel cells raise the lower quartile of few. A data set with few types is hardly corrected, because
    it may consist of novel cells only.
    """

    offsets: NDArray[np.float32]
    """(n_known,) typical novelty of cells assigned to each type."""
    reference: float
    """Typical lower quartile of a type's corrected novelty in a held-out study."""
    threshold: float
    """Corrected novelty above which a cell is called novel."""

    def corrected(
        self, novelty: NDArray[np.float32], assigned: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Subtract a fraction of the typical novelty of the assigned type; shape (n_cells,)."""
        found: NDArray[np.float32] = (novelty - self.offset_of(assigned)).astype(np.float32)
        return found

    def offset_of(self, assigned: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return what is subtracted for the assigned type; shape (n_cells,)."""
        found: NDArray[np.float32] = np.float32(_SHARE_OF_OFFSET) * self.offsets[assigned]
        return found

    def shift(self, corrected: NDArray[np.float32], assigned: NDArray[np.integer]) -> float:
        """Estimate the shift of a data set from all of its cells; NaN are left out."""
        return data_set_shift(corrected, assigned, self.reference)


def usual_novelty(
    novelty: NDArray[np.floating],
    assigned: NDArray[np.integer],
    weight: NDArray[np.floating],
    similarity: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Return the mean novelty of each type, shrunk towards that of ontologically similar types.

    Parameters
    ----------
    novelty, assigned, weight
        (n_cells,) of known cells of held-out studies.
    similarity
        (n_known, n_known) Lin similarity.

    Returns
    -------
    (n_known,)
    """
    n_types = len(similarity)
    total = np.bincount(assigned, weight, n_types)
    summed = np.bincount(assigned, weight * novelty, n_types)
    overall = summed.sum() / total.sum()
    related = np.maximum(similarity, 0) ** _RELATED
    related = related * (1 - np.eye(n_types))
    prior = (related @ summed + overall) / (related @ total + 1)
    found: NDArray[np.float32] = ((summed + _PRIOR_CELLS * prior) / (total + _PRIOR_CELLS)).astype(
        np.float32
    )
    return found


def lower_quartiles(
    corrected: NDArray[np.floating], assigned: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower quartile over the cells of each assigned type, and the weight of each type; types without cells are left out."""
    usable = np.isfinite(corrected)
    values, groups = np.asarray(corrected)[usable], np.asarray(assigned)[usable]
    present = np.unique(groups)
    quartiles = np.array([np.quantile(values[groups == t], _QUANTILE) for t in present])
    counts = np.array([(groups == t).sum() for t in present], dtype=float)
    return quartiles, counts / (counts + _HALF_GROUP)


def data_set_shift(
    corrected: NDArray[np.floating], assigned: NDArray[np.integer], reference: float
) -> float:
    """Return the shift of a data set; see :class:`NoveltyCalibration`."""
    quartiles, weight = lower_quartiles(corrected, assigned)
    if not len(quartiles):
        return 0.0
    order = np.argsort(quartiles, kind="stable")
    cumulated = np.cumsum(weight[order])
    median = quartiles[order][np.searchsorted(cumulated, cumulated[-1] / 2)]
    n = weight.sum()
    return float((median - reference) * n**2 / (n**2 + _PRIOR_TYPES**2))


def weighted_quantile(
    values: NDArray[np.floating], q: float, weight: NDArray[np.floating]
) -> float:
    """Return the smallest value with at least a fraction q of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weight[order])
    place = min(int(np.searchsorted(cumulated, q * cumulated[-1])), len(order) - 1)
    return float(values[order][place])
