"""What one process does: its share of the blocks, and the end of the work if it is the last."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from sccello_tools._logging import logger
from sccello_tools._progress import progress_bar
from sccello_tools._threads import prefetch
from sccello_tools.errors import EmbeddingFilesError, FileFormatError, NotCountsError
from sccello_tools.models import load
from sccello_tools.tokens import RaggedTokens, Tokenizer, ValueSummary

from .cells import write_cells
from .inputs import fingerprint_of, matrix_of, not_counts, open_store
from .manifest import AGAIN, PARTS, read_journals
from .part import BlockRows, PartWriter, read_block
from .spans import csc_spans, row_slices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, Representation
    from sccello_tools.tokens import GeneMatch
    from sccello_tools.tokens.counts import CountsPolicy

    from .manifest import Block, BlockRecord, EmbedManifest
    from .processes import Place

_PATIENCE = 20.0  # seconds that the processes of a killed call may take to end


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a process must know."""

    out: Path
    manifest: EmbedManifest
    matches: tuple[GeneMatch, ...]
    """Which gene each column is, for each input."""
    model: str
    representation: Representation
    precision: Precision
    attention: AttentionName
    batch_tokens: int | Literal["auto"]
    device: str
    counts: CountsPolicy
    n_threads: int

    def __call__(self, place: Place) -> None:
        """Embed the blocks of a place."""
        with self._alone(place):
            share = self.manifest.blocks()[place.rank :: place.world]
            missing = self._missing(share)
            if missing:
                self._embed(missing, place)
        self._finish()

    @contextmanager
    def _alone(self, place: Place) -> Iterator[None]:
        lock = FileLock(self.out / PARTS / f"rank-{place.rank:04d}.lock", timeout=_PATIENCE)
        try:
            with lock:
                yield
        except Timeout as error:
            msg = f"Another process is embedding into {self.out}. Wait until it has finished, or end it."
            raise EmbeddingFilesError(msg) from error

    def _missing(self, share: list[Block]) -> list[Block]:
        """Blocks that are not there, or are not what was written."""
        journals = read_journals(self.out)
        return [
            block
            for block in share
            if not any(
                self._is_good(record) for record in reversed(journals.get(block.span.name, ()))
            )
        ]

    def _is_good(self, record: BlockRecord) -> bool:
        if read_block(self.out, record) is not None:
            return True
        logger.warning("block %s in %s is damaged and is made again", record.block, record.part)
        return False

    def _embed(self, blocks: list[Block], place: Place) -> None:
        import torch

        from sccello_tools.engine import encode

        if place.n_local > 1 and not torch.cuda.is_available():
            torch.set_num_threads(max(1, self.n_threads // place.n_local))
        loaded = load(self.model, device=device_of(self.device, place))
        if loaded.sha256 != self.manifest.config.weights_sha256:
            msg = f"The weights of {self.model} were changed while the work went on. Let nothing write to them, and embed into a new folder."
            raise EmbeddingFilesError(msg)
        part = PartWriter(self.out, place.rank)
        own = [r for records in read_journals(self.out).values() for r in records]
        used = max((r.at + r.n_cells for r in own if r.part == part.path.name), default=0)
        part.open(self.manifest.config, n_used=used)
        total = sum(block.span.stop - block.span.start for block in blocks)
        with (
            progress_bar(f"embedding cells ({place.rank + 1} of {place.world})", total) as advance,
            closing(prefetch(self._tokens(blocks))) as prepared,
        ):
            for block, tokens in prepared:
                vectors = encode(
                    loaded.network,
                    tokens,
                    representation=self.representation,
                    batch_tokens=self.batch_tokens,
                    precision=self.precision,
                    attention=self.attention,
                    on_progress=advance,
                )
                rows = BlockRows(vectors, tokens.lengths.astype(np.int32), tokens.truncated)
                file = self.manifest.inputs[block.number]
                part.append(block.span.name, rows, file.fingerprint)

    def _tokens(self, blocks: list[Block]) -> Iterator[tuple[Block, RaggedTokens]]:
        """Tokens of each block, file by file."""
        for number, file in enumerate(self.manifest.inputs):
            own = [block for block in blocks if block.number == number]
            if not own:
                continue
            path, config = Path(file.path), self.manifest.config
            tokenizer = Tokenizer(self.matches[number], config.max_length)
            self._check_unchanged(number)
            with open_store(path) as store:
                matrix = matrix_of(store, path, config.layer)
                by_column = getattr(matrix, "format", "") == "csc"
                spans = csc_spans(matrix, [block.span for block in own]) if by_column else None
                for block in own:
                    chunks = row_slices(matrix, block.span) if spans is None else next(spans)
                    parts = []
                    for chunk in chunks:
                        summary = ValueSummary()
                        summary.add(chunk.rows.data)
                        if complaint := summary.complaint(self.counts):
                            raise NotCountsError(not_counts(store, path, config.layer, complaint))
                        parts.append(tokenizer(chunk.rows))
                    tokens = RaggedTokens.concatenate(parts)
                    n = block.span.stop - block.span.start
                    if len(tokens) != n:
                        msg = f"{path} gave {len(tokens):,} of {n:,} rows from row {block.span.start:,} on. It is damaged: write it again."
                        raise FileFormatError(msg)
                    yield block, tokens
            self._check_unchanged(number)

    def _check_unchanged(self, number: int) -> None:
        file = self.manifest.inputs[number]
        if fingerprint_of(Path(file.path)) != file.fingerprint:
            msg = f"{file.path} was changed while its cells were embedded. Let nothing write to it. {AGAIN}"
            raise EmbeddingFilesError(msg)

    def _finish(self) -> None:
        """Join the parts if no block is missing, whoever comes last."""
        with FileLock(self.out / PARTS / "join.lock", timeout=600):
            journals = read_journals(self.out)
            records = []
            for block in self.manifest.blocks():
                of_block = reversed(journals.get(block.span.name, ()))
                good = next((record for record in of_block if self._is_good(record)), None)
                if good is None:
                    return
                records.append(good)
            write_cells(self.out, self.manifest, records)
            replace(self.manifest, complete=True, records=tuple(records)).write(self.out)


def device_of(device: str, place: Place) -> str:
    """Return the device of a place: its own GPU where there are several."""
    import torch

    if device in {"auto", "cuda"} and torch.cuda.is_available():
        return f"cuda:{place.local % torch.cuda.device_count()}"
    return device
