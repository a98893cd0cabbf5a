"""sccello-tools: cell embedding, Cell Ontology annotation and marker genes with scCello, on AnnData."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from ._settings import settings

if TYPE_CHECKING:
    from typing import Any

    from . import (
        datasets,
        drug,
        errors,
        export,
        get,
        metrics,
        models,
        ontology,
        pl,
        pp,
        scvi,
        tl,
        training,
    )
    from .files import annotate_files, embed_files, open_embedded

__version__ = version("sccello-tools")
__all__ = [
    "__version__",
    "annotate_files",
    "datasets",
    "drug",
    "embed_files",
    "errors",
    "export",
    "get",
    "metrics",
    "models",
    "ontology",
    "open_embedded",
    "pl",
    "pp",
    "scvi",
    "settings",
    "tl",
    "training",
]

# Loaded on first use, so that `import sccello_tools` needs neither torch nor scanpy nor matplotlib.
_FUNCTIONS = dict.fromkeys(("annotate_files", "embed_files", "open_embedded"), "files")
_INTERNAL = {
    "annotation",
    "corpus",
    "engine",
    "nn",
    "perturbation",
    "tokens",
}  # reachable, but not part of the public API
_SUBMODULES = (frozenset(__all__) | _INTERNAL) - {"__version__", "settings", *_FUNCTIONS}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
