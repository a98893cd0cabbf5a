"""Whether responses are ln IC50 in µM, and expression a logarithm; standardisation within a line."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sccello_tools.errors import ResponseError

# e^20 µM would be 485 mol in a millilitre, e^-20 µM a handful of molecules.
_LARGEST_LN = 20.0
# The IC50 of a panel spread over many orders of magnitude, which logarithms that are all positive cannot.
_SPREAD_OF_IC50 = 100.0
_ENOUGH_FOR_SPREAD = 10


def check_responses(values: pd.Series[float]) -> pd.Series[float]:
    """Refuse responses that are missing, infinite, or not ln IC50 in µM.

    Raises
    ------
    ResponseError
        With how many, where, and what was expected.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    if broken := int((~np.isfinite(numbers)).sum()):
        rows = values.index[~np.isfinite(numbers)][:5].tolist()
        msg = f"{broken:,} of {len(values):,} responses are missing, infinite or no numbers (rows {rows}). Take out the rows that were not measured: responses.dropna(subset=['ln_ic50'])."
        raise ResponseError(msg)
    low, high = float(numbers.min()), float(numbers.max())
    expected = "expected is the natural logarithm of the IC50 in µM, such as -2.3 for 0.1 µM"
    if max(abs(low), abs(high)) > _LARGEST_LN:
        why = "no concentration has such a logarithm"
        hint = (
            "They look like the IC50 itself: pass np.log(ic50)"
            if low >= 0
            else "Bring them to ln µM"
        )
        msg = f"Responses run from {low:g} to {high:g}: {why}; {expected}. {hint} (in nM: np.log(ic50 / 1000); log10 of mol/l: (x + 6) * np.log(10))."
        raise ResponseError(msg)
    lowest, highest = np.quantile(numbers, [0.05, 0.95])
    if (
        low >= 0
        and len(numbers) >= _ENOUGH_FOR_SPREAD
        and highest > _SPREAD_OF_IC50 * max(lowest, 1e-9)
    ):
        msg = f"Responses run from {low:g} to {high:g}, none below 0 and spread as only concentrations are; {expected}. If they are IC50 in µM, pass np.log(ic50)."
        raise ResponseError(msg)
    return numbers.astype(np.float64)


def check_expression(expression: pd.DataFrame) -> pd.DataFrame:
    """Refuse expression that cannot be used; standardise each row.

    Raises
    ------
    ResponseError
        If values are missing, infinite, counts, or the same in all genes of a line.
    """
    try:
        values = expression.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"The expression holds what is no number ({error}). Expected are lines in rows, genes in columns, their names as index and columns."
        raise ResponseError(msg) from error
    if not np.isfinite(values).all():
        rows = expression.index[~np.isfinite(values).all(axis=1)]
        msg = f"The expression of {len(rows)} cell lines has missing or infinite values: {[str(r) for r in rows[:5]]}. Fill them in, or take these genes or lines out."
        raise ResponseError(msg)
    if values.size and (values >= 0).all() and (values == np.round(values)).all():
        msg = "The expression holds whole numbers only, which look like counts; expected is a logarithm, such as log2(TPM + 1) or RMA. Take the logarithm first."
        raise ResponseError(msg)
    return pd.DataFrame(
        standardise(values, expression.index),
        index=[str(name).strip() for name in expression.index],
        columns=[str(name) for name in expression.columns],
    )


def standardise(values: np.ndarray, names: pd.Index[str]) -> np.ndarray:
    """Take each row's mean away and divide by its standard deviation: (n_lines, n_genes) float32."""
    spread = values.std(axis=1, keepdims=True)
    if (still := spread[:, 0] == 0).any():
        msg = f"All genes have one value in {int(still.sum())} cell lines: {[str(n) for n in names[still][:5]]}. Take these lines out."
        raise ResponseError(msg)
    standard: np.ndarray = (values - values.mean(axis=1, keepdims=True)) / spread
    return standard.astype(np.float32)
