"""Features for the annotation of cells: the scaled ``cls`` and ``cell`` representations of one embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FeatureScale:
    """Mean and scale of ``<cls>`` rows over the cells that a model was calibrated on."""

    mean: NDArray[np.float32]
    """(d,)"""
    spread: NDArray[np.float32]
    """(d,), above 0."""

    @classmethod
    def of(cls, hidden: NDArray[np.float32]) -> FeatureScale:
        """Estimate from (n_cells, d) ``<cls>`` rows."""
        spread = hidden.std(axis=0)
        return cls(hidden.mean(axis=0), np.maximum(spread, 1e-3 * spread.max() + 1e-12))

    def features(
        self, hidden: NDArray[np.float32], cells: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Concatenate both representations.

        Parameters
        ----------
        hidden
            (n_cells, d) of ``representation="cls"``.
        cells
            (n_cells, d) unit vectors of ``representation="cell"``.

        Returns
        -------
        (n_cells, 2 d) float32; both halves have columns of about unit variance.
        """
        scaled = (hidden - self.mean) / self.spread
        return np.hstack([scaled, cells * np.float32(np.sqrt(cells.shape[1]))]).astype(np.float32)
