"""HTML report of annotated cells: a single file without scripts or external resources."""

from __future__ import annotations

from .render import render_report

__all__ = ["render_report"]
