"""Models: what there is, where it comes from, and the one door to weights."""

from __future__ import annotations

from ._catalog import ModelInfo, info
from ._catalog import list_models as list
from ._records import ANNOTATION_FILE, CLASSIFIER_FILE
from .load import LoadedModel, load
from .save import save

__all__ = [
    "ANNOTATION_FILE",
    "CLASSIFIER_FILE",
    "LoadedModel",
    "ModelInfo",
    "info",
    "list",
    "load",
    "save",
]
