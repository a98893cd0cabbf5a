"""In-silico perturbation: masking, deletion and overexpression of genes and gene sets. Arrays and tensors; no AnnData."""

from __future__ import annotations

from .edits import Mode, Perturbation
from .exact import exact_scores, half_squared_distance
from .fast import fast_scores
from .gene_ontology import Aspect, GeneOntology
from .scores import N_SCREENED, PerturbMethod, perturbation_scores
from .shifts import CellShifts, Target, perturbation_shifts

__all__ = [
    "N_SCREENED",
    "Aspect",
    "CellShifts",
    "GeneOntology",
    "Mode",
    "PerturbMethod",
    "Perturbation",
    "Target",
    "exact_scores",
    "fast_scores",
    "half_squared_distance",
    "perturbation_scores",
    "perturbation_shifts",
]
