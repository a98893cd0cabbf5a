"""Training on Lightning: pretraining, fine-tuning and their configurations."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from .finetune import Classifier, FinetuneConfig
    from .pretrain import CorpusSource, LabelledTokens, PretrainConfig
    from .pretrain.augment import Profiles, synthetic_cells

__all__ = [
    "Classifier",
    "CorpusSource",
    "FinetuneConfig",
    "LabelledTokens",
    "PretrainConfig",
    "Profiles",
    "synthetic_cells",
]

# Loaded on first use: a configuration can be built without importing Lightning.
_MODULES = {
    "Classifier": "finetune.classifier",
    "FinetuneConfig": "finetune.config",
    "CorpusSource": "pretrain.sources",
    "LabelledTokens": "pretrain.sources",
    "PretrainConfig": "pretrain.config",
    "Profiles": "pretrain.augment",
    "synthetic_cells": "pretrain.augment",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
