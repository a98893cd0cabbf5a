"""Cells a second that reach a training loop, shuffled: tokens from a corpus, beside loaders of count matrices.

    python benchmarks/reading.py [--data ../shared/data] [--cells 20000]

All read the same real cells (drawn with replacement up to the number asked for) in batches of 256, one epoch, in one process. The corpus holds
tokens, so its cells are ready for the encoder; what the loaders of matrices give has yet to be tokenized, which the second column adds.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from _common import print_table, time_all
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.tokens import Tokenizer, match_gene_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 256


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


def from_corpus(corpus: sccello.tokens.Corpus) -> Iterator[int]:
    for batch in corpus.shuffled(seed=0, batch_cells=BATCH).epoch():
        yield len(batch)


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    adata = drawn_cells(args.data, args.cells)
    tokenizer = Tokenizer(match_gene_names(adata.var_names))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "cells.h5ad"
        adata.write_h5ad(path)
        corpus = sccello.pp.build_corpus(path, Path(name) / "corpus")

        def read(source: Callable[[], Iterator[int]]) -> None:
            if (n := sum(source())) != args.cells:
                msg = f"{n} of {args.cells} cells came"
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
        ("loader", "cells/s (range)", "time, ours = 1"),
        [[name, t.rate(args.cells), f"{t.median / ours:.1f}"] for name, t in timings.items()],
        "The corpus lies on disk; the others read a matrix in memory, so that they have it easier.",
    )


if __name__ == "__main__":
    main()
