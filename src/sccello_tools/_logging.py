"""One logger for the package; scanpy's habit of one line that names what was written."""

from __future__ import annotations

import logging

logger = logging.getLogger("sccello_tools")


def log_written(what: str, *slots: str) -> None:
    """Say in one line which AnnData slots a function wrote."""
    logger.info("%s: added %s", what, ", ".join(slots))
