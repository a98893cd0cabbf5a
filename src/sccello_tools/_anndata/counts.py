"""Raw counts of an AnnData: choice of the matrix, gene matching, tokens."""

from __future__ import annotations

import hashlib
import sys
import warnings
from dataclasses import dataclass
from logging import DEBUG, INFO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools._messages import quoted
from sccello_tools._settings import settings
from sccello_tools._validation import check_choice
from sccello_tools.errors import GeneMatchError, NotCountsError
from sccello_tools.tokens import (
    DEFAULT_MIN_MATCHED,
    ValueSummary,
    check_indices,
    check_sparse_structure,
    is_on_disk_sparse,
    looks_like_counts,
    match_gene_names,
    row_chunks,
)

from .columns import check_anndata, missing_column
from .genes import feature_types_of, is_missing, names_of, transposed_hint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.tokens import GeneMatch, RaggedTokens, Tokenizer
    from sccello_tools.tokens.counts import CountsPolicy

LOW_FRACTION = 0.5  # of the counts of a cell in genes of the vocabulary
MANY_CELLS = 0.05  # fraction of the cells from which on a warning is issued
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
    min_matched: int = DEFAULT_MIN_MATCHED
    """Minimum number of matched genes; see :func:`~sccello_tools.tokens.match_gene_names` about targeted panels."""

    def __post_init__(self) -> None:
        check_choice("counts", self.counts, ("check", "trust"))

    @property
    def name(self) -> str:
        """The matrix as it is written in Python."""
        if self.layer is None:
            return "adata.X"
        return "adata.raw.X" if self.layer == RAW else f"adata.layers[{self.layer!r}]"

    def matrix(self, adata: AnnData) -> Any:
        """Return the matrix of raw counts; of any type, possibly on disk.

        Raises
        ------
        ArgumentError
            If ``adata`` is not an AnnData.
        NotCountsError
            If the matrix does not exist. The message names matrices that hold raw counts.
        SparseStructureError
            If it is a view of a damaged sparse matrix.
        """
        check_anndata(adata)
        if adata.is_view and (parent := getattr(adata, "_adata_ref", None)) is not None:
            # to read a view, SciPy indexes the matrix of its parent without bounds checks
            _check_structure(self._matrix(parent))
        return self._matrix(adata)

    def _matrix(self, adata: AnnData) -> Any:
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

    def gene_match(self, adata: AnnData, *, report: bool = True) -> GeneMatch:
        """Match the columns of the matrix to the vocabulary without writing; the result of ``pp.match_genes`` is used if present.

        Variables without a value in ``var["sccello_gene_id"]``, as after a concatenation, are matched by name. With ``report``, the
        match is logged, and feature types, repeated genes and small panels are reported in warnings.

        Raises
        ------
        ArgumentError
            If ``adata`` is not an AnnData.
        GeneMatchError
            If ``gene_ids`` is not a column, or too few genes match.
        """
        check_anndata(adata)
        var = self.var(adata)
        if self.gene_ids is not None and self.gene_ids not in var:
            table = "adata.raw.var" if self.layer == RAW else "adata.var"
            hint = "Omit it to use var_names."
            raise GeneMatchError(
                missing_column(table, self.gene_ids, var.columns, "gene_ids", hint)
            )
        stored = self.gene_ids is None and _keys.GENE_ID in var
        names = names_of(var, _keys.GENE_ID if stored else self.gene_ids)
        is_new = not stored
        if stored and (gaps := is_missing(var, _keys.GENE_ID)).any():
            names = [other if gap else name for name, other, gap in zip(names, names_of(var, None), gaps)]  # fmt: skip
            is_new = True
            logger.log(
                INFO if report else DEBUG,
                "%d of %d variables have no value in var[%r] and are matched by name",
                int(gaps.sum()),
                len(names),
                _keys.GENE_ID,
            )
        try:
            match = match_gene_names(
                names, min_matched=self.min_matched, feature_types=feature_types_of(var)
            )
        except GeneMatchError as error:
            hint = transposed_hint(adata)
            if stored:
                hint = f" The names are those of var[{_keys.GENE_ID!r}]: call pp.match_genes again to replace them."
            msg = f"{error}{hint}"
            raise GeneMatchError(msg) from error
        if is_new and report:  # otherwise match_genes has reported it, with the original names
            logger.info(str(match))
            for message in match.warnings():
                warn_user(message)
        return match

    def provenance(self, match: GeneMatch) -> dict[str, str]:
        """Return what identifies the counts of an embedding: the matrix and the matched genes."""
        genes = np.sort(match.tokens[match.tokens >= 0])  # with repeats, which are summed
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
    warn_of_unknown: bool = True,
) -> Iterator[TokenChunk]:
    """Tokenize the cells of an AnnData chunk by chunk, in order, and check that the matrix holds raw counts.

    Warnings at the end count the cells without tokens (``warn_of_empty``) and those with most counts outside the vocabulary
    (``warn_of_unknown``). A caller that iterates in a thread, where a warning would not point to the user's code, calls
    :func:`warn_of_empty_cells` and :func:`warn_of_unknown_genes` afterwards.

    Raises
    ------
    NotCountsError
        At the first chunk with values that are not raw counts, or at the end if there was no count at all.
    """
    matrix = source.matrix(adata)
    if isinstance(matrix, np.ma.MaskedArray) and (
        n_masked := int(np.ma.getmaskarray(matrix).sum())
    ):
        logger.warning("%s has %d masked values, which count as zero", source.name, n_masked)
    summary = ValueSummary()
    n_empty = 0
    fractions = []
    n_rows = settings.chunk_cells if chunk_cells is None else chunk_cells
    for chunk in row_chunks(matrix, n_rows=n_rows):
        summary.add(chunk.rows.data)
        if complaint := summary.complaint(source.counts):
            only_fractions = not summary.complaint("trust")
            raise NotCountsError(not_counts(adata, source, complaint, trust_helps=only_fractions))
        tokens = tokenizer(chunk.rows)
        n_empty += int((tokens.lengths == 0).sum())
        if tokens.known_fraction is not None:
            fractions.append(tokens.known_fraction)
        yield TokenChunk(chunk.start, tokens)
    if adata.n_obs and not summary.n_positive:
        raise NotCountsError(not_counts(adata, source, "all values are zero", trust_helps=False))
    if warn_of_empty:
        warn_of_empty_cells(n_empty, adata.n_obs)
    if warn_of_unknown and fractions:
        warn_of_unknown_genes(np.concatenate(fractions))


def warn_of_empty_cells(n_empty: int, n_cells: int) -> None:
    """Warn once, at the user's line, about cells without tokens."""
    if n_empty:
        warn_user(
            f"{n_empty:,} of {n_cells:,} cells have no counts in any gene of the vocabulary. "
            "They keep their row; their tokens are empty and their embedding is NaN."
        )


def warn_of_unknown_genes(known_fraction: NDArray[np.floating]) -> None:
    """Warn once, at the user's line, if many cells have most of their counts outside the vocabulary.

    Parameters
    ----------
    known_fraction
        Fraction of the counts of each cell in genes of the vocabulary, shape (n_cells,), such as ``RaggedTokens.known_fraction``.
        Cells without any are counted by :func:`warn_of_empty_cells`.
    """
    low = known_fraction[(known_fraction > 0) & (known_fraction < LOW_FRACTION)]
    warn_of_low_fractions(len(low), len(known_fraction))


def warn_of_low_fractions(n_low: int, n_cells: int) -> None:
    """Warn once, at the user's line, if many cells have most of their counts outside the vocabulary."""
    if n_low > MANY_CELLS * n_cells:
        warn_user(
            f"{n_low:,} of {n_cells:,} cells have most of their counts in variables that are not genes of the vocabulary, so their results are unreliable. They may be cells of another species, or gene names may have been changed: pp.match_genes reports "
            "which names do not match."
        )


def warn_of_uncalibrated_cells(
    n_tokens: NDArray[np.integer], calibrated: tuple[float, float]
) -> None:
    """Warn once, at the user's line, if many cells have fewer or more tokens than the cells of the calibration.

    Parameters
    ----------
    n_tokens
        Number of tokens of each cell, such as ``adata.obs["sccello_n_tokens"]``; cells without tokens are ignored.
    calibrated
        Smallest and largest number of tokens of the cells that confidence was calibrated on (for example, their 1st and 99th
        percentile).
    """
    lengths = np.asarray(n_tokens)
    lengths = lengths[lengths > 0]
    n_outside = n_uncalibrated(lengths, calibrated)
    if n_outside > MANY_CELLS * len(lengths):
        median = f"; median {np.median(lengths):,.0f}"
        _warn_of_uncalibrated(f"{n_outside:,} of {len(lengths):,} cells", calibrated, median)


def n_uncalibrated(n_tokens: NDArray[np.integer], calibrated: tuple[float, float]) -> int:
    """Count the cells that have tokens, but fewer or more than the cells of the calibration."""
    low, high = calibrated
    return int((((n_tokens < low) | (n_tokens > high)) & (n_tokens > 0)).sum())


def warn_of_uncalibrated_files(
    counted: Mapping[str, tuple[int, int]], calibrated: tuple[float, float]
) -> None:
    """Warn once, at the user's line, about files of which many cells have fewer or more tokens than the cells of the calibration.

    Parameters
    ----------
    counted
        Result of :func:`n_uncalibrated`, and number of cells with tokens, of each file.
    calibrated
        As in :func:`warn_of_uncalibrated_cells`.
    """
    files = {name: n for name, (n, n_cells) in counted.items() if n > MANY_CELLS * n_cells}
    if files:
        which = f"{sum(files.values()):,} cells of {len(files):,} of {len(counted):,} files ({quoted(files)})"
        _warn_of_uncalibrated(which, calibrated)


def _warn_of_uncalibrated(which: str, calibrated: tuple[float, float], median: str = "") -> None:
    low, high = calibrated
    warn_user(
        f"{which} have fewer than {low:,.0f} or more than {high:,.0f} tokens (expressed genes of the vocabulary{median}), the range "
        "that confidence was calibrated on, as in targeted panels or shallow data. Confidence and status are not calibrated for "
        "these cells: calibrate on labelled cells of the same kind with tl.calibrate, or treat them with caution."
    )


def _check_structure(matrix: Any) -> None:
    """Check the pointers of a sparse matrix, and its indices if it is in memory."""
    check_sparse_structure(matrix)
    if not is_on_disk_sparse(matrix) and getattr(matrix, "format", "") in {"csr", "csc"}:
        axis = 1 if matrix.format == "csr" else 0
        check_indices(matrix.indices, matrix.shape[axis], axis=("row", "column")[axis])


def warn_user(message: str) -> None:
    """Issue a UserWarning that points to the code that called this package."""
    warnings.warn(message, UserWarning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return the stack level of the code that called this package."""
    frame, level = sys._getframe(1), 1
    package = "sccello_tools"
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
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
