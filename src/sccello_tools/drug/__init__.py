"""Drug response: cell lines or cells and molecules in, ln IC50 out. Tensors and tables; no AnnData."""

from __future__ import annotations

from .config import DrugResponseConfig
from .data import DrugResponseData, JoinReport, ResponseSplit, split_responses
from .files import load
from .model import DrugResponseModel, Prediction

__all__ = [
    "DrugResponseConfig",
    "DrugResponseData",
    "DrugResponseModel",
    "JoinReport",
    "Prediction",
    "ResponseSplit",
    "load",
    "split_responses",
]
