"""Pretraining on Lightning: configuration, data modules, training module, fit."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .config import PretrainConfig

if TYPE_CHECKING:
    from typing import Any

    from .sources import CorpusSource, LabelledTokens
    from .train import TrainingResult, fit

__all__ = ["CorpusSource", "LabelledTokens", "PretrainConfig", "TrainingResult", "fit"]

# Loaded on first use: a configuration does not need Lightning, which takes seconds to import.
_MODULES = {
    "CorpusSource": "sources",
    "LabelledTokens": "sources",
    "TrainingResult": "train",
    "fit": "train",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
