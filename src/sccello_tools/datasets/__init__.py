"""Small real data sets bundled with the package, and readers of published data sets."""

from __future__ import annotations

from ._cell_markers import cell_markers
from ._cells import pancreas_tritschler, pbmc3k_subsample
from ._gdsc import gdsc

__all__ = ["cell_markers", "gdsc", "pancreas_tritschler", "pbmc3k_subsample"]
