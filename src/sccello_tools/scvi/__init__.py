"""scvi-tools compatible API; needs the extra "scvi"."""

from __future__ import annotations

import importlib.util

from sccello_tools.errors import MissingExtraError

if importlib.util.find_spec("scvi") is None:
    _what = "sccello_tools.scvi"
    raise MissingExtraError(_what, extra="scvi")

from ._model import ScCello
from ._module import ScCelloModule

__all__ = ["ScCello", "ScCelloModule"]
