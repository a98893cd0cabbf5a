"""Package-wide settings: where files are kept, whether the network may be used, how much is said."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ._logging import logger

Verbosity = Literal["error", "warning", "info", "debug"]


def _default_cache_dir() -> Path:
    if chosen := os.environ.get("SCCELLO_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sccello"


def _default_offline() -> bool:
    return os.environ.get("SCCELLO_OFFLINE", "").lower() in {"1", "true", "yes"}


@dataclass
class Settings:
    """Settings of this session; set an attribute to change one.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> sccello.settings.offline = True  # never touch the network
    >>> sccello.settings.offline = False
    """

    cache_dir: Path = field(default_factory=_default_cache_dir)
    """Folder for downloaded weights. Environment: ``SCCELLO_CACHE``."""

    offline: bool = field(default_factory=_default_offline)
    """If true, nothing is downloaded. Environment: ``SCCELLO_OFFLINE``."""

    progress: bool = True
    """Show progress bars on long work (in a terminal or notebook only)."""

    chunk_cells: int = 4096
    """Rows of a matrix that are held in memory at a time."""

    @property
    def verbosity(self) -> Verbosity:
        """How much is said: "error", "warning", "info" or "debug"."""
        level = logging.getLevelName(logger.getEffectiveLevel()).lower()
        return level if level in {"error", "warning", "info", "debug"} else "warning"  # type: ignore[return-value]

    @verbosity.setter
    def verbosity(self, value: Verbosity) -> None:
        logger.setLevel(value.upper())
        if not logger.handlers and not logging.getLogger().handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(handler)


settings = Settings()
