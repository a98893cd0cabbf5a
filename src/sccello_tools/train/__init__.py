"""Pretraining on Lightning: configuration, data module, training module, one call to fit."""

from __future__ import annotations

from .config import PretrainConfig
from .datamodule import LabelledTokens
from .fit import TrainingResult, fit

__all__ = ["LabelledTokens", "PretrainConfig", "TrainingResult", "fit"]
