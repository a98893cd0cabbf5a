"""Choose the matrix of raw counts of an AnnData and walk it as tokens."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, NamedTuple

from sccello_tools._settings import settings
from sccello_tools.errors import ArgumentError, NotCountsError
from sccello_tools.tokens import ValueSummary, looks_like_counts, row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from anndata import AnnData

    from sccello_tools.tokens import RaggedTokens, Tokenizer
    from sccello_tools.tokens.counts import CountsPolicy


class TokenChunk(NamedTuple):
    """Tokens of some consecutive cells."""

    start: int
    """Index of the first cell."""

    tokens: RaggedTokens
    """Their tokens."""


def counts_matrix(adata: AnnData, layer: str | None) -> Any:
    """Return the matrix of a layer, or ``X``; of any type, perhaps on disk."""
    if layer is None:
        if adata.X is None:
            msg = f"adata.X is empty. {_where_counts_are(adata, layer)}"
            raise NotCountsError(msg)
        return adata.X
    if layer not in adata.layers:
        msg = f"adata has no layer {layer!r}. {_where_counts_are(adata, layer)}"
        raise NotCountsError(msg)
    return adata.layers[layer]


def iter_token_chunks(
    adata: AnnData,
    tokenizer: Tokenizer,
    *,
    layer: str | None,
    counts: CountsPolicy,
    chunk_cells: int | None = None,
    warn_of_empty: bool = True,
) -> Iterator[TokenChunk]:
    """Tokenize the cells of an AnnData chunk by chunk, in order, checking that the matrix holds raw counts on the way.

    With ``warn_of_empty`` cells without tokens are said at the end. Who walks this in a thread, where no warning finds its way to
    the user's line, calls `warn_of_empty_cells` afterwards.

    Raises
    ------
    NotCountsError
        At the first chunk with values that are not raw counts, or at the end if there was no count at all.
    """
    if counts not in {"check", "trust"}:
        msg = f"counts is {counts!r}; expected is 'check' or 'trust'"
        raise ArgumentError(msg)
    matrix = counts_matrix(adata, layer)
    summary = ValueSummary()
    n_empty = 0
    n_rows = settings.chunk_cells if chunk_cells is None else chunk_cells
    for chunk in row_chunks(matrix, n_rows=n_rows):
        summary.add(chunk.rows.data)
        if complaint := summary.complaint(counts):
            only_fractions = not summary.complaint("trust")
            raise NotCountsError(_not_counts(adata, layer, complaint, trust_helps=only_fractions))
        tokens = tokenizer(chunk.rows)
        n_empty += int((tokens.lengths == 0).sum())
        yield TokenChunk(chunk.start, tokens)
    if adata.n_obs and not summary.n_positive:
        raise NotCountsError(_not_counts(adata, layer, "every value is zero", trust_helps=False))
    if warn_of_empty:
        warn_of_empty_cells(n_empty, adata.n_obs)


def warn_of_empty_cells(n_empty: int, n_cells: int) -> None:
    """Say once, and to the code that called this package, how many cells have no tokens."""
    if n_empty:
        warnings.warn(
            f"{n_empty:,} of {n_cells:,} cells have no count in any gene of the vocabulary. "
            "They keep their row, without tokens, and their embedding is NaN.",
            UserWarning,
            stacklevel=_level_of_caller(),
        )


def _level_of_caller() -> int:
    """How far up the stack the code is that called this package, so that a warning points there."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("sccello_tools"):
        frame, level = frame.f_back, level + 1
    return level


def _name(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _not_counts(adata: AnnData, layer: str | None, complaint: str, *, trust_helps: bool) -> str:
    message = (
        f"{_name(layer)} does not hold raw counts: {complaint}. {_where_counts_are(adata, layer)}"
    )
    if trust_helps:
        message += (
            " If these are estimated counts, as after ambient correction, pass counts='trust'."
        )
    return message


def _where_counts_are(adata: AnnData, tried: str | None) -> str:
    """Name the places of an AnnData that do hold raw counts, and how to use them."""
    layers = [
        name
        for name in adata.layers
        # from 0.13 on, anndata lists X among the layers, as None
        if name not in (tried, None) and looks_like_counts(adata.layers[name])
    ]
    ways = [f"layer={name!r}" for name in layers]
    if tried is not None and adata.X is not None and looks_like_counts(adata.X):
        ways.append("layer=None (adata.X)")
    if ways:
        return f"Raw counts are in: {', '.join(ways)}."
    if adata.raw is not None and looks_like_counts(adata.raw.X):
        return "adata.raw holds raw counts: pass adata.raw.to_adata()."
    return "No other matrix of adata holds raw counts: load them as they came from the aligner."
