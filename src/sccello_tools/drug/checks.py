"""Checks of drug response tables: names of lines and drugs, scale of responses and expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._messages import quoted
from sccello_tools.errors import ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from numpy.typing import NDArray

_MAX_LN: Final = 20.0  # |ln IC50| beyond which the unit must be another one
# 95 % quantile / 5 % quantile above which all-positive values must be concentrations, not logarithms
_RATIO_OF_CONCENTRATIONS: Final = 100.0
_MIN_FOR_RATIO: Final = 10
_MAX_SHOWN: Final = 5


class NameMatches(NamedTuple):
    """Result of :meth:`NameMatcher.match`."""

    names: dict[str, str]
    """Matching table name by query."""
    absent: list[str]
    """Queries without a match."""
    ambiguous: list[str]
    """Queries that share their match with another query and are not identical to it."""


class NameMatcher:
    """Matches names of cell lines or drugs by their letters and digits, ignoring case.

    Parameters
    ----------
    names
        Names of the table.
    what
        What the names are, for messages.

    Raises
    ------
    ResponseError
        If two names have the same letters and digits.
    """

    def __init__(self, names: pd.Index[str], *, what: str) -> None:
        self._by_key: dict[str, str] = {}
        for name in names:
            first = self._by_key.setdefault(self.key(name), str(name))
            if first != str(name) or list(names).count(name) > 1:
                msg = f"The {what} contain {first!r} and {str(name)!r}, which have the same letters and digits. Rename or drop one of them."
                raise ResponseError(msg)

    @staticmethod
    def key(name: object) -> str:
        """Upper-case letters and digits of a name."""
        return "".join(letter for letter in str(name).upper() if letter.isalnum())

    def match(self, queries: Sequence[str]) -> NameMatches:
        """Match distinct names."""
        by_key: dict[str, list[str]] = {}
        for name in queries:
            by_key.setdefault(self.key(name), []).append(name)
        found = NameMatches({}, [], [])
        for key, names in by_key.items():
            match = self._by_key.get(key)
            if match is None:
                found.absent.extend(names)
            elif len(names) == 1:
                found.names[names[0]] = match
            else:  # KM-H2 and KMH-2 are different cell lines
                found.ambiguous.extend(name for name in names if name != match)
                found.names.update({name: match for name in names if name == match})
        return found


def clean(name: object) -> str:
    """Strip white space."""
    return str(name).strip()


def check_responses(values: pd.Series[float]) -> pd.Series[float]:
    """Return responses as float64 after checking that they are finite and plausible as ln IC50 (µM).

    Raises
    ------
    ResponseError
        If not.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    if n_invalid := int((~np.isfinite(numbers)).sum()):
        rows = values.index[~np.isfinite(numbers)][:_MAX_SHOWN].tolist()
        msg = f"{n_invalid:,} of {len(values):,} responses are missing, infinite or not numbers (rows {rows}). Drop them: responses.dropna(subset=['ln_ic50'])."
        raise ResponseError(msg)
    low, high = float(numbers.min()), float(numbers.max())
    required = "they must be the natural logarithm of the IC50 in µM, for instance -2.3 for 0.1 µM"
    if max(abs(low), abs(high)) > _MAX_LN:
        hint = "If they are IC50 values, pass np.log(ic50)" if low >= 0 else "Convert them to ln µM"
        msg = f"Responses range from {low:g} to {high:g}, which is impossible for logarithms of concentrations; {required}. {hint} (from nM: np.log(ic50 / 1000); from log10 mol/l: (x + 6) * np.log(10))."
        raise ResponseError(msg)
    lowest, highest = np.quantile(numbers, [0.05, 0.95])
    if (
        low >= 0
        and len(numbers) >= _MIN_FOR_RATIO
        and highest > _RATIO_OF_CONCENTRATIONS * max(lowest, 1e-9)
    ):
        msg = f"Responses range from {low:g} to {high:g} without negative values, like concentrations; {required}. If they are IC50 values in µM, pass np.log(ic50)."
        raise ResponseError(msg)
    return numbers.astype(np.float64)


def check_expression(expression: pd.DataFrame) -> pd.DataFrame:
    """Check expression values and standardise each row (cell line).

    Raises
    ------
    ResponseError
        If values are missing, infinite or counts, or constant within a line.
    """
    try:
        values = expression.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"The expression contains values that are not numbers ({error}). Pass lines as rows and genes as columns, with names as index and columns."
        raise ResponseError(msg) from error
    if not np.isfinite(values).all():
        rows = expression.index[~np.isfinite(values).all(axis=1)]
        msg = f"The expression of {len(rows)} cell lines has missing or infinite values: {quoted(rows)}. Impute them, or drop these genes or lines."
        raise ResponseError(msg)
    if values.size and (values >= 0).all() and (values == np.round(values)).all():
        msg = "The expression consists of integers, which look like counts. Pass log expression, such as log2(TPM + 1) or RMA."
        raise ResponseError(msg)
    return pd.DataFrame(
        _standardize(values, expression.index),
        index=[clean(name) for name in expression.index],
        columns=[str(name) for name in expression.columns],
    )


def _standardize(values: NDArray[np.float64], names: pd.Index[str]) -> NDArray[np.float32]:
    std = values.std(axis=1, keepdims=True)
    if (constant := std[:, 0] == 0).any():
        msg = f"The expression of {int(constant.sum())} cell lines is constant: {quoted(names[constant])}. Drop these lines."
        raise ResponseError(msg)
    standardized: NDArray[np.float64] = (values - values.mean(axis=1, keepdims=True)) / std
    return standardized.astype(np.float32)
