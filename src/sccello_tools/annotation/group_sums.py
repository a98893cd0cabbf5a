"""Sums of evidence over groups of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .evidence import SharedScores

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Sums over the cells of each group; chunks of cells are added one after the other."""

    n_cells: NDArray[np.int64]
    """(n_groups,) cells with an embedding."""
    log_probabilities: NDArray[np.float64]
    """(n_groups, n_known)"""
    parts: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    """(n_groups, n_rows) scores by source; see :class:`SharedScores`."""
    novelty: NDArray[np.float64]
    """(n_groups,)"""
    choices: NDArray[np.float64]
    """(n_groups, n_candidates)"""

    @classmethod
    def empty(cls, n_groups: int, n_known: int, n_rows: int, n_candidates: int) -> GroupSums:
        """Return sums of zero."""
        embedding, ontology, markers = (np.zeros((n_groups, n_rows)) for _ in range(3))
        return cls(
            np.zeros(n_groups, dtype=np.int64),
            np.zeros((n_groups, n_known)),
            (embedding, ontology, markers),
            np.zeros(n_groups),
            np.zeros((n_groups, n_candidates)),
        )

    def add(
        self,
        groups: NDArray[np.integer],
        usable: NDArray[np.bool_],
        log_probabilities: NDArray[np.float32],
        parts: SharedScores,
        novelty: NDArray[np.float32],
        choices: NDArray[np.float32] | None,
    ) -> None:
        """Add cells; those that are not usable or have a negative group are left out."""
        rows = np.flatnonzero(usable & (groups >= 0))
        members = sparse.csr_array(
            (np.ones(len(rows)), (groups[rows], rows)), shape=(len(self.n_cells), len(groups))
        )
        self.n_cells[:] += np.bincount(groups[rows], minlength=len(self.n_cells))
        self.log_probabilities[:] += members @ log_probabilities
        for total, values in zip(self.parts, parts):
            total[:] += members @ values
        self.novelty[:] += members @ np.where(usable, novelty, 0)
        if choices is not None:
            self.choices[:] += members @ choices

    def means(
        self,
    ) -> tuple[NDArray[np.float32], SharedScores, NDArray[np.float32], NDArray[np.float32]]:
        """Return the means over cells in the order of the fields; the novelty of groups without cells is NaN."""
        n = np.maximum(self.n_cells, 1)
        over = n[:, None]
        embedding, ontology, markers = ((part / over).astype(np.float32) for part in self.parts)
        return (
            (self.log_probabilities / over).astype(np.float32),
            SharedScores(embedding, ontology, markers),
            np.where(self.n_cells > 0, self.novelty / n, np.nan).astype(np.float32),
            (self.choices / over).astype(np.float32),
        )
