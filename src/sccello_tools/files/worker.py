"""Tasks of a worker: read the rows of blocks, compute, and write one file per block."""

from __future__ import annotations

import errno
import time
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools._anndata.counts import LOW_FRACTION
from sccello_tools._logging import logger
from sccello_tools.corpus import Corpus, read_record, shard_path
from sccello_tools.corpus.manifest import (
    SOURCE,
    SOURCE_ROW,
    CorpusManifest,
    Fingerprint,
    ShardRecord,
)
from sccello_tools.errors import FileFormatError, FilesError
from sccello_tools.tokens import Tokenizer

from .blocks import (
    BlockCells,
    annotate,
    annotator_of,
    cell_columns,
    embed,
    shard,
    shard_schema,
    tokenize,
)
from .parquet import as_table, read_table, vector_column, vectors_of, write_rows
from .plan import (
    EMBEDDING,
    AnnotateConfig,
    CellsRecord,
    EmbedConfig,
    FilesManifest,
    block_path,
    is_corpus,
    matched,
)
from .read import as_text
from .run import AGAIN
from .stores import open_cells, regrouped_rows, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Literal

    from numpy.typing import NDArray

    from sccello_tools.annotation import OpenWorldAnnotator
    from sccello_tools.corpus.manifest import Input, Record
    from sccello_tools.engine import Precision
    from sccello_tools.models import LoadedModel
    from sccello_tools.nn import AttentionName
    from sccello_tools.tokens import Chunk, GeneMatch
    from sccello_tools.tokens.counts import CountsPolicy

    from .plan import Block, Task
    from .stores import CellFile

CELLS_PER_GROUP = 1024  # rows of a shard that training reads at a time, about 3 MB
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOTCONN}
_WAITS = (1.0, 10.0)  # seconds before a transient error of a network file system is retried
_lock = Lock()


class Setup(NamedTuple):
    """Arguments that workers need besides the manifest in the output folder. Tasks carry these and row ranges, never matrices."""

    out: Path
    plan: str
    """Hash of the job, see :attr:`sccello_tools.corpus.manifest.Manifest.plan`."""
    counts: CountsPolicy
    min_matched: int
    model: str | Path = ""
    device: str = "auto"
    precision: Precision = "auto"
    attention: AttentionName = "auto"
    batch_tokens: int | Literal["auto"] = "auto"


def process(setup: Setup, task: Task) -> list[Record]:
    """Process the blocks of a task and return their descriptions; called on workers.

    Raises
    ------
    NotCountsError, FileFormatError
        If the matrix does not hold raw counts, or the file is damaged.
    FilesError
        If the file was changed in the meantime.
    OutputError
        If the disk is full or not writable.
    """
    job = job_of(setup)
    for wait in _WAITS:
        try:
            return list(job.records(task))
        except FileFormatError as error:
            if getattr(error.__cause__, "errno", None) not in _TRANSIENT:
                raise
            logger.warning("%s; retrying in %d s", error, wait)
            time.sleep(wait)
    return list(job.records(task))


def job_of(setup: Setup) -> Job:
    """Return the prepared job of this process; models are loaded once."""
    with _lock:
        return _job(setup)


@lru_cache(maxsize=1)
def _job(setup: Setup) -> Job:
    return Job(setup)


class Job:
    """A job on one worker: the manifest, and the model and annotator when they are first needed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        kind = CorpusManifest if (setup.out / "shards").is_dir() else FilesManifest
        self.manifest: CorpusManifest | FilesManifest = kind.read(setup.out)
        self.config = self.manifest.config
        if self.manifest.plan != setup.plan:
            msg = f"{setup.out} was changed by another call while this one was running. Use different output folders."
            raise FilesError(msg)

    @cached_property
    def model(self) -> LoadedModel:
        """The model on the device of this worker."""
        from sccello_tools.models import load

        model = load(self.setup.model, device=self.setup.device)
        if model.sha256 != getattr(self.config, "weights_sha256", ""):
            msg = f"The weights of {self.setup.model} on this worker differ from those of the process that started the job. All workers need the same model."
            raise FilesError(msg)
        return model

    @cached_property
    def annotator(self) -> OpenWorldAnnotator:
        """Thresholds, candidates and statistics of the model."""
        return annotator_of(self.model, cast("AnnotateConfig", self.config).parameters)

    @property
    def _annotates_at_once(self) -> bool:
        """Whether cells are annotated as soon as they are embedded."""
        return isinstance(self.config, AnnotateConfig) and not self.config.infers_tissues

    def records(self, task: Task) -> Iterator[Record]:
        """Process the blocks of a task one after the other."""
        file = self.manifest.inputs[task.blocks[0].number]
        path = Path(file.path)
        self._check_unchanged(file)
        if is_corpus(path):
            corpus = _corpus(path, file.fingerprint)
            for block in task.blocks:
                yield self._of_tokens(file, corpus, block)
            return
        with open_cells(path) as cells:
            match = matched(cells, self.config, min_matched=self.setup.min_matched)
            tokenizer = Tokenizer(match, self.config.max_length)
            matrix = cells.matrix(self.config.layer)
            spans = [(block.start, block.stop) for block in task.blocks]
            parts = (
                (rows_of(matrix, *span) for span in spans)
                if getattr(matrix, "format", "") != "csc"
                else regrouped_rows(matrix, spans)
            )
            for block, chunks in zip(task.blocks, parts):
                if task.tissues is not None:
                    yield self._annotated(block, chunks, match, task.tissues)
                    continue
                found, complaint = tokenize(
                    chunks, tokenizer, self.setup.counts, keep_counts=self._annotates_at_once
                )
                if complaint:
                    raise cells.not_counts(self.config.layer, complaint)
                if len(found.tokens) != block.n_rows:
                    msg = f"{path}: {len(found.tokens):,} rows were read instead of {block.n_rows:,}. It is damaged: write it again."
                    raise FileFormatError(msg)
                if isinstance(self.manifest, CorpusManifest):
                    yield self._shard(file, cells, block, found)
                else:
                    names = cells.obs.index(block.start, block.stop)
                    rows = np.arange(block.start, block.stop)
                    yield self._block(file, block, found, names, [file.source] * len(rows), rows)
        self._check_unchanged(file)

    def _of_tokens(self, file: Input, corpus: Corpus, block: Block) -> Record:
        """Embed cells of a corpus."""
        tokens = corpus.read_rows(block.start, block.stop).tokens
        tokens = tokens.truncate(self.config.max_length)
        rows = np.arange(block.start, block.stop)
        source = np.array([file.source] * len(rows), dtype=object)
        if corpus.manifest is not None:
            table = corpus.read_columns(block.start, block.stop, [SOURCE, SOURCE_ROW])
            rows = np.asarray(table[SOURCE_ROW])
            source = np.asarray(table[SOURCE].to_pandas(), dtype=object)
        names = source + ":" + rows.astype(str).astype(object)
        return self._block(file, block, BlockCells(tokens), names, source, rows)

    def _block(
        self,
        file: Input,
        block: Block,
        cells: BlockCells,
        names: NDArray[np.object_],
        source: Any,
        rows: NDArray[np.int64],
    ) -> Record:
        """Embed or annotate the cells of a block and write them."""
        columns = cell_columns(cells.tokens, names, pd.Categorical(source), rows)
        config = self.config
        vectors = embed(
            cells,
            self.model,
            representation=config.representation if isinstance(config, EmbedConfig) else "cls",
            precision=self.setup.precision,
            attention=self.setup.attention,
            batch_tokens=self.setup.batch_tokens,
        )
        if self._annotates_at_once:
            columns |= annotate(vectors, cells.counts, cells.match, self.model, self.annotator)
        else:
            columns[EMBEDDING] = vector_column(vectors)
        known = cells.tokens.known_fraction
        record = CellsRecord(
            **self._described(file, block),
            n_empty=int((cells.tokens.lengths == 0).sum()),
            n_unknown=0 if known is None else int(((known > 0) & (known < LOW_FRACTION)).sum()),
            inferred_tissues={} if self._annotates_at_once else None,
        )
        return self._written(block, columns, record)

    def _annotated(
        self, block: Block, chunks: Iterable[Chunk], match: GeneMatch, tissues: Mapping[str, float]
    ) -> Record:
        """Annotate the embedded cells of a block, in place of their embedding."""
        from sccello_tools.annotation import in_tissues

        path = block_path(self.setup.out, block)
        table, record = read_table(path), read_record(path, CellsRecord)
        if record is None:
            msg = f"{path} was deleted while it was processed. {AGAIN}"
            raise FilesError(msg)
        if record.inferred_tissues is not None:  # by a worker that was lost before it could report
            return record
        columns = {key: table.column(key) for key in table.column_names if key != EMBEDDING}
        counts = sparse.vstack([chunk.rows for chunk in chunks], format="csr")
        annotator = in_tissues(self.annotator, tissues)
        columns |= annotate(
            vectors_of(table.column(EMBEDDING)), counts, match, self.model, annotator
        )
        done = record.model_copy(update={"inferred_tissues": dict(tissues)})
        return self._written(block, columns, done)

    def _written(self, block: Block, columns: Mapping[str, Any], record: CellsRecord) -> Record:
        table = as_table(columns)
        write_rows(block_path(self.setup.out, block), table.schema, [table], record)
        return record

    def _shard(self, file: Input, cells: CellFile, block: Block, found: BlockCells) -> Record:
        """Write the labelled cells of a block as a shard of a corpus."""
        manifest = cast("CorpusManifest", self.manifest)
        start, stop = block.start, block.stop
        made = shard(
            found.tokens,
            cells.labels(manifest.config.label_key, start, stop),
            manifest.terms,
            manifest.obsolete,
            file.labels_uninformative,
            {
                key: _as_kind(cells.obs.column(key, start, stop), kind)
                for key, kind in manifest.obs_kinds.items()
            },
            source=file.source,
            first_row=start,
            schema=shard_schema(manifest.obs_kinds),
        )
        n = len(made.table)
        record = ShardRecord(
            **self._described(file, block),
            source=file.source,
            blocks=tuple(min(CELLS_PER_GROUP, n - i) for i in range(0, n, CELLS_PER_GROUP)),
            n_tokens=made.n_tokens,
            sha256=made.sha256,
            cell_types=made.cell_types,
            left_out=made.left_out,
        )
        path = shard_path(self.setup.out, block.name)
        write_rows(path, made.table.schema, [made.table], record, row_group=CELLS_PER_GROUP)
        return record

    def _described(self, file: Input, block: Block) -> dict[str, Any]:
        return {
            "name": block.name,
            "config": self.config.digest,
            "fingerprint": file.fingerprint,
            "first_row": block.start,
            "last_row": block.stop,
        }

    @staticmethod
    def _check_unchanged(file: Input) -> None:
        if Fingerprint.of(Path(file.path)) != file.fingerprint:
            msg = f"{file.path} was changed while it was processed. Call again when nothing writes to it; finished blocks are kept."
            raise FilesError(msg)


@lru_cache(maxsize=2)
def _corpus(path: Path, fingerprint: Fingerprint) -> Corpus:  # noqa: ARG001 - part of the key
    return Corpus.open(path)


def _as_kind(values: Any, kind: str) -> Any:
    if kind == "string":
        return as_text(values, missing=None)
    array = np.asarray(values)
    return array if array.dtype != object else array.astype(kind)
