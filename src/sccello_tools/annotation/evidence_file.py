"""The fit that annotation with a model needs, in one safetensors file of the model's folder."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._io import read_arrays, write_arrays
from sccello_tools.errors import WeightsError
from sccello_tools.models import ANNOTATION_FILE

from .classifier import TypeDistances
from .evidence import EvidenceWeights
from .evidence_fit import EvidenceFit
from .features import FeatureScale
from .known_types import KnownTypes
from .novelty import NoveltyCalibration
from .prototypes import fit_of_prototypes
from .tissues import TissueWeights

if TYPE_CHECKING:
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

_KEY: Final = "sccello_annotation"
_FORMAT: Final = 2


def save_evidence(
    fit: EvidenceFit, folder: str | Path, *, weights_sha256: str, ontology_release: str
) -> Path:
    """Write ``annotation.safetensors`` into a model folder.

    Parameters
    ----------
    fit
        The fit.
    folder
        Folder of the model.
    weights_sha256
        Hash of the weights that embedded the cells.
    ontology_release
        Cell Ontology release of the types.

    Returns
    -------
    Path of the file.
    """
    known = fit.known
    arrays: dict[str, NDArray[Any]] = {
        "scale_mean": known.scale.mean,
        "scale_spread": known.scale.spread,
        "classifier_weight": known.weight.astype(np.float16),
        "classifier_bias": known.bias,
        "prototypes": known.prototypes.astype(np.float16),
        "whitening": known.distances.whitening,
        "centres": known.distances.centres.astype(np.float16),
        "novelty_offsets": fit.novelty.offsets,
        "counts": fit.counts,
    }
    if fit.tissues is not None:
        arrays["tissue_weights"] = fit.tissues.weights.astype(np.float16)
    metadata: dict[str, Any] = {
        "format": _FORMAT,
        "types": list(known.types),
        "distances_of": known.distances_of,
        "weights": asdict(fit.weights),
        "novelty_reference": fit.novelty.reference,
        "novelty_threshold": fit.novelty.threshold,
        "known_temperature": fit.known_temperature,
        "open_temperature": fit.open_temperature,
        "fallback_threshold": fit.fallback_threshold,
        "token_range": [float(n) for n in np.nan_to_num(fit.token_range, posinf=1e9)],
        "parents": dict(fit.parents),
        "tissues": list(fit.tissues.names) if fit.tissues is not None else [],
        "prefers_subtypes": fit.prefers_subtypes,
        "calibrated": fit.calibrated,
        "weights_sha256": weights_sha256,
        "ontology_release": ontology_release,
    }
    path = Path(folder) / ANNOTATION_FILE
    write_arrays(path, arrays, metadata, header=_KEY)
    return path


def load_evidence(path: str | Path) -> tuple[EvidenceFit, dict[str, str]]:
    """Read what :func:`save_evidence` wrote.

    Returns
    -------
    The fit, and the hash of the model's weights ("weights_sha256") and the Cell Ontology release ("ontology_release") that it was
    learnt with.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another format.
    """
    remedy = "Re-run tl.calibrate(adata, label_key, model=...)."
    try:
        arrays, metadata = read_arrays(Path(path), header=_KEY)
    except ValueError as error:
        msg = f"{path} cannot be read as annotation statistics ({error}). {remedy}"
        raise WeightsError(msg) from error
    if metadata.get("format") != _FORMAT:
        msg = f"{path} has format {metadata.get('format')}, this package reads format {_FORMAT}. {remedy}"
        raise WeightsError(msg)
    try:
        known = KnownTypes(
            tuple(metadata["types"]),
            FeatureScale(arrays["scale_mean"], arrays["scale_spread"]),
            arrays["classifier_weight"].astype(np.float32),
            arrays["classifier_bias"],
            arrays["prototypes"].astype(np.float32),
            TypeDistances(arrays["whitening"], arrays["centres"].astype(np.float32)),
            metadata["distances_of"],
        )
        low, high = metadata["token_range"]
        tissues = None
        if metadata["tissues"]:
            tissues = TissueWeights(
                tuple(metadata["tissues"]), arrays["tissue_weights"].astype(np.float32)
            )
        fit = EvidenceFit(
            known,
            EvidenceWeights(**metadata["weights"]),
            NoveltyCalibration(
                arrays["novelty_offsets"],
                float(metadata["novelty_reference"]),
                float(metadata["novelty_threshold"]),
            ),
            float(metadata["known_temperature"]),
            float(metadata["open_temperature"]),
            float(metadata["fallback_threshold"]),
            counts=arrays["counts"],
            token_range=(float(low), float(high)),
            parents=dict(metadata["parents"]),
            tissues=tissues,
            prefers_subtypes=bool(metadata.get("prefers_subtypes", False)),
            calibrated=bool(metadata["calibrated"]),
        )
        return fit, {name: str(metadata[name]) for name in ("weights_sha256", "ontology_release")}
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path} lacks {error}, or holds a wrong value. {remedy}"
        raise WeightsError(msg) from error


@cache
def default_fit() -> EvidenceFit:
    """Return the fit of the bundled model, whose evidence weights are used where none can be learnt."""
    folder = files("sccello_tools.resources").joinpath("models", "sccello-small")
    with as_file(folder.joinpath(ANNOTATION_FILE)) as path:
        return load_evidence(path)[0]


def evidence_of(model: LoadedModel) -> EvidenceFit:
    """Return the evidence fit of a loaded model; it is read once per model.

    A model without ``annotation.safetensors`` gets an uncalibrated fit from its prototypes; see :func:`fit_of_prototypes`.

    Raises
    ------
    WeightsError
        If the file is damaged or was computed with other weights, or the model has neither the file nor labelled prototypes.
    """
    return model.resource(_evidence_of, file=ANNOTATION_FILE)


def _evidence_of(model: LoadedModel) -> EvidenceFit:
    path = model.folder / ANNOTATION_FILE
    if not path.is_file():
        if not model.labels:
            msg = (
                f"Model {model.name!r} has neither {ANNOTATION_FILE} nor labels of its prototypes, so its cell types are unknown. "
                "Compute the file from labelled cells with tl.calibrate(adata, label_key, model=...), or annotate from a reference with tl.annotate."
            )
            raise WeightsError(msg)
        return fit_of_prototypes(model.prototypes, default_fit())
    fit, made = load_evidence(path)
    if made["weights_sha256"] != model.sha256:
        msg = (
            f"{path} was computed with other weights (sha256 {made['weights_sha256'][:12]}..., the model's are {model.sha256[:12]}...). "
            "Re-run tl.calibrate."
        )
        raise WeightsError(msg)
    return fit
