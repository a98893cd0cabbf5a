"""Folds of held-out groups (donors or studies), used for calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FOLDS = 3


def assign_folds(groups: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Assign whole groups to folds of similar size, or single cells at random if there is only one group."""
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return rng.integers(N_FOLDS, size=len(groups))
    sizes = np.zeros(min(N_FOLDS, len(names)))
    fold_of = np.zeros(len(names), dtype=np.intp)
    for name in np.argsort(-counts, kind="stable"):
        fold_of[name] = sizes.argmin()
        sizes[fold_of[name]] += counts[name]
    return fold_of[member]
