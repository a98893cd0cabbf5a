"""Package-wide settings: cache folder, network access, progress bars, verbosity."""

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
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}
        for name in ("SCCELLO_OFFLINE", "HF_HUB_OFFLINE")
    )


@dataclass
class Settings:
    """Settings of this session; assign to an attribute to change one.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> sccello.settings.offline = True  # no downloads
    >>> sccello.settings.offline = False
    """

    cache_dir: Path = field(default_factory=_default_cache_dir)
    """Folder for files from URLs and pinned hashes; models of the Hugging Face Hub are in its cache. Environment: ``SCCELLO_CACHE``."""

    offline: bool = field(default_factory=_default_offline)
    """Whether downloads are disabled. Environment: ``SCCELLO_OFFLINE`` or ``HF_HUB_OFFLINE``."""

    progress: bool = True
    """Whether to show progress bars for long computations, in a terminal or notebook."""

    chunk_cells: int = 4096
    """Number of cells whose counts are held in memory at a time."""

    @property
    def verbosity(self) -> Verbosity:
        """Level of log messages: "error", "warning", "info" or "debug"."""
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
