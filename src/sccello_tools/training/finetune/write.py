"""Write a fine-tuned model as a folder that :func:`sccello_tools.models.load` reads."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools.models import ANNOTATION_FILE, load, save

from .classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, Final

    from sccello_tools.models import LoadedModel

    from .fit import FinetuneResult
    from .split import Split

_WEIGHTS: Final = ("config.json", "model.safetensors", "pytorch_model.bin")
_KEPT: Final = (
    "vocabulary",
    "ontology_release",
    "licence",
    "licence_note",
    "citation",
    "paper",
    "training_data",
    "representation",
)


def write_model(
    result: FinetuneResult,
    folder: Path,
    *,
    base: LoadedModel,
    labels: Sequence[str],
    split: Split,
    name: str,
    run: Mapping[str, Any],
) -> None:
    """Write weights, classifier, curve and what the model was made from.

    With a still encoder the files of the base model are copied, so that embeddings which that model made are this one's too, and its
    annotation statistics hold on.

    Parameters
    ----------
    result
        What was trained.
    folder
        An empty folder, or none yet.
    base
        The model that was started from.
    labels
        Names of the labels, in the order of the classifier's rows.
    split
        Which cells were held out.
    name
        Name of the new model.
    run
        What decided the run: mode, label_key, configuration; kept in ``metadata.json`` as ``finetune_config``.
    """
    entry = base.entry
    known = {field: getattr(entry, field) for field in _KEPT}
    metadata: dict[str, Any] = {
        field: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
        for field, value in known.items()
        if value is not None
    }
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
        space = base.entry.label_space
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
        labels=tuple(labels),
        head=result.head,
        label_key=run["label_key"],
        mode=run["mode"],
        weights_sha256=load(folder, device="cpu", keep=False).sha256,
        scores=result.scores,
        held_out_donors=split.donors,
    ).save(folder)
    result.curve.to_csv(folder / "finetuning_curve.csv", index=False, float_format="%.5g")
