"""Pretraining on Lightning: configuration, data modules, training module, fit."""

from __future__ import annotations

from .config import PretrainConfig
from .fit import TrainingResult, fit
from .sources import CorpusSource, LabelledTokens

__all__ = ["CorpusSource", "LabelledTokens", "PretrainConfig", "TrainingResult", "fit"]
