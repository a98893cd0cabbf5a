"""In-silico perturbation: how far each gene moves its cell. Arrays and tensors only."""

from __future__ import annotations

from .exact import exact_scores, half_squared_distance
from .fast import fast_scores
from .scores import PerturbMethod, perturbation_scores

__all__ = [
    "PerturbMethod",
    "exact_scores",
    "fast_scores",
    "half_squared_distance",
    "perturbation_scores",
]
