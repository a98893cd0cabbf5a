"""Cells per second and memory of the annotation, given embeddings and raw counts.

    python benchmarks/annotation_speed.py --cells 50000 --file-cells 1000000

Cells are the bundled PBMC with new draws of their counts (binomial thinning), so that no two are equal. The first table times
the steps of `tl.annotate_novel` on matrices in memory: marker scores, scores of all terms, decisions. The second one annotates an h5ad file
that is opened with backed="r+", where only chunks of the counts are in memory, and reports the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
from _common import print_table
from anndata.io import write_elem
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.annotation import annotator_for, evidence_of
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import match_gene_names

CHUNK = 4096


def source_cells() -> ad.AnnData:
    """The bundled PBMC with their embedding."""
    adata = sccello.datasets.pbmc3k_subsample()
    sccello.tl.embed(adata)
    return adata


def drawn(
    adata: ad.AnnData, n: int, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts of n cells, each count thinned to 80 %, and embeddings with noise."""
    rows = rng.integers(adata.n_obs, size=n)
    counts = sparse.csr_matrix(adata.X, dtype=np.float32)[rows]
    counts.data = rng.binomial(counts.data.astype(int), 0.8).astype(np.float32)
    counts.eliminate_zeros()
    hidden = adata.obsm["X_sccello"][rows]
    hidden = hidden + rng.normal(0, 0.05 * hidden.std(), hidden.shape)
    return counts, hidden.astype(np.float32)


def unit_rows(hidden: np.ndarray, model: sccello.models.LoadedModel) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model.network.cell_representation(torch.from_numpy(hidden)).numpy()


def time_steps(adata: ad.AnnData, n: int) -> None:
    model = sccello.models.load(device="cpu")
    annotator = annotator_for(evidence_of(model), CellOntology.load())
    annotator = annotator.for_columns(match_gene_names(adata.var_names).tokens)
    rng = np.random.default_rng(0)
    counts, hidden = drawn(adata, n, rng)
    cells = unit_rows(hidden, model)
    annotator.partial(hidden[:256], cells[:256], counts[:256])  # compiles
    chunks = [slice(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]
    wall, cpu = time.perf_counter(), time.process_time()
    for rows in chunks:
        annotator.scorer(counts[rows])
    markers = time.perf_counter() - wall, time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    parts = [annotator.partial(hidden[rows], cells[rows], counts[rows]) for rows in chunks]
    scored = time.perf_counter() - wall, time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    annotator.finish(parts)
    decided = time.perf_counter() - wall, time.process_time() - cpu
    steps = {
        "marker scores (part of the next)": markers,
        "scores of all terms": scored,
        "decisions for the data set": decided,
        "all": tuple(a + b for a, b in zip(scored, decided)),
    }
    print_table(
        f"{n:,} cells, {len(annotator.model.space):,} terms ({len(annotator.model.space.known)} known), {counts.nnz / n:,.0f} genes per cell",
        ["step", "cells/s", "cells per CPU second"],
        [(name, f"{n / w:,.0f}", f"{n / c:,.0f}") for name, (w, c) in steps.items()],
    )


def write_file(adata: ad.AnnData, n: int, path: Path, record: dict) -> None:
    """Write n cells in pieces."""
    rng = np.random.default_rng(1)
    adata = adata.copy()
    adata.obs, adata.uns = adata.obs[[]], {}
    first = ad.AnnData(sparse.csr_matrix((0, adata.n_vars), dtype=np.float32), var=adata.var[[]])
    first.write_h5ad(path)
    with h5py.File(path, "r+") as store:
        hidden = np.empty((n, adata.obsm["X_sccello"].shape[1]), dtype=np.float32)
        for start in range(0, n, 10_000):
            stop = min(start + 10_000, n)
            counts, hidden[start:stop] = drawn(adata, stop - start, rng)
            if start == 0:
                del store["X"]
                write_elem(store, "X", counts)
                for name in ("data", "indices", "indptr"):  # that can grow
                    values = store[f"X/{name}"][:]
                    del store[f"X/{name}"]
                    store.create_dataset(
                        f"X/{name}", data=values, maxshape=(None,), chunks=(1 << 18,)
                    )
                continue
            group = store["X"]
            length = group["data"].shape[0]
            for name, values in (
                ("data", counts.data),
                ("indices", counts.indices),
                ("indptr", counts.indptr[1:] + length),
            ):
                target = group[name]
                target.resize(target.shape[0] + len(values), axis=0)
                target[-len(values) :] = values
        store["X"].attrs["shape"] = (n, adata.n_vars)
        del store["obs"]
        import pandas as pd

        write_elem(store, "obs", pd.DataFrame(index=pd.RangeIndex(n).astype(str)))
        write_elem(store, "obsm", {"X_sccello": hidden})
        write_elem(store, "uns", {"X_sccello": record})


def annotate_file(adata: ad.AnnData, n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        write_file(adata, n, path, adata.uns["X_sccello"])
        size = path.stat().st_size
        # measured in a process of its own, whose memory was not used to write the file
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, cpu, before, peak = pool.apply(_annotate, (str(path),))
    print_table(
        f"{n:,} cells in a file of {size / 1e9:.1f} GB",
        ["", ""],
        [
            ("cells/s", f"{n / seconds:,.0f}"),
            ("cells per CPU second", f"{n / cpu:,.0f}"),
            ("memory before (packages, model), GB", f"{before / 1e9:.2f}"),
            ("peak memory, GB", f"{peak / 1e9:.2f}"),
        ],
    )


def peak_memory() -> int:
    """Most bytes that this process held. A new process takes over ru_maxrss of the process that started it, but not VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _annotate(path: str) -> tuple[float, float, int, int]:
    warm = sccello.datasets.pbmc3k_subsample()[:50].copy()
    sccello.tl.annotate_novel(warm)
    before = peak_memory()
    adata = ad.read_h5ad(path, backed="r+")
    wall, cpu = time.perf_counter(), time.process_time()
    sccello.tl.annotate_novel(adata)
    seconds, used = time.perf_counter() - wall, time.process_time() - cpu
    return seconds, used, before, peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument(
        "--file-cells", type=int, default=0, help="cells of the backed file; 0 to skip"
    )
    args = parser.parse_args()
    adata = source_cells()
    time_steps(adata, args.cells)
    if args.file_cells:
        annotate_file(adata, args.file_cells)


if __name__ == "__main__":
    main()
