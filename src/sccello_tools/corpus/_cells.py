"""Cells as they come out of a corpus: from Arrow tables to tokens and labels."""

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
    """Tokens of the cells. A corpus keeps the ranks, not the expression: ``tokens.values`` is NaN."""

    cell_types: NDArray[np.object_]
    """Label of each cell as the corpus has it, "" where it has none, shape (n_cells,)."""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, cells: NDArray[np.integer]) -> CorpusCells:
        """Return some of the cells, in the order given."""
        return CorpusCells(self.tokens.take(cells), self.cell_types[cells])

    @classmethod
    def concatenate(cls, parts: Sequence[CorpusCells]) -> CorpusCells:
        """Join cells, in order."""
        labels = [part.cell_types for part in parts]
        return cls(
            RaggedTokens.concatenate(part.tokens for part in parts),
            np.concatenate([np.empty(0, dtype=object), *labels]),
        )


def read_cells(
    tokens: pa.ChunkedArray, cell_types: pa.ChunkedArray, *, max_length: int | None, where: str
) -> CorpusCells:
    """Turn two columns into cells.

    Parameters
    ----------
    tokens
        Lists of token ids; a missing or empty list is a cell without tokens.
    cell_types
        Labels, of any type.
    max_length
        Most tokens of a cell; all if None.
    where
        Name of the place in the corpus, for messages.

    Raises
    ------
    CorpusError
        If the ids are not those of the vocabulary.
    """
    lists = tokens.combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
    flat = lists.flatten()
    if flat.null_count or not pa.types.is_integer(flat.type):
        msg = f"{where} has token ids of type {flat.type} with {flat.null_count:,} missing; expected are whole numbers, none missing."
        raise CorpusError(msg)
    ids = np.asarray(flat)
    if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < VOCABULARY_SIZE):
        msg = (
            f"{where} has token ids from {ids.min()} to {ids.max()}; expected is 0 to {VOCABULARY_SIZE - 1}. "
            "It was made with another vocabulary: tokenize the counts again with pp.build_corpus."
        )
        raise CorpusError(msg)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    firsts = ids[indptr[:-1][lengths > 0]]
    if (firsts != CLS_ID).any():
        msg = (
            f"{where} has cells that do not begin with <cls> ({CLS_ID}), for one with {firsts[firsts != CLS_ID][0]}; "
            "expected are the columns of a published corpus or of pp.build_corpus."
        )
        raise CorpusError(msg)
    ragged = RaggedTokens(indptr, ids.astype(np.int32), _unknown(len(ids)))
    if max_length is not None and lengths.max(initial=0) > max_length:
        ragged = ragged.truncate(max_length)
    return CorpusCells(ragged, labels_of(cell_types))


def labels_of(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Labels as strings, "" where one is missing."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    names = np.array([*map(_text, encoded.dictionary.to_pylist()), ""], dtype=object)
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), len(names) - 1)
    labels: NDArray[np.object_] = names[np.asarray(codes)]
    return labels


def count_labels(column: pa.ChunkedArray) -> dict[str, int]:
    """Cells by label."""
    names, counts = np.unique(labels_of(column).astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist()))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _unknown(n: int) -> NDArray[np.float32]:
    """Make a vector of NaN that takes no memory."""
    return np.broadcast_to(np.float32(np.nan), n)
