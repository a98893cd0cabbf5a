"""Drug response: cell lines and molecules in, ln IC50 out. Tensors and tables; no AnnData."""

from __future__ import annotations

from .config import DrugResponseConfig
from .data import DrugResponseData, JoinReport
from .files import load
from .model import DrugResponseModel, Prediction
from .split import ResponseSplit, split_responses

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
