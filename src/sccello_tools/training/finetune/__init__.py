"""Fine-tuning on Lightning: a classifier of user-defined labels on a frozen or trained encoder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .classifier import Classifier, classifier_of
from .config import FinetuneConfig

if TYPE_CHECKING:
    from typing import Any

    from .fit import FinetuneResult, fit_classifier

__all__ = ["Classifier", "FinetuneConfig", "FinetuneResult", "classifier_of", "fit_classifier"]


def __getattr__(name: str) -> Any:
    # prediction does not need Lightning, which takes seconds to import
    if name in {"FinetuneResult", "fit_classifier"}:
        return getattr(importlib.import_module(".fit", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
