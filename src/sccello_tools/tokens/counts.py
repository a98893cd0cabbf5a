"""Check whether a matrix holds raw counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sccello_tools._threads import in_threads
from sccello_tools.errors import NotCountsError

from ._kernels import inspect_values
from .structure import is_on_disk_sparse

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

CountsPolicy = Literal["check", "trust"]
_VALUES_PER_TASK = 1 << 20
_SAMPLE = 1 << 20  # stored values inspected by looks_like_counts


@dataclass
class ValueSummary:
    """Summary of the stored values of a matrix, accumulated chunk by chunk.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.tokens import ValueSummary
    >>> summary = ValueSummary()
    >>> summary.add(np.array([1.0, 0.5, 3.0]))
    >>> summary.complaint()
    '1 of 3 non-zero values are fractions (maximum 3), as after log1p'
    """

    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fractional: int = 0
    n_positive: int = 0
    largest: float = 0.0
    is_boolean: bool = False

    def add(self, values: NDArray[Any]) -> None:
        """Add stored values, an array of numbers of any shape.

        Raises
        ------
        NotCountsError
            If they are not numbers.
        """
        kind = values.dtype.kind
        if kind not in "biuf":
            msg = f"The matrix has values of type {values.dtype}, but raw counts must be numbers. Convert it or pass another layer."
            raise NotCountsError(msg)
        values = values.ravel()
        if kind != "f":
            self.is_boolean = kind == "b"
            self.n_negative += int(np.count_nonzero(values < 0)) if kind == "i" else 0
            self.n_positive += int(np.count_nonzero(values > 0))
            self.largest = max(self.largest, float(values.max(initial=0)))
            return
        if values.dtype not in (np.float32, np.float64):  # float16, other byte orders
            values = values.astype(np.float64)
        for found in in_threads(
            values.size, lambda a, b: inspect_values(values, a, b), block=_VALUES_PER_TASK
        ):
            n_nan, n_infinite, n_negative, n_fractional, largest, n_positive = found
            self.n_nan += n_nan
            self.n_infinite += n_infinite
            self.n_negative += n_negative
            self.n_fractional += n_fractional
            self.n_positive += n_positive
            self.largest = max(self.largest, largest)

    def complaint(self, policy: CountsPolicy = "check") -> str:
        """Return why these are not raw counts; "" if they may be.

        ``policy="trust"`` accepts fractions, but not values that cannot be ranked.
        """
        if self.n_nan:
            return (
                f"{self.n_nan:,} values are NaN, as after an outer join of dense matrices "
                "(use anndata.concat(..., fill_value=0))"
            )
        if self.n_infinite:
            return f"{self.n_infinite:,} values are infinite"
        if self.n_negative:
            return f"{self.n_negative:,} values are negative, as after scaling or regression"
        if policy == "trust":
            return ""
        if self.is_boolean:
            return "its values are boolean (detected or not) instead of counts"
        if self.n_fractional:
            # log1p of counts per 10,000 is at most 9.2, and of a 32-bit count at most 22
            how = "log1p" if self.largest < 25 else "normalisation, denoising or ambient correction"
            return (
                f"{self.n_fractional:,} of {self.n_positive:,} non-zero values are fractions "
                f"(maximum {self.largest:.4g}), as after {how}"
            )
        return ""


def looks_like_counts(matrix: Any, *, n_rows: int = 512) -> bool:
    """Whether a sample of the values of a matrix is integer-valued, non-negative and not all zero.

    Parameters
    ----------
    matrix
        Matrix of any type that :func:`row_chunks` accepts.
    n_rows
        Number of rows to inspect of a dense matrix or dask array; of a sparse matrix, the first million stored values.
    """
    values = _first_values(matrix, n_rows)
    if values.dtype.kind not in "biuf":
        return False
    summary = ValueSummary()
    summary.add(values)
    return summary.n_positive > 0 and not summary.complaint()


def _first_values(matrix: Any, n_rows: int) -> NDArray[Any]:
    if is_on_disk_sparse(matrix):
        matrix = matrix.group["data"]
        n_rows = _SAMPLE
    elif hasattr(matrix, "tocsr"):
        matrix = (matrix if matrix.format in {"csr", "csc", "coo"} else matrix.tocsr()).data
        n_rows = _SAMPLE
    values = matrix[:n_rows]
    if hasattr(values, "dask"):
        values = values.compute()
    return np.asarray(values.data if hasattr(values, "tocsr") else np.ma.filled(values, 0))
