"""The raw counts of an AnnData: which matrix holds them, which genes its columns are, and its cells as tokens."""

from __future__ import annotations

import hashlib
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools._settings import settings
from sccello_tools.errors import ArgumentError, GeneMatchError, NotCountsError
from sccello_tools.tokens import ValueSummary, looks_like_counts, match_gene_names, row_chunks

from .columns import missing_column
from .genes import names_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from anndata import AnnData

    from sccello_tools.tokens import GeneMatch, RaggedTokens, Tokenizer
    from sccello_tools.tokens.counts import CountsPolicy

RAW = "raw.X"
"""Value of ``layer=`` that selects ``adata.raw.X``, whose genes are those of ``adata.raw.var``."""


class TokenChunk(NamedTuple):
    """Tokens of consecutive cells."""

    start: int
    """Index of the first cell."""

    tokens: RaggedTokens
    """Tokens of the cells."""


@dataclass(frozen=True)
class CountsSource:
    """Where the raw counts of an AnnData are and how strictly they are checked.

    Every public function that may embed has these four arguments.
    """

    layer: str | None = None
    """Layer, ``"raw.X"``, or None for ``X``."""
    gene_ids: str | None = None
    """Column of ``var`` with gene names; None for the stored match or ``var_names``."""
    counts: CountsPolicy = "check"
    """``"check"`` accepts integers only, ``"trust"`` also fractions."""
    min_matched: int = 500
    """Minimum number of matched genes."""

    def __post_init__(self) -> None:
        if self.counts not in {"check", "trust"}:
            msg = f"counts must be 'check' or 'trust', got {self.counts!r}"
            raise ArgumentError(msg)

    @property
    def name(self) -> str:
        """The matrix as a user writes it."""
        if self.layer is None:
            return "adata.X"
        return "adata.raw.X" if self.layer == RAW else f"adata.layers[{self.layer!r}]"

    def matrix(self, adata: AnnData) -> Any:
        """Return the matrix of raw counts; of any type, possibly on disk.

        Raises
        ------
        NotCountsError
            If the matrix does not exist. The message names matrices that hold raw counts.
        """
        if self.layer is None:
            if adata.X is None:
                msg = f"adata.X is empty. {_where_counts_are(adata, self.layer)}"
                raise NotCountsError(msg)
            return adata.X
        if self.layer == RAW:
            raw: Any = adata.raw
            if raw is None:
                msg = f"adata has no .raw. {_where_counts_are(adata, self.layer)}"
                raise NotCountsError(msg)
            return raw.X
        if self.layer not in adata.layers:
            msg = f"adata has no layer {self.layer!r}. {_where_counts_are(adata, self.layer)}"
            raise NotCountsError(msg)
        return adata.layers[self.layer]

    def var(self, adata: AnnData) -> Any:
        """Return the table of the matrix's columns: ``adata.var``, or that of ``.raw``."""
        if self.layer == RAW and adata.raw is not None:
            return adata.raw.var
        return adata.var

    def gene_match(self, adata: AnnData) -> GeneMatch:
        """Match the columns of the matrix to the vocabulary without writing; an earlier ``pp.match_genes`` is honoured.

        Raises
        ------
        GeneMatchError
            If ``gene_ids`` is not a column, or too few genes match.
        """
        var = self.var(adata)
        if self.gene_ids is not None and self.gene_ids not in var:
            table = "adata.raw.var" if self.layer == RAW else "adata.var"
            hint = "Omit it to use var_names."
            raise GeneMatchError(
                missing_column(table, self.gene_ids, var.columns, "gene_ids", hint)
            )
        stored = self.gene_ids is None and _keys.GENE_ID in var
        column = _keys.GENE_ID if stored else self.gene_ids
        match = match_gene_names(names_of(var, column), min_matched=self.min_matched)
        if not stored:  # match_genes has logged the report, with the names that the user knows
            logger.info(str(match))
        return match

    def provenance(self, match: GeneMatch) -> dict[str, str]:
        """Return what identifies the counts of an embedding: the matrix and the matched genes."""
        genes = np.unique(match.tokens)
        return {
            "layer": "X" if self.layer is None else self.layer,
            "genes_sha256": hashlib.sha256(genes.astype(np.int32).tobytes()).hexdigest(),
        }


def iter_token_chunks(
    adata: AnnData,
    tokenizer: Tokenizer,
    source: CountsSource,
    *,
    chunk_cells: int | None = None,
    warn_of_empty: bool = True,
) -> Iterator[TokenChunk]:
    """Tokenize the cells of an AnnData chunk by chunk, in order, and check that the matrix holds raw counts.

    With ``warn_of_empty``, one warning at the end counts the cells without tokens. A caller that iterates in a thread, where a
    warning would not point to the user's code, calls :func:`warn_of_empty_cells` afterwards.

    Raises
    ------
    NotCountsError
        At the first chunk with values that are not raw counts, or at the end if there was no count at all.
    """
    matrix = source.matrix(adata)
    summary = ValueSummary()
    n_empty = 0
    n_rows = settings.chunk_cells if chunk_cells is None else chunk_cells
    for chunk in row_chunks(matrix, n_rows=n_rows):
        summary.add(chunk.rows.data)
        if complaint := summary.complaint(source.counts):
            only_fractions = not summary.complaint("trust")
            raise NotCountsError(not_counts(adata, source, complaint, trust_helps=only_fractions))
        tokens = tokenizer(chunk.rows)
        n_empty += int((tokens.lengths == 0).sum())
        yield TokenChunk(chunk.start, tokens)
    if adata.n_obs and not summary.n_positive:
        raise NotCountsError(not_counts(adata, source, "all values are zero", trust_helps=False))
    if warn_of_empty:
        warn_of_empty_cells(n_empty, adata.n_obs)


def warn_of_empty_cells(n_empty: int, n_cells: int) -> None:
    """Warn once, at the user's line, about cells without tokens."""
    if n_empty:
        warn_user(
            f"{n_empty:,} of {n_cells:,} cells have no counts in any gene of the vocabulary. "
            "They keep their row; their tokens are empty and their embedding is NaN."
        )


def warn_user(message: str) -> None:
    """Issue a UserWarning that points to the code that called this package."""
    warnings.warn(message, UserWarning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return the stack level of the code that called this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("sccello_tools"):
        frame, level = frame.f_back, level + 1
    return level


def not_counts(adata: AnnData, source: CountsSource, complaint: str, *, trust_helps: bool) -> str:
    """Return the message for a matrix that does not hold raw counts."""
    message = f"{source.name} does not hold raw counts: {complaint}. {_where_counts_are(adata, source.layer)}"
    if trust_helps:
        message += (
            " If these are estimated counts, as after ambient correction, pass counts='trust'."
        )
    return message


def _where_counts_are(adata: AnnData, tried: str | None) -> str:
    """Name the matrices of an AnnData that hold raw counts and how to select them."""
    layers = [
        name
        for name in adata.layers
        # since anndata 0.13, X is listed among the layers, as None
        if name not in (tried, None) and looks_like_counts(adata.layers[name])
    ]
    ways = [f"layer={name!r}" for name in layers]
    if tried is not None and adata.X is not None and looks_like_counts(adata.X):
        ways.append("layer=None (adata.X)")
    if tried != RAW and adata.raw is not None and looks_like_counts(adata.raw.X):
        ways.append(f"layer={RAW!r} (adata.raw.X)")
    if ways:
        return f"Raw counts are available with {' or '.join(ways)}."
    return "No other matrix of adata holds raw counts; load the unnormalised counts of the aligner."
