"""Models: list, load, save and share them."""

from __future__ import annotations

from .catalog import ModelInfo, info
from .catalog import list_models as list
from .labels import Prototypes
from .load import LoadedModel, load
from .registry import ANNOTATION_FILE, CLASSIFIER_FILE
from .save import save
from .share import model_card, push_to_hub

__all__ = [
    "ANNOTATION_FILE",
    "CLASSIFIER_FILE",
    "LoadedModel",
    "ModelInfo",
    "Prototypes",
    "info",
    "list",
    "load",
    "model_card",
    "push_to_hub",
    "save",
]
