"""A classifier of user-defined labels, stored next to the weights of its model, and the model folder that contains both."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools import _io
from sccello_tools.annotation.head import LinearHead
from sccello_tools.errors import WeightsError
from sccello_tools.models import ANNOTATION_FILE, CLASSIFIER_FILE, load, save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    import numpy as np
    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .data import Split
    from .fit import FinetuneResult

_HEADER: Final = "sccello_classifier"
_FORMAT: Final = 2
_WEIGHTS: Final = ("config.json", "model.safetensors", "pytorch_model.bin")
_INHERITED: Final = (
    "vocabulary",
    "ontology_release",
    "licence",
    "licence_note",
    "citation",
    "paper",
    "training_data",
    "representation",
)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear layer on the ``<cls>`` embeddings of one model; created by :func:`sccello_tools.tl.finetune`."""

    labels: tuple[str, ...]
    """Labels as given by the user."""
    head: LinearHead
    """One row per label; its temperature is calibrated on the validation cells."""
    label_key: str
    """Column of ``obs`` that the labels came from."""
    mode: str
    """"linear", "lora" or "full"."""
    weights_sha256: str
    """Hash of the model whose embeddings it classifies."""
    scores: dict[str, float] = field(default_factory=dict)
    """Accuracy, macro_f1, loss (cross-entropy) and n_cells of the validation cells."""
    validation_groups: tuple[str, ...] = ()
    """Values of ``batch_key`` that were held out; empty if single cells were held out."""

    def save(self, folder: str | Path) -> Path:
        """Write ``classifier.safetensors`` into a model folder."""
        path = Path(folder) / CLASSIFIER_FILE
        metadata = {
            "format": _FORMAT,
            "labels": list(self.labels),
            "temperature": self.head.temperature,
            "label_key": self.label_key,
            "mode": self.mode,
            "weights_sha256": self.weights_sha256,
            "scores": self.scores,
            "validation_groups": list(self.validation_groups),
        }
        arrays = {"weight": self.head.weight, "bias": self.head.bias}
        _io.write_arrays(path, arrays, metadata, header=_HEADER)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
        """Read a file written by :meth:`save`.

        Raises
        ------
        WeightsError
            If the file is missing, damaged, or of another format.
        """
        try:
            arrays, metadata = _io.read_arrays(Path(path), header=_HEADER)
            if metadata["format"] != _FORMAT:
                msg = f"format {metadata['format']}, but this version reads format {_FORMAT}"
                raise ValueError(msg)
            labels, weight, bias = tuple(metadata["labels"]), arrays["weight"], arrays["bias"]
            if weight.ndim != 2 or not len(labels) == len(weight) == len(bias):
                msg = f"{len(labels)} labels for weights of shape {weight.shape} and {bias.shape}"
                raise ValueError(msg)
            return cls(
                labels=labels,
                head=LinearHead(weight, bias, float(metadata["temperature"])),
                label_key=str(metadata["label_key"]),
                mode=str(metadata["mode"]),
                weights_sha256=str(metadata["weights_sha256"]),
                scores={str(name): float(value) for name, value in metadata["scores"].items()},
                validation_groups=tuple(metadata["validation_groups"]),
            )
        except (ValueError, KeyError) as error:
            msg = f"{path} is not a readable classifier ({error}). Create it again with tl.finetune(adata, label_key, out=...)."
            raise WeightsError(msg) from error

    def probabilities(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n_cells, n_labels) probabilities for (n_cells, d) ``<cls>`` embeddings; rows with NaN stay NaN."""
        return self.head.probabilities(hidden)


def classifier_of(model: LoadedModel) -> Classifier:
    """Return the classifier of a loaded model, which is read once per model.

    Raises
    ------
    WeightsError
        If the model has no classifier, or one for other weights.
    """
    return model.resource(_read_classifier, file=CLASSIFIER_FILE)


def _read_classifier(model: LoadedModel) -> Classifier:
    path = model.folder / CLASSIFIER_FILE
    if not path.is_file():
        msg = (
            f"Model {model.name!r} has no {CLASSIFIER_FILE}: it was not fine-tuned. Call tl.finetune(adata, label_key, out=...) first, "
            "or assign Cell Ontology types with tl.annotate_novel(adata)."
        )
        raise WeightsError(msg)
    found = Classifier.load(path)
    if found.weights_sha256 != model.sha256:
        msg = (
            f"{path} belongs to other weights (sha256 {found.weights_sha256[:12]}..., the model has {model.sha256[:12]}...). "
            "Create it again with tl.finetune."
        )
        raise WeightsError(msg)
    return found


def write_model(
    result: FinetuneResult,
    folder: Path,
    *,
    base: LoadedModel,
    labels: tuple[str, ...],
    split: Split,
    name: str,
    run: Mapping[str, Any],
) -> None:
    """Write weights, classifier, curve and metadata as a model folder.

    With a frozen encoder the files of the base model are copied: its embeddings and annotation statistics remain valid.

    Parameters
    ----------
    result
        What was trained.
    folder
        Output folder.
    base
        The model that was fine-tuned.
    labels
        Labels in the order of the classifier's rows.
    split
        Training and validation cells.
    name
        Name of the new model.
    run
        Mode, label_key, n_cells and configuration; stored in ``metadata.json`` as ``finetune_config``.
    """
    entry = base.entry
    metadata = entry.model_dump(mode="json", include=set(_INHERITED), exclude_none=True)
    metadata["name"] = name
    metadata["description"] = (
        f"{base.name}, fine-tuned ({run['mode']}) to {len(labels)} labels of {run['n_cells']:,} cells."
    )
    metadata["finetune_config"] = dict(run)
    types = None
    if base.labels:
        types = pd.DataFrame(
            {"cell_type_ontology_term_id": base.labels, "cell_type": base.label_names}
        )
        space = entry.label_space
        metadata["label_space"] = {
            "name": "own" if space is None else space.name,
            "n_labels": len(base.labels),
        }
    save(result.network, folder, labels=types, metadata=metadata)
    if run["mode"] == "linear":
        for file in _WEIGHTS:
            (folder / file).unlink(missing_ok=True)
        for file in (*_WEIGHTS, ANNOTATION_FILE):
            if (base.folder / file).is_file():
                shutil.copy(base.folder / file, folder / file)
    Classifier(
        labels=labels,
        head=result.head,
        label_key=run["label_key"],
        mode=run["mode"],
        weights_sha256=load(folder, device="cpu", keep=False).sha256,
        scores=result.scores,
        validation_groups=split.groups,
    ).save(folder)
    result.curve.to_csv(folder / "finetuning_curve.csv", index=False, float_format="%.5g")
