"""Cells per second from a CSR h5ad or a sharded zarr store to a finished corpus, and the memory that it takes.

    python benchmarks/corpus.py --data ../shared/data
    python benchmarks/corpus.py --data ../shared/data --cells 300000    # the figure for a long file
    python benchmarks/corpus.py --cells 5000                            # on the cells that ship with the package

Real cells are repeated until there are as many as asked for. Memory is the sum over the process and its workers, sampled 20 times a
second (Linux only); pages that processes share count in each, so it is an upper bound.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
from _common import against, print_table

import sccello_tools as sccello

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED_CELLS_A_SECOND = 5_000
WANTED_BYTES = 1.5e9


def write_repeated(folder: Path | None, path: Path, n_cells: int) -> float:
    """Write real cells again and again, never holding more than once; the genes that a cell expresses on average."""
    if folder is None:
        adata = sccello.datasets.pancreas_tritschler()
    else:
        adata = ad.read_h5ad(folder / "cells" / "train" / "pancreas.h5ad")
    rows = np.arange(n_cells) % adata.n_obs
    obs = adata.obs.iloc[rows][["cell_type_ontology_term_id", "donor"]].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    ad.AnnData(obs=obs, var=adata.var[[]]).write_h5ad(path)
    x = adata.X.tocsr().astype(np.float32)
    lengths = np.diff(x.indptr)[rows]
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        group = file.create_group("X")
        group.attrs.update({
            "encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (n_cells, adata.n_vars),
        })  # fmt: skip
        group["indptr"] = np.concatenate([[0], np.cumsum(lengths)])
        for name in ("data", "indices"):
            once = getattr(x, name)
            stored = group.create_dataset(
                name, (int(lengths.sum()),), dtype=once.dtype, chunks=(1 << 16,), compression="lzf"
            )
            for start in range(0, len(stored), len(once)):
                stop = min(start + len(once), len(stored))
                stored[start:stop] = once[: stop - start]
    return float(lengths.mean())


def as_sharded_zarr(path: Path, out: Path) -> None:
    """Copy an h5ad file into a zarr v3 store whose matrix is sharded: 64k values per chunk, 4 million per file."""
    import zarr

    with h5py.File(path) as file, ad.settings.override(zarr_write_format=3):
        group = zarr.open_group(out, mode="w", zarr_format=3)
        group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("obs", "var"):
            ad.io.write_elem(group, name, ad.io.read_elem(file[name]))
        matrix = group.create_group("X")
        matrix.attrs.update({key: np.asarray(value).tolist() for key, value in file["X"].attrs.items()})  # fmt: skip
        for name in ("data", "indices", "indptr"):
            values = file[f"X/{name}"]
            array = matrix.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(1 << 16,), shards=(1 << 22,))  # fmt: skip
            for start in range(0, len(values), 1 << 22):
                array[start : start + (1 << 22)] = values[start : start + (1 << 22)]


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Most bytes that this process and its children held at one time."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield peak
    stop.set()
    watcher.join()


def _resident() -> int:
    tasks = Path("/proc/self/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    total = 0
    for process in ["self", *children]:
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with cells/train/pancreas.h5ad")
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "cells.h5ad"
        genes = write_repeated(arguments.data, path, arguments.cells)
        # compile and import once, which a corpus of millions would not feel
        write_repeated(arguments.data, folder / "few.h5ad", 500)
        sccello.pp.build_corpus(folder / "few.h5ad", folder / "few")
        store = folder / "cells.zarr"
        as_sharded_zarr(path, store)
        runs = [("h5ad", path, n) for n in arguments.workers] + [("zarr v3, sharded", store, 1)]
        for kind, source, n_workers in runs:
            out = folder / f"corpus-{source.suffix[1:]}-{n_workers}"
            with peak_memory() as peak:
                start = time.perf_counter()
                processor = time.process_time()
                corpus = sccello.pp.build_corpus({"cells": source}, out, obs_keys=["donor"], n_workers=n_workers)  # fmt: skip
                seconds = time.perf_counter() - start
                processor = time.process_time() - processor
            n_bytes = sum(shard.path.stat().st_size for shard in corpus.shards)
            rate = arguments.cells / seconds
            rows.append((
                f"{kind}, {n_workers}", f"{rate:,.0f}", against(rate, WANTED_CELLS_A_SECOND),
                f"{arguments.cells / processor:,.0f}" if n_workers == 1 else "",
                f"{peak[0] / 1e9:.2f}", against(peak[0], WANTED_BYTES, at_least=False), f"{n_bytes / len(corpus):,.0f}",
            ))  # fmt: skip
        size = path.stat().st_size / 1e9
    print_table(
        f"{arguments.cells:,} cells of {genes:,.0f} genes, a CSR h5ad of {size:.2f} GB",
        (
            "store, processes", "cells/s", "", "cells per CPU second", "peak GB", "", "bytes per cell",
        ),
        rows,
        "With two processes the time includes starting them.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
