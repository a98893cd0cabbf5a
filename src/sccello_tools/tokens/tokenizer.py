"""Rank-value tokens: the expressed genes of a cell, ranked by median-normalised expression (arXiv 2408.12373, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._threads import in_threads
from sccello_tools.errors import ArgumentError

from ._kernels import count_kept, rank_rows
from .vocabulary import CLS_ID, GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from .gene_match import GeneMatch

MAX_LENGTH = 2048  # learned positions of the published model
_ROWS_PER_TASK = 256  # small enough to balance threads, large enough to hide their overhead


@dataclass(frozen=True, eq=False)
class RaggedTokens:
    """Token sequences of several cells, concatenated without padding.

    The tokens of cell ``i`` are ``ids[indptr[i]:indptr[i + 1]]``; a cell without counts in any gene of the vocabulary has none.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.tokens import RaggedTokens
    >>> tokens = RaggedTokens(
    ...     indptr=np.array([0, 3, 5]),
    ...     ids=np.array([25426, 9, 4, 25426, 7], dtype=np.int32),
    ... )
    >>> len(tokens), tokens.lengths.tolist(), tokens[1].tolist()
    (2, [3, 2], [25426, 7])
    """

    indptr: NDArray[np.int64]
    """Start of each cell in ``ids``, array of shape (n_cells + 1,)."""

    ids: NDArray[np.int32]
    """Token ids, array of shape (n_tokens,): ``<cls>``, then genes in rank order."""

    values: NDArray[np.float32] | None = None
    """``log1p`` of counts per 10,000 of the gene of each token, 0 at ``<cls>``, array of shape (n_tokens,); None unless requested."""

    n_genes: NDArray[np.int32] | None = None
    """Number of expressed genes of the vocabulary before truncation to ``max_length``, array of shape (n_cells,)."""

    known_fraction: NDArray[np.float32] | None = None
    """Fraction of the counts of each cell in genes of the vocabulary, array of shape (n_cells,); NaN for cells without counts."""

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, cell: int) -> NDArray[np.int32]:
        """Return the token ids of one cell."""
        if not -len(self) <= cell < len(self):
            msg = f"cell {cell} is out of range for {len(self)} cells"
            raise IndexError(msg)
        cell %= len(self)
        return self.ids[self.indptr[cell] : self.indptr[cell + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens per cell, including ``<cls>``, array of shape (n_cells,)."""
        return np.diff(self.indptr)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Whether a cell has more genes than tokens, array of shape (n_cells,)."""
        if self.n_genes is None:
            return np.zeros(len(self), dtype=bool)
        return self.n_genes > np.maximum(self.lengths - 1, 0)

    def take(self, cells: NDArray[np.integer] | Sequence[int]) -> RaggedTokens:
        """Return the tokens of some cells, in the given order."""
        cells = np.asarray(cells, dtype=np.int64)
        return self._gather(
            self.indptr[cells],
            self.lengths[cells],
            None if self.n_genes is None else self.n_genes[cells],
            None if self.known_fraction is None else self.known_fraction[cells],
        )

    def truncate(self, max_length: int) -> RaggedTokens:
        """Return the first ``max_length`` tokens of every cell, including ``<cls>``."""
        n_genes = self.n_genes
        if n_genes is None:
            n_genes = np.maximum(self.lengths - 1, 0).astype(np.int32)
        lengths = np.minimum(self.lengths, max_length)
        return self._gather(self.indptr[:-1], lengths, n_genes, self.known_fraction)

    def _gather(
        self,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        n_genes: NDArray[np.int32] | None,
        known_fraction: NDArray[np.float32] | None,
    ) -> RaggedTokens:
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        # source of every token: start of its cell plus its position within the cell
        source = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        values = None if self.values is None else self.values[source]
        return RaggedTokens(indptr, self.ids[source], values, n_genes, known_fraction)

    @classmethod
    def concatenate(cls, parts: Iterable[RaggedTokens]) -> RaggedTokens:
        """Concatenate cells in order. A generator of parts is held in memory once, not twice.

        Optional arrays are kept only if all parts have them.
        """
        lengths = [np.zeros(0, dtype=np.int64)]
        genes: list[NDArray[np.int32] | None] = [np.zeros(0, dtype=np.int32)]
        fractions: list[NDArray[np.float32] | None] = [np.zeros(0, dtype=np.float32)]
        ids = _Growing(np.int32)
        values: _Growing | None = None
        for number, part in enumerate(parts):
            lengths.append(part.lengths)
            genes.append(part.n_genes)
            fractions.append(part.known_fraction)
            ids.extend(part.ids)
            if number == 0 and part.values is not None:
                values = _Growing(np.float32)
            if values is None or part.values is None:
                values = None
            else:
                values.extend(part.values)
        return cls(
            np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
            ids.finish(),
            None if values is None else values.finish(),
            _joined(genes),
            _joined(fractions),
        )


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


class _Growing:
    """A vector that grows at its end; the operating system moves large ones without copying."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._array: NDArray[Any] = np.empty(0, dtype=dtype)
        self._size = 0

    def extend(self, piece: NDArray[Any]) -> None:
        size = self._size + len(piece)
        if size > len(self._array):
            self._resize(max(size, len(self._array) * 5 // 4))
        self._array[self._size : size] = piece
        self._size = size

    def finish(self) -> NDArray[Any]:
        self._resize(self._size)
        return self._array

    def _resize(self, size: int) -> None:
        # the array has not been exposed yet, so no other reference can exist
        self._array.resize(size, refcheck=False)


@dataclass(frozen=True)
class Tokenizer:
    """Converts rows of raw counts to rank-value tokens (arXiv 2408.12373, section 3.1).

    For raw counts ``x`` of one cell, restricted to the genes of the vocabulary, genes with ``x > 0`` are sorted by ``x / median``
    in descending order; ties are broken by ascending token id. The median is the non-zero median of the gene in the pretraining
    corpus. Columns of the same gene are summed first.
    """

    gene_match: GeneMatch
    """Gene of each column of the matrix."""

    max_length: int = MAX_LENGTH
    """Maximum number of tokens per cell, including ``<cls>``."""

    return_values: bool = False
    """Whether to compute ``log1p(10_000 x / sum(x))`` of each token."""

    def __post_init__(self) -> None:
        if self.max_length < 2:
            msg = f"max_length must be at least 2 (<cls> and one gene), got {self.max_length}"
            raise ArgumentError(msg)

    def __call__(self, rows: csr_array) -> RaggedTokens:
        """Tokenize rows: a CSR array of shape (n_cells, n_columns) of non-negative finite counts with a valid structure."""
        if rows.shape[1] != self.gene_match.n_columns:
            msg = (
                f"the matrix must have one column for each of the {self.gene_match.n_columns:,} matched names, got {rows.shape[1]:,} "
                "columns"
            )
            raise ArgumentError(msg)
        column_token = np.where(self.gene_match.excluded, np.int32(-2), self.gene_match.tokens)
        medians = GeneVocabulary.load().median_of_token
        indptr = rows.indptr.astype(np.int64, copy=False)
        indices = rows.indices.astype(np.int32, copy=False)
        # the kernels are compiled for these two types; float64 represents all realistic counts exactly
        dtype = np.float32 if rows.data.dtype == np.float32 else np.float64
        data: NDArray[np.floating] = rows.data.astype(dtype, copy=False)
        n_cells = rows.shape[0]
        distinct = self.gene_match.n_duplicates == 0 and bool(rows.has_canonical_format)

        n_genes = np.zeros(n_cells, dtype=np.int32)
        fraction = np.zeros(n_cells, dtype=np.float32)
        in_threads(
            n_cells,
            lambda a, b: count_kept(
                indptr, indices, data, column_token, len(medians), distinct, a, b, n_genes, fraction
            ),
            block=_ROWS_PER_TASK,
        )
        lengths = np.where(n_genes > 0, np.minimum(n_genes + np.int64(1), self.max_length), 0)
        out_indptr = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.empty(out_indptr[-1], dtype=np.int32)
        values = np.empty(out_indptr[-1] if self.return_values else 0, dtype=np.float32)
        counts = indptr, indices, data, column_token, medians, CLS_ID, distinct
        in_threads(
            n_cells,
            lambda a, b: rank_rows(*counts, a, b, out_indptr, ids, values),
            block=_ROWS_PER_TASK,
        )
        return RaggedTokens(
            out_indptr, ids, values if self.return_values else None, n_genes, fraction
        )
