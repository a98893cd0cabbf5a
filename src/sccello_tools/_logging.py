"""Logger of the package, and the log line that lists the AnnData slots written by a function."""

from __future__ import annotations

import logging

logger = logging.getLogger("sccello_tools")


def log_written(what: str, *slots: str) -> None:
    """Log which AnnData slots a function wrote."""
    logger.info("%s: added %s", what, ", ".join(slots))
