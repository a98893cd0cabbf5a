"""A page about annotated cells for people without Python: one HTML file, nothing beside it."""

from __future__ import annotations

from .render import render_report

__all__ = ["render_report"]
