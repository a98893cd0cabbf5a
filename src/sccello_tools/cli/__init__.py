"""The ``sccello`` command: one file per subcommand, the demo and the HTML report."""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
