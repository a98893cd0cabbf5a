"""From embeddings to annotations: back-off, novelty, names for unseen types. Arrays in, arrays out."""

from __future__ import annotations

from .add_types import add_types
from .annotate import Annotation, Annotator
from .backoff import Lineages, conformal_threshold
from .calibrate import KnownCells, calibrate
from .protocol import ProtocolScore, closed_set_protocol
from .reference import Reference
from .reference_parts import Neighbors
from .statistics import AnnotationStatistics, statistics_of
from .tissues import allowed_types, check_tissues, tissue_types
from .zero_shot import Candidates, resolve_candidates

__all__ = [
    "Annotation",
    "AnnotationStatistics",
    "Annotator",
    "Candidates",
    "KnownCells",
    "Lineages",
    "Neighbors",
    "ProtocolScore",
    "Reference",
    "add_types",
    "allowed_types",
    "calibrate",
    "check_tissues",
    "closed_set_protocol",
    "conformal_threshold",
    "resolve_candidates",
    "statistics_of",
    "tissue_types",
]
