"""Shuffled cells per second that reach a training loop, and memory and shuffle quality of streaming a large corpus.

    python benchmarks/reading.py [--data ../shared/data] [--cells 20000]
    python benchmarks/reading.py --stream-cells 10000000      # synthetic cells of few tokens, sorted by source and type

The first table compares loaders on the same real cells (drawn with replacement) in batches of 256, one epoch, in one process. A corpus holds
tokens, so its cells are ready for the encoder; matrices still have to be tokenized, which the rows "tokenized" include.

The second streams one epoch of a synthetic corpus that is sorted by source, the worst case for a buffer, and reports peak memory and how well the
batches are mixed: the variance of a source's fraction in a batch relative to random sampling (1 is perfect), and the correlation between a
cell's position in the corpus and in the epoch (0 is perfect).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from _common import against, print_table, time_all
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.corpus import Corpus
from sccello_tools.tokens import Tokenizer, match_gene_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 256
N_SOURCES, N_TYPES = 20, 50
WANTED_GB = 2.0


def drawn_cells(data: Path | None, n_cells: int) -> ad.AnnData:
    adata = (
        sccello.datasets.pancreas_tritschler()
        if data is None
        else ad.read_h5ad(data / "cells" / "train" / "pancreas.h5ad")
    )
    rows = np.sort(np.random.default_rng(0).integers(adata.n_obs, size=n_cells))
    drawn = adata[rows].copy()
    drawn.obs_names = [f"cell{i}" for i in range(n_cells)]
    return drawn


def stream_of(corpus: Corpus, buffer_cells: int = 16_384):
    """Batches of one epoch, as pretraining reads them."""
    from sccello_tools.training.pretrain import CorpusSource, PretrainConfig
    from sccello_tools.training.pretrain.stream import BlockStream

    terms = {term: term for term in corpus.cell_types}
    source = CorpusSource(corpus, terms)
    config = PretrainConfig(batch_cells=BATCH, buffer_cells=buffer_cells, balance=0.0)
    return BlockStream([source], list(terms), config)


def epoch_of(corpus: Corpus, buffer_cells: int = 16_384) -> Iterator:
    for batch in stream_of(corpus, buffer_cells).batches():
        yield batch
        if batch.position.epoch:
            return


def from_corpus(corpus: Corpus) -> Iterator[int]:
    for batch in epoch_of(corpus):
        yield len(batch.rows)


def from_annloader(
    adata: ad.AnnData, to_tokens: Callable[[object], object] | None
) -> Iterator[int]:
    from anndata.experimental import AnnLoader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in AnnLoader(adata, batch_size=BATCH, shuffle=True):
            values = batch.X
            if to_tokens is not None:
                dense = values.to_dense() if values.is_sparse else values
                to_tokens(sparse.csr_matrix(dense.numpy()))
            yield len(values)


def from_scvi(adata: ad.AnnData, to_tokens: Callable[[object], object] | None) -> Iterator[int]:
    import scvi
    from scvi.dataloaders import AnnDataLoader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvi.model.SCVI.setup_anndata(adata)
        manager = scvi.model.SCVI(adata).adata_manager
        for batch in AnnDataLoader(manager, batch_size=BATCH, shuffle=True):
            if to_tokens is not None:
                to_tokens(sparse.csr_matrix(batch["X"].numpy()))
            yield len(batch["X"])


def write_corpus(folder: Path, n_cells: int, n_tokens: int, cells_per_shard: int = 65_536) -> None:
    """Write a corpus of random tokens, sorted by source and type."""
    from sccello_tools.corpus import shard_path
    from sccello_tools.corpus.manifest import (  # fmt: skip
        SHARD_FOLDER,
        CorpusConfig,
        CorpusManifest,
        Fingerprint,
        Input,
        ShardRecord,
    )
    from sccello_tools.files.blocks import shard, shard_schema
    from sccello_tools.files.parquet import write_rows
    from sccello_tools.ontology import CellOntology
    from sccello_tools.tokens import CLS_ID, GeneVocabulary, RaggedTokens

    ontology = CellOntology.load()
    types = np.array(sorted(ontology.terms)[:N_TYPES], dtype=object)
    config = CorpusConfig(
        vocabulary_sha256=GeneVocabulary.load().sha256, layer=None, gene_ids=None, max_length=n_tokens,
        cells_per_block=cells_per_shard, ontology_release=ontology.release, label_key="type", obs_keys=(),
    )  # fmt: skip
    (folder / SHARD_FOLDER).mkdir(parents=True)
    rng, schema, terms = np.random.default_rng(0), shard_schema({}), {t: t for t in types}
    per_source, shards, inputs = n_cells // N_SOURCES, [], []
    seen = Fingerprint(n_bytes=0, mtime_ns=0)
    for number in range(N_SOURCES):
        name = f"source{number}"
        inputs.append(Input(source=name, path=name, fingerprint=seen, n_cells=per_source, n_kept=per_source))  # fmt: skip
        labels = types[np.arange(per_source) * N_TYPES // per_source]
        for i, start in enumerate(range(0, per_source, cells_per_shard)):
            n = min(cells_per_shard, per_source - start)
            ids = rng.integers(2, CLS_ID, (n, n_tokens)).astype(np.int32)
            ids[:, 0] = CLS_ID
            tokens = RaggedTokens(np.arange(0, ids.size + 1, n_tokens), ids.ravel())
            made = shard(tokens, labels[start : start + n], terms, (), (), {}, source=name, first_row=start, schema=schema)  # fmt: skip
            blocks = tuple(min(1024, n - j) for j in range(0, n, 1024))
            record = ShardRecord(
                name=f"{number:05d}-{i:06d}", config=config.digest, fingerprint=seen, first_row=start, last_row=start + n,
                source=name, blocks=blocks, n_tokens=made.n_tokens, sha256=made.sha256, cell_types=made.cell_types,
            )  # fmt: skip
            write_rows(shard_path(folder, record.name), made.table.schema, [made.table], record, row_group=1024)  # fmt: skip
            shards.append(record)
    counts = {t: sum(r.cell_types.get(t, 0) for r in shards) for t in types}
    CorpusManifest(
        schema_version=CorpusManifest.SCHEMA, config=config, inputs=tuple(inputs), complete=True, obs_kinds={}, terms=terms,
        cell_types=counts, shards=tuple(shards),
    ).write(folder)  # fmt: skip


def measure_stream(folder: Path, buffer_cells: int) -> None:
    """Stream one epoch and print memory, rate and how well the batches are mixed; in a process of its own."""
    corpus = Corpus.open(folder)
    begin, n_cells, variances, positions, rows = time.perf_counter(), 0, [], [], []
    for batch in epoch_of(corpus, buffer_cells):
        fractions = np.bincount(batch.sources.numpy(), minlength=N_SOURCES) / len(batch.rows)
        variances.append(((fractions - 1 / N_SOURCES) ** 2).mean())
        positions.append(n_cells)
        rows.append(float(np.median(np.asarray(batch.rows))))
        n_cells += len(batch.rows)
    seconds = time.perf_counter() - begin
    expected = (1 / N_SOURCES) * (1 - 1 / N_SOURCES) / BATCH
    print(
        json.dumps({
            "cells": n_cells,
            "seconds": seconds,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
            "variance_ratio": float(np.mean(variances) / expected),
            "order_correlation": float(np.corrcoef(positions, rows)[0, 1]),
        })
    )  # fmt: skip


def stream_benchmark(n_cells: int, n_tokens: int, buffers: list[int]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        begin = time.perf_counter()
        write_corpus(folder / "corpus", n_cells, n_tokens)
        written = time.perf_counter() - begin
        rows = []
        for buffer_cells in buffers:
            command = [sys.executable, __file__, "--one", str(folder / "corpus"), "--buffer", str(buffer_cells)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append((
                f"{buffer_cells:,}", f"{found['cells'] / found['seconds']:,.0f}", f"{found['peak_gb']:.2f}",
                against(found["peak_gb"], WANTED_GB, at_least=False), f"{found['variance_ratio']:.1f}", f"{found['order_correlation']:.3f}",
            ))  # fmt: skip
        print_table(
            f"One epoch of {n_cells:,} synthetic cells of {n_tokens} tokens, sorted by source, in batches of {BATCH}",
            ("cells in the buffer", "cells/s", "peak GB", "", "variance of source fractions, random = 1", "correlation with order on disk"),
            rows,
            f"Writing the corpus took {written:,.0f} s.",
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stream-cells", type=int, help="stream a synthetic corpus of that size")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of its cells")
    parser.add_argument("--buffers", type=int, nargs="+", default=[16_384, 131_072])
    parser.add_argument("--one", type=Path)
    parser.add_argument("--buffer", type=int)
    args = parser.parse_args()
    if args.one:
        measure_stream(args.one, args.buffer)
        return
    if args.stream_cells:
        stream_benchmark(args.stream_cells, args.tokens, args.buffers)
        return

    adata = drawn_cells(args.data, args.cells)
    tokenizer = Tokenizer(match_gene_names(adata.var_names))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "cells.h5ad"
        adata.write_h5ad(path)
        corpus = sccello.pp.build_corpus(path, Path(name) / "corpus")

        def read(source: Callable[[], Iterator[int]]) -> None:
            if (n := sum(source())) != args.cells:
                msg = f"{n} of {args.cells} cells were read"
                raise SystemExit(msg)

        work = {"corpus of tokens": partial(read, partial(from_corpus, corpus))}
        loaders = {"anndata's AnnLoader": from_annloader}
        if importlib.util.find_spec("scvi"):
            loaders["scvi-tools' AnnDataLoader"] = from_scvi
        for loader, function in loaders.items():
            work[loader] = partial(read, partial(function, adata, None))
            work[f"{loader}, tokenized"] = partial(read, partial(function, adata, tokenizer))
        timings = time_all(work, n_runs=args.runs)
    ours = timings["corpus of tokens"].median
    print_table(
        f"{args.cells:,} real cells of {adata.n_vars:,} genes, read shuffled in batches of {BATCH}",
        ("loader", "cells/s (range)", "relative time"),
        [[name, t.rate(args.cells), f"{t.median / ours:.1f}"] for name, t in timings.items()],
        "The corpus is read from disk, the others read a matrix in memory, which is an advantage for them.",
    )


if __name__ == "__main__":
    main()
