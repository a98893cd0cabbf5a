"""An annotator from the arguments of the public functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .markers import CellMarkers
from .open_world import ALL_SOURCES, OpenWorldAnnotator
from .tissues import allowed_types, check_tissues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .evidence_fit import EvidenceFit
    from .open_world import Level, Source
    from .zero_shot import ZeroShotMethod


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
        What was learnt of the model.
    ontology
        Cell Ontology.
    markers
        Markers of a user's own, which replace the packaged ones of the same terms.
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
        What was learnt of the model.
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
