"""Labelled cells, and what is learnt of their types from embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .classifier import TypeDistances, fit_classifier, types_below
from .evidence import CellEvidence, log_sum_exp
from .features import FeatureScale
from .term_space import up

if TYPE_CHECKING:
    from typing import Final, Literal

    from numpy.typing import NDArray
    from scipy import sparse

    from sccello_tools.ontology import CellOntology

    from .marker_scores import MarkerScores

CLASSIFIER_TEMPERATURE: Final = 1.5
"""Divisor of the classifier's logits: cells of new studies are less certain than those that it was fitted to."""


@dataclass(frozen=True, eq=False)
class LabelledCells:
    """Embedded cells of known type with their counts."""

    hidden: NDArray[np.float32]
    """(n_cells, d) of ``representation="cls"``."""
    cells: NDArray[np.float32]
    """(n_cells, d) of ``representation="cell"``."""
    counts: sparse.csr_matrix
    """(n_cells, n_tokens) raw counts by token."""
    types: NDArray[np.str_]
    """(n_cells,) Cell Ontology ids."""
    studies: NDArray[np.str_]
    """(n_cells,) what is held out together."""
    panels: NDArray[np.intp]
    """(n_cells,) row of ``measured``."""
    measured: NDArray[np.bool_]
    """(n_panels, n_tokens) genes that each source measures."""
    synthetic: NDArray[np.bool_]
    """(n_cells,) drawn from a profile: used for the classifier, but not for calibration."""
    frequency: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    """(n_cells,) number of cells of the same type and study before sampling; counted among these cells if empty."""

    def take(self, rows: NDArray[np.integer]) -> LabelledCells:
        """Return some of the cells."""
        return LabelledCells(
            self.hidden[rows],
            self.cells[rows],
            self.counts[rows],
            self.types[rows],
            self.studies[rows],
            self.panels[rows],
            self.measured,
            self.synthetic[rows],
            self.frequency[rows] if len(self.frequency) else self.frequency,
        )

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.types)


@dataclass(frozen=True, eq=False)
class KnownTypes:
    """Classifier, prototypes and distances of the known types, fitted to embeddings."""

    types: tuple[str, ...]
    """Cell Ontology ids, or user-defined names."""
    scale: FeatureScale
    weight: NDArray[np.float32]
    """(n_types, 2 d) of the classifier; see :meth:`FeatureScale.features`."""
    bias: NDArray[np.float32]
    """(n_types,)"""
    prototypes: NDArray[np.float32]
    """(n_types, d) unit vectors: mean of the ``cell`` representation."""
    distances: TypeDistances
    distances_of: Literal["cls", "cell"] = "cls"
    """Representation that distances are measured in: scaled ``cls`` rows, or ``cell`` rows if there were only prototypes."""

    @classmethod
    def fit(
        cls,
        cells: LabelledCells,
        ontology: CellOntology,
        *,
        penalty: float = 100.0,
        synthetic_weight: float = 0.3,
    ) -> KnownTypes:
        """Fit classifier, prototypes and distances."""
        types, index = np.unique(cells.types, return_inverse=True)
        scale = FeatureScale.of(cells.hidden)
        group = pair_index(cells.studies, cells.types)
        weight = np.bincount(group)[group] ** -0.5 * np.where(cells.synthetic, synthetic_weight, 1)
        below = types_below(types.tolist(), [up(ontology, t) for t in types.tolist()])
        coefficients, bias = fit_classifier(
            scale.features(cells.hidden, cells.cells),
            index,
            below,
            sample_weight=weight,
            penalty=penalty,
        )
        distances = TypeDistances.of((cells.hidden - scale.mean) / scale.spread, index, len(types))
        prototypes = mean_directions(cells.cells, index, len(types))
        return cls(tuple(types.tolist()), scale, coefficients, bias, prototypes, distances)

    def evidence(
        self,
        hidden: NDArray[np.float32],
        cells: NDArray[np.float32],
        markers: MarkerScores | None,
        *,
        kept: NDArray[np.bool_] | None = None,
        log_weight: NDArray[np.float32] | None = None,
        temperature: float = CLASSIFIER_TEMPERATURE,
    ) -> CellEvidence:
        """Collect the evidence on cells.

        Parameters
        ----------
        hidden, cells
            (n_cells, d) of both representations.
        markers
            Their marker scores.
        kept
            (n_types,) types that are regarded as known; all if not given.
        log_weight
            (n_types,) added to the log probabilities, such as how usual types are in a tissue.
        temperature
            Divisor of the logits.
        """
        features = self.scale.features(hidden, cells)
        logits = (features @ self.weight.T + self.bias) / np.float32(temperature)
        if log_weight is not None:
            logits += log_weight
        if kept is not None:
            logits[:, ~kept] = -np.inf
        log_p = logits - log_sum_exp(logits)[:, None]
        scaled = (hidden - self.scale.mean) / self.scale.spread
        points = scaled if self.distances_of == "cls" else cells
        return CellEvidence(
            log_p, cells @ self.prototypes.T, self.distances.log_nearest(points, kept), markers
        )


def pair_index(first: NDArray[np.str_], second: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the index of each pair of values among the distinct pairs, such as of study and type; shape (n_cells,)."""
    return np.unique(np.char.add(np.char.add(first, "|"), second), return_inverse=True)[1]


def mean_directions(
    cells: NDArray[np.float32], index: NDArray[np.integer], n_types: int
) -> NDArray[np.float32]:
    """Mean of the unit vectors of each type, normalised; shape (n_types, d)."""
    sums = np.zeros((n_types, cells.shape[1]))
    np.add.at(sums, index, cells)
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    found: NDArray[np.float32] = (sums / lengths).astype(np.float32)
    return found
