"""Assign Cell Ontology terms from embeddings and counts: known types, open terms, marker evidence. Works on arrays."""

from __future__ import annotations

from .add_types import NewCells, add_types
from .backoff import Lineages, conformal_threshold
from .evidence import EvidenceWeights
from .evidence_file import default_fit, evidence_of, load_evidence, save_evidence
from .evidence_fit import EvidenceFit
from .fit_evidence import fit_evidence
from .known_types import KnownTypes, LabelledCells
from .marker_scores import Background, BoundScorer, MarkerScorer, MarkerScores, MarkerSupport
from .marker_support import MarkerNames, marker_names, marker_names_of_cells
from .markers import CellMarkers
from .open_world import ALL_SOURCES, CONTRIBUTIONS, OpenWorldAnnotator
from .prepare import (
    annotator_for,
    calibrated_lengths,
    calibration_warning,
    in_tissues,
    infer_tissues,
    tissue_sample,
    weights_in_tissue,
)
from .protocol import ProtocolScore, closed_set_protocol
from .reference import Reference
from .reference_parts import Neighbors
from .result import Annotation, OpenAnnotation, PartialAnnotation, TermNames
from .tissues import TissueWeights, allowed_types, check_tissues, tissue_types
from .zero_shot import Candidates, resolve_candidates

__all__ = [
    "ALL_SOURCES",
    "CONTRIBUTIONS",
    "Annotation",
    "Background",
    "BoundScorer",
    "Candidates",
    "CellMarkers",
    "EvidenceFit",
    "EvidenceWeights",
    "KnownTypes",
    "LabelledCells",
    "Lineages",
    "MarkerNames",
    "MarkerScorer",
    "MarkerScores",
    "MarkerSupport",
    "Neighbors",
    "NewCells",
    "OpenAnnotation",
    "OpenWorldAnnotator",
    "PartialAnnotation",
    "ProtocolScore",
    "Reference",
    "TermNames",
    "TissueWeights",
    "add_types",
    "allowed_types",
    "annotator_for",
    "calibrated_lengths",
    "calibration_warning",
    "check_tissues",
    "closed_set_protocol",
    "conformal_threshold",
    "default_fit",
    "evidence_of",
    "fit_evidence",
    "in_tissues",
    "infer_tissues",
    "load_evidence",
    "marker_names",
    "marker_names_of_cells",
    "resolve_candidates",
    "save_evidence",
    "tissue_sample",
    "tissue_types",
    "weights_in_tissue",
]
