"""Rank-value tokens: a cell as the list of its genes, most remarkable first (METHOD: Tokens)."""

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

    from .genes import GeneMatch

MAX_LENGTH = 2048  # learned positions of the published model
_ROWS_PER_TASK = 256  # small enough to balance threads, large enough to hide their cost


@dataclass(frozen=True, eq=False)
class RaggedTokens:
    """Token sequences of several cells, one after the other, without padding.

    Cell ``i`` owns ``ids[indptr[i]:indptr[i + 1]]``; a cell in which no gene of the vocabulary was counted owns nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.tokens import RaggedTokens
    >>> tokens = RaggedTokens(
    ...     indptr=np.array([0, 3, 5]),
    ...     ids=np.array([25426, 9, 4, 25426, 7], dtype=np.int32),
    ...     values=np.array([0, 2.5, 1.0, 0, 3.0], dtype=np.float32),
    ... )
    >>> len(tokens), tokens.lengths.tolist(), tokens[1].tolist()
    (2, [3, 2], [25426, 7])
    """

    indptr: NDArray[np.int64]
    """Where each cell begins, shape (n_cells + 1,)."""

    ids: NDArray[np.int32]
    """Token ids, shape (n_tokens,): ``<cls>``, then genes in rank order."""

    values: NDArray[np.float32]
    """``log1p`` of counts per 10,000 of each token's gene, 0 at ``<cls>``, shape (n_tokens,)."""

    n_genes: NDArray[np.int32] | None = None
    """Genes of the vocabulary that each cell expresses, before the cut to ``max_length``, shape (n_cells,)."""

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, cell: int) -> NDArray[np.int32]:
        """Token ids of one cell."""
        if not -len(self) <= cell < len(self):
            msg = f"cell {cell} is out of range: there are {len(self)} cells"
            raise IndexError(msg)
        cell %= len(self)
        return self.ids[self.indptr[cell] : self.indptr[cell + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each cell, ``<cls>`` included, shape (n_cells,)."""
        return np.diff(self.indptr)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Whether genes of a cell were cut off at ``max_length``, shape (n_cells,)."""
        if self.n_genes is None:
            return np.zeros(len(self), dtype=bool)
        return self.n_genes > np.maximum(self.lengths - 1, 0)

    def take(self, cells: NDArray[np.integer] | Sequence[int]) -> RaggedTokens:
        """Return the tokens of some cells, in the order given."""
        cells = np.asarray(cells, dtype=np.int64)
        lengths = self.lengths[cells]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        # position of every token to copy: its cell's start, plus its place within the cell
        source = np.repeat(self.indptr[cells] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return RaggedTokens(
            indptr,
            self.ids[source],
            self.values[source],
            None if self.n_genes is None else self.n_genes[cells],
        )

    def truncate(self, max_length: int) -> RaggedTokens:
        """Cut every cell to its first ``max_length`` tokens, ``<cls>`` included."""
        lengths = np.minimum(self.lengths, max_length)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(self.indptr[:-1] - indptr[:-1], lengths) + np.arange(indptr[-1])
        n_genes = (
            np.maximum(self.lengths - 1, 0).astype(np.int32)
            if self.n_genes is None
            else self.n_genes
        )
        return RaggedTokens(indptr, self.ids[source], self.values[source], n_genes)

    @classmethod
    def concatenate(cls, parts: Iterable[RaggedTokens]) -> RaggedTokens:
        """Join the cells of several collections, in order. A generator of them is held once, not twice, in memory."""
        lengths = [np.zeros(0, dtype=np.int64)]
        genes: list[NDArray[np.int32] | None] = [np.zeros(0, dtype=np.int32)]
        ids, values = _Growing(np.int32), _Growing(np.float32)
        for part in parts:
            lengths.append(part.lengths)
            genes.append(part.n_genes)
            ids.extend(part.ids)
            values.extend(part.values)
        known = [of_part for of_part in genes if of_part is not None]
        return cls(
            np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
            ids.finish(),
            values.finish(),
            np.concatenate(known) if len(known) == len(genes) else None,
        )


class _Growing:
    """A vector that grows at its end; large ones are moved by the operating system, not copied."""

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
        # nobody else has seen the array yet, so that no reference can be left behind
        self._array.resize(size, refcheck=False)


@dataclass(frozen=True)
class Tokenizer:
    """Turns rows of counts into tokens, given which gene each column is.

    For raw counts ``x`` of one cell over the genes of the vocabulary, genes are ranked by ``x / median`` descending, zeros left
    out, ties by token id ascending; ``log1p(10_000 x / sum(x))`` goes with each. Two columns of one gene are summed first.
    """

    gene_match: GeneMatch
    """Which gene each column of the matrix is."""

    max_length: int = MAX_LENGTH
    """Most tokens of a cell, ``<cls>`` included."""

    def __post_init__(self) -> None:
        if self.max_length < 2:
            msg = f"max_length is {self.max_length}; a cell needs at least 2 tokens, <cls> and one gene"
            raise ArgumentError(msg)

    def __call__(self, rows: csr_array) -> RaggedTokens:
        """Tokenize one chunk of rows, a CSR array of shape (n_cells, n_columns) of non-negative finite counts."""
        if rows.shape[1] != self.gene_match.n_columns:
            msg = f"the matrix has {rows.shape[1]:,} columns, but {self.gene_match.n_columns:,} were matched to genes"
            raise ArgumentError(msg)
        column_token = self.gene_match.tokens
        medians = GeneVocabulary.load().median_of_token
        indptr = rows.indptr.astype(np.int64, copy=False)
        indices = rows.indices.astype(np.int32, copy=False)
        # numba compiles for these two only; every count that matters fits float64
        dtype = np.float32 if rows.data.dtype == np.float32 else np.float64
        data: NDArray[np.floating] = rows.data.astype(dtype, copy=False)
        n_cells = rows.shape[0]
        distinct = self.gene_match.n_duplicates == 0 and bool(rows.has_canonical_format)

        n_genes = np.zeros(n_cells, dtype=np.int32)
        in_threads(
            n_cells,
            lambda a, b: count_kept(
                indptr, indices, data, column_token, len(medians), distinct, a, b, n_genes
            ),
            block=_ROWS_PER_TASK,
        )
        lengths = np.where(n_genes > 0, np.minimum(n_genes + np.int64(1), self.max_length), 0)
        out_indptr = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.empty(out_indptr[-1], dtype=np.int32)
        values = np.empty(out_indptr[-1], dtype=np.float32)
        counts = indptr, indices, data, column_token, medians, CLS_ID, distinct
        in_threads(
            n_cells,
            lambda a, b: rank_rows(*counts, a, b, out_indptr, ids, values),
            block=_ROWS_PER_TASK,
        )
        return RaggedTokens(out_indptr, ids, values, n_genes)
