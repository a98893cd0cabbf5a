"""Small real data sets that ship inside the package."""

from __future__ import annotations

from ._pancreas import pancreas_tritschler

__all__ = ["pancreas_tritschler"]
