"""Small real data sets that ship inside the package, and readers of published ones."""

from __future__ import annotations

from ._cell_markers import cell_markers
from ._gdsc import gdsc
from ._pancreas import pancreas_tritschler
from ._pbmc3k import pbmc3k_subsample

__all__ = ["cell_markers", "gdsc", "pancreas_tritschler", "pbmc3k_subsample"]
