"""A classifier of a user's own labels: kept beside the weights of its model, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.annotation.head import LinearHead
from sccello_tools.errors import WeightsError
from sccello_tools.models import CLASSIFIER_FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear layer on ``<cls>`` rows of one model. Make it with :func:`sccello_tools.tl.finetune`."""

    labels: tuple[str, ...]
    """Names as the user gave them."""
    head: LinearHead
    """One row a label; its temperature was measured on the held-out cells."""
    label_key: str
    """Column that the labels came from."""
    mode: str
    """"linear", "lora" or "full"."""
    weights_sha256: str
    """Of the model whose rows it reads."""
    scores: dict[str, float] = field(default_factory=dict)
    """Accuracy, macro F1 and cross-entropy on the held-out cells, and how many those were."""
    held_out_donors: tuple[str, ...] = ()
    """Donors that were held out."""

    def save(self, folder: str | Path) -> Path:
        """Write ``classifier.safetensors`` into a model folder."""
        from safetensors.numpy import save_file

        path = Path(folder) / CLASSIFIER_FILE
        facts = {
            "format": _FORMAT,
            "labels": list(self.labels),
            "temperature": self.head.temperature,
            "label_key": self.label_key,
            "mode": self.mode,
            "weights_sha256": self.weights_sha256,
            "scores": self.scores,
            "held_out_donors": list(self.held_out_donors),
        }
        arrays = {"weight": self.head.weight, "bias": self.head.bias}
        part = path.with_name(f".{path.name}.part")
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            part,
            metadata={"sccello_classifier": json.dumps(facts)},
        )
        part.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
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
                facts = json.loads((file.metadata() or {})["sccello_classifier"])
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
            if facts["format"] != _FORMAT:
                msg = f"{path} has format {facts['format']}, this package reads {_FORMAT}. Make it anew with tl.finetune."
                raise WeightsError(msg)
            labels = tuple(facts["labels"])
            if weight.ndim != 2 or not len(labels) == len(weight) == len(bias):
                msg = f"{path} names {len(labels)} labels for weights of shape {weight.shape} and {bias.shape}. Make it anew with tl.finetune."
                raise WeightsError(msg)
            return cls(
                labels=labels,
                head=LinearHead(weight, bias, float(facts["temperature"])),
                label_key=str(facts["label_key"]),
                mode=str(facts["mode"]),
                weights_sha256=str(facts["weights_sha256"]),
                scores={str(name): float(value) for name, value in facts["scores"].items()},
                held_out_donors=tuple(facts["held_out_donors"]),
            )
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            msg = f"{path} cannot be read as a classifier ({error}). Make it with tl.finetune(adata, label_key, out=...)."
            raise WeightsError(msg) from error

    def probabilities(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n_cells, n_labels) of (n_cells, d) ``<cls>`` rows; rows with NaN stay NaN."""
        return self.head.probabilities(hidden)


def classifier_of(model: LoadedModel) -> Classifier:
    """Read the classifier of a loaded model.

    Raises
    ------
    WeightsError
        If the model has none, or one that was trained on other weights.
    """
    path = model.folder / CLASSIFIER_FILE
    if not path.is_file():
        msg = (
            f"Model {model.name!r} has no {CLASSIFIER_FILE}: it was not fine-tuned to labels. Fine-tune it with "
            "tl.finetune(adata, label_key, out=...), or annotate with its own types by tl.annotate_novel(adata)."
        )
        raise WeightsError(msg)
    found = Classifier.load(path)
    if found.weights_sha256 != model.sha256:
        msg = (
            f"{path} was trained on other weights (sha256 {found.weights_sha256[:12]}…, the model's are {model.sha256[:12]}…). "
            "Make it anew with tl.finetune."
        )
        raise WeightsError(msg)
    return found
