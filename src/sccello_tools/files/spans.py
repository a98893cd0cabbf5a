"""Consecutive rows of a file's matrix, read a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sccello_tools.tokens import row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from sccello_tools.tokens import Chunk

# rows of a sparse matrix, and values of a dense one, that are read at a time: about 30 and 70 MB
_ROWS: Final = 2048
_DENSE_VALUES: Final = 1 << 24


class Span(NamedTuple):
    """Rows of an input that are worked on together, as one shard of a corpus or one block of embeddings."""

    name: str
    start: int
    stop: int


def spans_of(number: int, n_cells: int, n_rows: int) -> list[Span]:
    """Divide the rows of an input. Names ascend as the rows do, and say nothing of who works on them."""
    return [
        Span(f"{number:05d}-{i:06d}", start, min(start + n_rows, n_cells))
        for i, start in enumerate(range(0, n_cells, n_rows))
    ]


def row_slices(matrix: Any, span: Span) -> Iterator[Chunk]:
    """Rows of a matrix on disk whose rows can be read apart."""
    sparse_on_disk = hasattr(matrix, "format")
    step = _ROWS if sparse_on_disk else max(1, min(_ROWS, _DENSE_VALUES // max(1, matrix.shape[1])))
    for start in range(span.start, span.stop, step):
        for chunk in row_chunks(matrix[start : min(start + step, span.stop)], n_rows=step):
            yield chunk._replace(start=start + chunk.start)


def csc_spans(matrix: Any, spans: Sequence[Span]) -> Iterator[Iterator[Chunk]]:
    """For each span, its rows of a CSC matrix, which is regrouped by rows once; spans are to be read in turn."""
    n_rows = max(span.stop - span.start for span in spans)
    chunks = row_chunks(matrix, n_rows=min(_ROWS, n_rows))
    held = next(chunks, None)

    def rows_of(span: Span) -> Iterator[Chunk]:
        nonlocal held
        while held is not None and held.start < span.stop:
            first = max(span.start - held.start, 0)
            last = min(span.stop - held.start, held.rows.shape[0])
            if first < last:
                yield type(held)(held.start + first, held.rows[first:last])
            if held.start + held.rows.shape[0] > span.stop:
                return
            held = next(chunks, None)

    for span in spans:
        yield rows_of(span)
