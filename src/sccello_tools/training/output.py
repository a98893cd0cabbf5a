"""Output folders of training runs: checked before training, cleared before a model is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools import _io
from sccello_tools.errors import OutputExistsError

if TYPE_CHECKING:
    from typing import Final

_MODEL_FILES: Final = (
    "model.safetensors",
    "pytorch_model.bin",
    "config.json",
    "metadata.json",
    "labels.tsv",
    "README.md",
    "annotation.safetensors",
    "classifier.safetensors",
    "training_curve.csv",
    "finetuning_curve.csv",
)


def check_model_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """Check, before training, that a model can be written to a folder; its parent folders are created.

    Parameters
    ----------
    folder
        Output folder; other files in it, such as checkpoints, are allowed.
    overwrite
        Allow an existing model to be replaced.

    Raises
    ------
    OutputExistsError
        If ``folder`` is a file, or contains a model and ``overwrite`` is false.
    OutputError
        If the folder cannot be written to.
    """
    folder = Path(folder)
    if not overwrite and any((folder / name).exists() for name in _MODEL_FILES[:4]):
        msg = f"{folder} contains a model. Pass another folder as out=, or overwrite=True to replace the model."
        raise OutputExistsError(msg)
    is_new = not folder.exists()
    _io.check_output(folder)
    if is_new:
        folder.rmdir()  # nothing remains if training fails
    return folder


def remove_model(folder: Path) -> None:
    """Remove the files of a model, so that none of them remains next to those of a new one."""
    for name in _MODEL_FILES:
        (folder / name).unlink(missing_ok=True)
