"""Tools: embed cells, pretrain a model."""

from __future__ import annotations

from ._embed import embed
from ._pretrain import pretrain

__all__ = ["embed", "pretrain"]
