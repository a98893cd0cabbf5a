"""Prepare an annotator from the arguments of the public functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .markers import CellMarkers
from .open_world import ALL_SOURCES, OpenWorldAnnotator
from .tissues import allowed_types, check_tissues

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .decisions import Level
    from .evidence_fit import EvidenceFit
    from .open_world import Source
    from .zero_shot import ZeroShotMethod

_TISSUE_CELLS = 5_000  # maximum number of cells from which tissues are inferred
_LEAST_TISSUE = 0.01


def annotator_for(
    fit: EvidenceFit,
    ontology: CellOntology,
    markers: CellMarkers | None = None,
    *,
    candidates: Sequence[str] | None = None,
    tissue: str | Sequence[str] | None = None,
    evidence: Sequence[Source] = ALL_SOURCES,
    method: ZeroShotMethod = "combined",
    level: Level = "auto",
    alpha: float = 0.1,
) -> OpenWorldAnnotator:
    """Return an annotator, which is used after :meth:`OpenWorldAnnotator.for_columns`.

    Parameters
    ----------
    fit
        Fitted parameters of the model.
    ontology
        Cell Ontology.
    markers
        User-defined markers, which replace the packaged ones of the same terms.
    candidates
        Terms to choose from.
    tissue
        Tissue of the cells.
    evidence, method, level, alpha
        See :meth:`OpenWorldAnnotator.of`.

    Raises
    ------
    LabelError
        If the tissue is unknown, or there are fewer than two candidates.
    """
    packaged = CellMarkers.load()
    weights = None if tissue is None else weights_in_tissue(fit, tissue, ontology)
    return OpenWorldAnnotator.of(
        fit,
        ontology,
        packaged if markers is None else packaged.updated(markers),
        candidates=candidates,
        type_weights=weights,
        evidence=evidence,
        method=method,
        level=level,
        alpha=alpha,
    )


def calibration_warning(fit: EvidenceFit, name: str) -> str | None:
    """Return the warning about a model without calibration, or None.

    Parameters
    ----------
    fit
        Fitted parameters of the model.
    name
        Name of the model.
    """
    if fit.calibrated:
        return None
    return f"Model {name!r} is not calibrated: types are those of its prototypes, and confidence and novelty are not calibrated. Calibrate it on labelled cells with tl.calibrate."


def weights_in_tissue(
    fit: EvidenceFit, tissue: str | Sequence[str], ontology: CellOntology
) -> NDArray[np.floating]:
    """Return factors on the probabilities of known types, (n_known,): those of the fit, else 0 for types of other organs.

    Raises
    ------
    LabelError
        If the tissue is unknown.
    """
    if fit.tissues is not None:
        return fit.tissues.of(tissue)
    check_tissues(tissue)
    allowed = allowed_types(tissue, fit.known.types, ontology, parents=fit.parents)
    return allowed.astype(np.float32)


def tissue_sample(n_cells: int) -> slice:
    """Return the cells of a data set from which its tissues are inferred: at most 5,000, at equal intervals."""
    return slice(None, None, max(1, -(-n_cells // _TISSUE_CELLS)))


def infer_tissues(
    annotator: OpenWorldAnnotator, hidden: NDArray[np.float32], cells: NDArray[np.float32]
) -> dict[str, float]:
    """Return the fractions of tissues in a data set that are at least 1 %; empty if the model has no tissue weights.

    Parameters
    ----------
    annotator
        Without weights of a tissue.
    hidden, cells
        (n, d) of ``representation="cls"`` and ``"cell"`` of the cells of :func:`tissue_sample`.
    """
    tissues = annotator.fit.tissues
    if tissues is None or not len(hidden):
        return {}
    fractions = tissues.infer(annotator.known_probabilities(hidden, cells))
    return {name: float(f) for name, f in zip(tissues.names, fractions) if f > _LEAST_TISSUE}


def in_tissues(annotator: OpenWorldAnnotator, fractions: Mapping[str, float]) -> OpenWorldAnnotator:
    """Return an annotator for cells of the tissues of :func:`infer_tissues`."""
    tissues = annotator.fit.tissues
    if tissues is None or not fractions:
        return annotator
    return annotator.in_tissue(
        np.array([fractions.get(name, 0.0) for name in tissues.names]) @ tissues.weights
    )


def calibrated_lengths(fit: EvidenceFit, max_positions: int) -> tuple[float, float]:
    """Return the least and largest number of tokens of the cells that confidence was calibrated on.

    Parameters
    ----------
    fit
        Fitted parameters of the model.
    max_positions
        Number of positions of the model, to which cells are truncated.
    """
    low, high = fit.token_range
    return min(low, max_positions), high
