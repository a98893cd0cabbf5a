"""Annotate files end to end on local workers: time, memory per worker, speed-up, scheduling overhead, and rows after two interruptions.

Cells are real ones (the shipped pancreas study) drawn with replacement, their counts drawn again from a Poisson distribution with the
given fraction of the original depth: data of that size, not of that variety. Each step runs in processes of its own.

    python benchmarks/load.py                                          # small, some minutes
    python benchmarks/load.py --cells 1000000 --blocks 20000           # the full run
    python benchmarks/load.py --steps annotate kills --cells 50000     # some steps only
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _common import against, describe_machine, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "load.json"
PLOT = ROOT / "docs" / "_static" / "load.png"
STEPS = ("annotate", "kills", "overhead")
CHUNK = 4096
WANTED = {"memory_gb": 1.5, "speed_up": 1.8, "overhead": 0.05}


def write_cells(path: Path, n_cells: int, depth: float, seed: int = 0) -> float:
    """Write resampled cells as CSR h5ad, one chunk in memory; return the mean number of expressed genes."""
    import anndata
    import h5py
    import pandas as pd
    from scipy import sparse

    import sccello_tools as sccello

    source = sccello.datasets.pancreas_tritschler()
    counts = sparse.csr_matrix(source.X, dtype=np.float32)
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    anndata.AnnData(obs=obs, var=source.var[[]]).write_h5ad(path)
    n_stored, pointers = 0, [0]
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        group = file.create_group("X")
        shape = np.array([n_cells, source.n_vars])
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})  # fmt: skip
        arrays = {
            name: group.create_dataset(name, (0,), maxshape=(None,), dtype=kind, chunks=(1 << 17,), compression="lzf")
            for name, kind in (("data", "f4"), ("indices", "i4"))
        }  # fmt: skip
        for start in range(0, n_cells, CHUNK):
            rows = counts[rng.integers(0, counts.shape[0], min(CHUNK, n_cells - start))]
            rows.data = rng.poisson(rows.data * depth).astype(np.float32)
            rows.eliminate_zeros()
            for name, array in arrays.items():
                array.resize((n_stored + rows.nnz,))
                array[n_stored:] = getattr(rows, name)
            pointers += (n_stored + rows.indptr[1:].astype(np.int64)).tolist()
            n_stored += rows.nnz
        group["indptr"] = np.array(pointers)
    return n_stored / n_cells


# --- in processes of their own


def annotate(path: Path, out: Path, n_workers: int, cells_per_block: int) -> None:
    """Annotate on a cluster of local processes with one thread each; print seconds and peak memory of each worker."""
    from distributed import Client, LocalCluster

    import sccello_tools as sccello

    sccello.settings.progress = False
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, memory_limit=0, dashboard_address=":0", silence_logs=40) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        begin = time.perf_counter()
        sccello.annotate_files(path, out, device="cpu", precision="float32", client=client, cells_per_block=cells_per_block)  # fmt: skip
        seconds = time.perf_counter() - begin
        peaks = client.run(_peak_gb)
    print(
        json.dumps({"seconds": seconds, "worker_gb": list(peaks.values()), "client_gb": _peak_gb()})
    )


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def overhead(n_blocks: int, n_workers: int, seconds: float) -> None:
    """Run tasks of known duration and print how much longer they take together."""
    from distributed import Client, LocalCluster

    from sccello_tools.files.plan import Block, Task
    from sccello_tools.files.run import OnCluster

    tasks = [Task("file", (Block(0, i, i, i + 1),)) for i in range(n_blocks)]
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, memory_limit=0, dashboard_address=":0", silence_logs=40) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        run = OnCluster(client)
        for _ in run.map(partial(_wait, 0.01), tasks[:50]):
            pass
        begin = time.perf_counter()
        n_done = sum(1 for _ in run.map(partial(_wait, seconds), tasks))
        taken = time.perf_counter() - begin
    assert n_done == n_blocks
    print(json.dumps({"seconds": taken, "ideal": n_blocks * seconds / n_workers}))


def _wait(seconds: float, task: object) -> object:
    time.sleep(seconds)
    return task


# --- steps


def call(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)  # fmt: skip


def answer(process: subprocess.Popen[str]) -> dict:
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(said.splitlines()[-1])


def killed_twice(job: Callable[..., subprocess.Popen[str]], out: Path, n_blocks: int) -> None:
    """Start the job, and kill all of its processes after a third and after two thirds of the blocks."""
    for fraction in (1 / 3, 2 / 3):
        process = job("--out", out)
        while process.poll() is None and _n_finished(out) < fraction * n_blocks:
            time.sleep(0.2)
        assert process.poll() is None, "the job ended before it could be killed; use more cells"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed with {_n_finished(out)} of {n_blocks} blocks finished", flush=True)


def _n_finished(out: Path) -> int:
    return len(list(out.glob("blocks/[0-9]*.parquet")))


def same_rows(one: Path, other: Path) -> bool:
    import pyarrow.parquet as pq

    (left,), (right,) = (list(folder.glob("cells/*.parquet")) for folder in (one, other))
    with pq.ParquetFile(left) as a, pq.ParquetFile(right) as b:
        pairs = [(a.read_row_group(i), b.read_row_group(i)) for i in range(a.num_row_groups)]
        return a.metadata.num_rows == b.metadata.num_rows and all(
            x.to_pandas().equals(y.to_pandas()) for x, y in pairs
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=4_000)
    parser.add_argument("--depth", type=float, default=1.0, help="fraction of the original depth")
    parser.add_argument("--cells-per-block", type=int, default=4096)
    parser.add_argument("--blocks", type=int, default=400, help="tasks of the overhead step")
    parser.add_argument("--block-seconds", type=float, default=0.1)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary folder by default")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--one", choices=STEPS)
    parser.add_argument("--path", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    if given.one == "annotate":
        annotate(given.path, given.out, given.workers, given.cells_per_block)
        return
    if given.one == "overhead":
        overhead(given.blocks, given.workers, given.block_seconds)
        return
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    results: dict = {"machine": describe_machine(), "cells": given.cells, "depth": given.depth}
    rows = []
    path = folder / f"cells{given.cells}.h5ad"
    if {"annotate", "kills"} & set(given.steps):
        results["genes_per_cell"] = round(write_cells(path, given.cells, given.depth))
    n_blocks = -(-given.cells // given.cells_per_block)
    job = partial(call, "--one", "annotate", "--cells-per-block", given.cells_per_block)
    if "annotate" in given.steps:
        points = []
        half = folder / "half.h5ad"
        write_cells(half, given.cells // 2, given.depth)
        for file, n_cells, n_workers in ((half, given.cells // 2, 2), (path, given.cells, 2), (path, given.cells, 1)):  # fmt: skip
            out = folder / f"annotated-{n_cells}-{n_workers}"
            shutil.rmtree(out, ignore_errors=True)
            found = answer(job("--path", file, "--out", out, "--workers", n_workers))  # fmt: skip
            points.append({"cells": n_cells, "workers": n_workers, **found})
            rows.append((f"{n_cells:,} cells, {n_workers} workers", f"{found['seconds']:,.0f} s", f"{n_cells / found['seconds']:,.0f} cells/s", f"peak {max(found['worker_gb']):.2f} GB per worker, {found['client_gb']:.2f} GB client"))  # fmt: skip
            print(rows[-1], flush=True)
        speed_up = points[2]["seconds"] / points[1]["seconds"]
        peak = max(max(point["worker_gb"]) for point in points)
        linear = points[1]["seconds"] / points[0]["seconds"] / 2
        results["annotate"] = {"points": points, "speed_up": speed_up, "peak_gb": peak, "time_per_cell_ratio": linear}  # fmt: skip
        rows += [
            ("two workers against one", f"{speed_up:.2f}", "times as fast", against(speed_up, WANTED["speed_up"])),
            ("peak memory of a worker", f"{peak:.2f} GB", "", against(peak, WANTED["memory_gb"], at_least=False)),
            ("time per cell, all cells against half", f"{linear:.2f}", "", "1 is linear"),
        ]  # fmt: skip
    if "kills" in given.steps:
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        two = partial(job, "--path", path, "--workers", 2)
        killed_twice(two, out, n_blocks)
        answer(two("--out", out))
        whole = folder / f"annotated-{given.cells}-2"
        if not whole.exists():
            answer(two("--out", whole))
        results["rows_identical_after_two_kills"] = same_rows(whole, out)
        rows.append(("killed twice", "", "", "rows identical" if results["rows_identical_after_two_kills"] else "ROWS DIFFER"))  # fmt: skip
    if "overhead" in given.steps:
        found = answer(call("--one", "overhead", "--blocks", given.blocks, "--block-seconds", given.block_seconds, "--workers", 2))  # fmt: skip
        fraction = found["seconds"] / found["ideal"] - 1
        results["overhead"] = {**found, "blocks": given.blocks, "fraction": fraction}
        rows.append((f"scheduling of {given.blocks:,} blocks of {given.block_seconds} s", f"{fraction:.1%}", "overhead", against(fraction, WANTED["overhead"], at_least=False)))  # fmt: skip
    print_table("Annotating a file end to end, local workers with one thread each", ("step", "result", "", ""), rows, f"{results.get('genes_per_cell', '?')} expressed genes per cell")  # fmt: skip
    if given.save:
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        if "annotate" in results:
            draw(results)
    if given.folder is None:
        shutil.rmtree(folder)


def draw(results: dict) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
    points = results["annotate"]["points"]
    names = [f"{p['cells']:,} cells\n{p['workers']} workers" for p in points]
    axes[0].bar(names, [p["cells"] / p["seconds"] for p in points], color="#4c78a8")
    axes[0].set_ylabel("cells per second")
    axes[1].bar(names, [max(p["worker_gb"]) for p in points], color="#4c78a8")
    axes[1].axhline(WANTED["memory_gb"], color="0.5", lw=1, ls="--")
    axes[1].set_ylabel("peak memory per worker (GB)")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="x", labelsize=8)
    figure.savefig(PLOT, dpi=130)


if __name__ == "__main__":
    main()
