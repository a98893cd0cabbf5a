"""What the annotation of cells knows of a model: kept beside its weights, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import WeightsError
from sccello_tools.models import ANNOTATION_FILE

from .features import FeatureScale
from .head import LinearHead
from .novelty import ReferenceCells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class AnnotationStatistics:
    """Prototypes, head, reference cells and calibration of one model."""

    types: tuple[str, ...]
    """Cell Ontology ids of the known types, or names of a user's own."""
    counts: NDArray[np.int64]
    """(n_types,) cells that each was learnt from; 0 for types added by name."""
    prototypes: NDArray[np.float32]
    """(n_types, d) unit vectors: mean ``cell`` representation of the type's cells."""
    scale: FeatureScale
    head: LinearHead
    reference: ReferenceCells
    conformal_scores: NDArray[np.float32]
    """Ascending: what :meth:`Lineages.least_sure` gave for the calibration cells."""
    novelty_scores: NDArray[np.float32]
    """Ascending: novelty of the calibration cells, all of known types."""
    zero_shot_temperature: float
    """What zero-shot scores are divided by to become confidence."""
    weights_sha256: str
    """Of the model that all this was measured with."""
    ontology_release: str
    parents: dict[str, str] = field(default_factory=dict)
    """Term that each name of a user's own belongs under."""

    def __repr__(self) -> str:
        """Say what it holds, not the arrays: it is what a notebook shows after tl.calibrate."""
        return (
            f"AnnotationStatistics({len(self.types)} types, {len(self.reference.points):,} reference cells, "
            f"Cell Ontology {self.ontology_release})"
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``annotation.safetensors`` into a model folder."""
        from safetensors.numpy import save_file

        path = Path(folder) / ANNOTATION_FILE
        facts = {
            "format": _FORMAT,
            "types": list(self.types),
            "temperature": self.head.temperature,
            "zero_shot_temperature": self.zero_shot_temperature,
            "weights_sha256": self.weights_sha256,
            "ontology_release": self.ontology_release,
            "parents": self.parents,
        }
        arrays = {
            "counts": self.counts,
            "prototypes": self.prototypes,
            "scale_mean": self.scale.mean,
            "scale_spread": self.scale.spread,
            "head_weight": self.head.weight,
            "head_bias": self.head.bias,
            "reference_points": self.reference.points.astype(np.float16),
            "reference_lengths": self.reference.lengths,
            "reference_types": self.reference.types.astype(np.int32),
            "reference_spread": self.reference.spread,
            "conformal_scores": self.conformal_scores,
            "novelty_scores": self.novelty_scores,
        }
        part = path.with_name(f".{path.name}.part")
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            part,
            metadata={"sccello_annotation": json.dumps(facts)},
        )
        part.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> AnnotationStatistics:
        """Read what :meth:`save` wrote.

        Raises
        ------
        WeightsError
            If the file is missing, damaged, or of another format.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["sccello_annotation"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["format"] != _FORMAT:
                msg = f"{path} has format {facts['format']}, this package reads {_FORMAT}. Make it anew with tl.calibrate."
                raise WeightsError(msg)
            return cls(
                types=tuple(facts["types"]),
                counts=arrays["counts"],
                prototypes=arrays["prototypes"],
                scale=FeatureScale(arrays["scale_mean"], arrays["scale_spread"]),
                head=LinearHead(
                    arrays["head_weight"], arrays["head_bias"], float(facts["temperature"])
                ),
                reference=ReferenceCells(
                    arrays["reference_points"].astype(np.float32),
                    arrays["reference_lengths"],
                    arrays["reference_types"].astype(np.intp),
                    arrays["reference_spread"],
                ),
                conformal_scores=arrays["conformal_scores"],
                novelty_scores=arrays["novelty_scores"],
                zero_shot_temperature=float(facts["zero_shot_temperature"]),
                weights_sha256=str(facts["weights_sha256"]),
                ontology_release=str(facts["ontology_release"]),
                parents=dict(facts.get("parents", {})),
            )
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            msg = f"{path} cannot be read as annotation statistics ({error}). Make it with tl.calibrate(adata, label_key, model=...)."
            raise WeightsError(msg) from error


def statistics_of(model: LoadedModel) -> AnnotationStatistics:
    """Read the annotation statistics of a loaded model.

    Raises
    ------
    WeightsError
        If the model has none, or those of other weights.
    """
    path = model.folder / ANNOTATION_FILE
    if not path.is_file():
        msg = (
            f"Model {model.name!r} has no {ANNOTATION_FILE}: nothing says how sure it may be, nor what its types look like. "
            "Make it from labelled cells with tl.calibrate(adata, label_key, model=...), or annotate from a reference with tl.annotate."
        )
        raise WeightsError(msg)
    found = AnnotationStatistics.load(path)
    if found.weights_sha256 != model.sha256:
        msg = (
            f"{path} was measured with other weights (sha256 {found.weights_sha256[:12]}…, the model's are {model.sha256[:12]}…). "
            "Make it anew with tl.calibrate."
        )
        raise WeightsError(msg)
    return found
