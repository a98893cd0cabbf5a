"""Profiles: the common footing of bulk expression and of counts, and their ranks as tokens. Nothing here needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.tokens import CLS_ID, RaggedTokens

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_PER_MILLION = 1e6


def profiles_of_counts(
    counts: NDArray[np.floating[Any]], columns: NDArray[np.intp], mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Bring counts of cells, or sums of them, to the footing of the training lines.

    The logarithm of counts per million is standardised within the row, as the expression of the lines is. A gene that was not
    measured takes the mean of the training lines. Each row depends on itself alone.

    Parameters
    ----------
    counts
        (n, n_measured) counts.
    columns
        (n_measured,) the gene of each, as its place in ``mean``.
    mean
        (n_genes,) mean profile of the training lines.

    Returns
    -------
    (n, n_genes) float32; NaN for rows without counts, or with the same count everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.drug.profiles import profiles_of_counts
    >>> mean = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    >>> profiles_of_counts(np.array([[5.0, 0.0], [0.0, 0.0]]), np.array([0, 2]), mean).round(1).tolist()
    [[1.0, 0.20000000298023224, -1.0], [nan, nan, nan]]
    """
    values = counts.astype(np.float64)
    total = values.sum(axis=1, keepdims=True)
    out = np.full((len(counts), len(mean)), np.nan, dtype=np.float32)
    usable = total[:, 0] > 0
    logs = np.log1p(values[usable] / total[usable] * _PER_MILLION)
    spread = logs.std(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        standard = np.where(spread > 0, (logs - logs.mean(axis=1, keepdims=True)) / spread, np.nan)
    out[usable] = np.where(spread > 0, mean, np.nan)
    out[np.ix_(np.flatnonzero(usable), columns)] = standard
    return out


def rank_tokens(
    values: NDArray[np.floating[Any]], tokens: NDArray[np.int32], *, max_length: int
) -> RaggedTokens:
    """Rank the genes of each row, highest first, ties by token id; rows with NaN get no tokens.

    Parameters
    ----------
    values
        (n, n_genes), of any sign; minus infinity for genes to leave out.
    tokens
        (n_genes,) token id of each gene.
    max_length
        Most tokens of a row, ``<cls>`` included.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.drug.profiles import rank_tokens
    >>> values = np.array([[-2.0, 0.5, 0.1], [1.0, 1.0, 3.0]])
    >>> rank_tokens(values, np.array([7, 8, 9], dtype=np.int32), max_length=3).ids.tolist()
    [25426, 8, 9, 25426, 9, 7]
    """
    n_genes = np.where(np.isnan(values).any(axis=1), 0, (values > -np.inf).sum(axis=1))
    by_token = np.argsort(tokens, kind="stable")
    # a stable sort of genes that are in the order of their ids leaves ties in that order
    order = by_token[np.argsort(-values[:, by_token], axis=1, kind="stable")][:, : max_length - 1]
    rows = np.concatenate(
        [np.full((len(values), 1), CLS_ID, np.int32), tokens[order].astype(np.int32)], axis=1
    )
    lengths = np.where(n_genes > 0, np.minimum(n_genes + 1, rows.shape[1]), 0)
    ids = rows[np.arange(rows.shape[1]) < lengths[:, None]]
    return RaggedTokens(
        np.concatenate([[0], np.cumsum(lengths)]),
        ids,
        np.zeros(len(ids), dtype=np.float32),
        n_genes.astype(np.int32),
    )
