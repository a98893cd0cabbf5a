"""Cells of a corpus: from Arrow columns to tokens and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sccello_tools.errors import CorpusError
from sccello_tools.tokens.tokenizer import RaggedTokens
from sccello_tools.tokens.vocabulary import CLS_ID, VOCABULARY_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CorpusCells:
    """Some cells of a corpus, in memory."""

    tokens: RaggedTokens
    """Tokens of the cells. A corpus stores ranks, not expression, so ``tokens.values`` is NaN."""

    cell_types: NDArray[np.object_]
    """Label of each cell, "" if missing, shape (n_cells,)."""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, cells: NDArray[np.integer]) -> CorpusCells:
        """Return a selection of cells in the given order."""
        return CorpusCells(self.tokens.take(cells), self.cell_types[cells])

    @classmethod
    def concatenate(cls, parts: Sequence[CorpusCells]) -> CorpusCells:
        """Concatenate cells."""
        labels = [part.cell_types for part in parts]
        return cls(
            RaggedTokens.concatenate(part.tokens for part in parts),
            np.concatenate([np.empty(0, dtype=object), *labels]),
        )


def read_cells(
    tokens: pa.ChunkedArray, cell_types: pa.ChunkedArray, *, max_length: int | None, where: str
) -> CorpusCells:
    """Convert two columns to cells.

    Parameters
    ----------
    tokens
        Lists of token ids; a cell without tokens is a missing or empty list.
    cell_types
        Labels, of any type.
    max_length
        Maximum number of tokens of a cell; None for all.
    where
        Location in the corpus, for messages.

    Raises
    ------
    CorpusError
        If the token ids are not those of the vocabulary.
    """
    lists = tokens.combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
    flat = lists.flatten()
    if flat.null_count or not pa.types.is_integer(flat.type):
        msg = f"{where}: token ids must be integers without missing values, got type {flat.type} with {flat.null_count:,} missing"
        raise CorpusError(msg)
    ids = np.asarray(flat)
    if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < VOCABULARY_SIZE):
        msg = (
            f"{where}: token ids must be in [0, {VOCABULARY_SIZE - 1}], got {ids.min()} to {ids.max()}. "
            "The corpus was built with another vocabulary: tokenize the counts again with pp.build_corpus."
        )
        raise CorpusError(msg)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    firsts = ids[indptr[:-1][lengths > 0]]
    if (firsts != CLS_ID).any():
        msg = (
            f"{where}: every cell must start with <cls> ({CLS_ID}), found {firsts[firsts != CLS_ID][0]}. "
            "Pass a published corpus or one built with pp.build_corpus."
        )
        raise CorpusError(msg)
    ragged = RaggedTokens(indptr, ids.astype(np.int32), _unknown(len(ids)))
    if max_length is not None and lengths.max(initial=0) > max_length:
        ragged = ragged.truncate(max_length)
    return CorpusCells(ragged, labels_of(cell_types))


def labels_of(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return labels as strings, "" if missing."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    names = np.array([*map(_text, encoded.dictionary.to_pylist()), ""], dtype=object)
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), len(names) - 1)
    labels: NDArray[np.object_] = names[np.asarray(codes)]
    return labels


def count_labels(column: pa.ChunkedArray) -> dict[str, int]:
    """Count the cells of each label."""
    names, counts = np.unique(labels_of(column).astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist()))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _unknown(n: int) -> NDArray[np.float32]:
    """Return a vector of NaN that takes no memory."""
    return np.broadcast_to(np.float32(np.nan), n)
