"""Time and memory against the number of cells: tokenizing, annotating, embedding with the small model.

Cells are real ones (the shipped pancreas study) drawn with replacement, their counts drawn anew from a Poisson law: data of that
size, not of that variety. Each size runs in a process of its own, so that its peak memory (ru_maxrss) is its own.

    python benchmarks/load.py --most 1000000 --most-embedded 20000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "load.json"
PLOT = ROOT / "docs" / "_static" / "load.png"
CHUNK = 4096
LIMIT_GB = 2.0


def chunks(n_cells: int, seed: int = 0):
    """Yield AnnData of up to CHUNK resampled cells; only one is in memory."""
    import anndata
    import pandas as pd
    from scipy import sparse

    import sccello_tools as sccello

    source = sccello.datasets.pancreas_tritschler()
    counts = sparse.csr_matrix(source.X, dtype=np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, n_cells, CHUNK):
        rows = counts[rng.integers(0, counts.shape[0], min(CHUNK, n_cells - start))]
        rows.data = rng.poisson(rows.data).astype(np.float32)
        rows.eliminate_zeros()
        yield anndata.AnnData(rows, var=pd.DataFrame(index=source.var_names))


def tokenizing(n_cells: int) -> float:
    """CPU seconds to tokenize a stream of cells; making them does not count."""
    import sccello_tools as sccello
    from sccello_tools._anndata.counts import iter_token_chunks
    from sccello_tools._anndata.genes import gene_match_of
    from sccello_tools.tokens import Tokenizer

    tokenizer, spent = None, 0.0
    sccello.pp.tokenize(sccello.datasets.pancreas_tritschler()[:64])  # compiles
    for adata in chunks(n_cells):
        begin = time.process_time()
        tokenizer = tokenizer or Tokenizer(gene_match_of(adata, gene_ids=None, min_matched=500))
        for _ in iter_token_chunks(adata, tokenizer, layer=None, counts="check"):
            pass
        spent += time.process_time() - begin
    return spent


def annotating(n_cells: int) -> float:
    """CPU seconds of tl.annotate_novel on embeddings that are there."""
    import anndata

    import sccello_tools as sccello

    source = sccello.datasets.pancreas_tritschler()[::3].copy()
    sccello.tl.embed(source)
    rng = np.random.default_rng(0)
    hidden = source.obsm["X_sccello"]
    rows = rng.integers(0, len(hidden), n_cells)
    adata = anndata.AnnData(shape=(n_cells, 0))
    made = rng.standard_normal((n_cells, hidden.shape[1]), dtype=np.float32)
    made *= 0.05
    for start in range(0, n_cells, CHUNK):  # in place: the benchmark's own memory should be small
        made[start : start + CHUNK] += hidden[rows[start : start + CHUNK]]
    adata.obsm["X_sccello"] = made
    adata.uns["X_sccello"] = source.uns["X_sccello"]
    begin = time.process_time()
    sccello.tl.annotate_novel(adata)
    return time.process_time() - begin


def embedding(n_cells: int) -> float:
    """CPU seconds of tl.embed with the small model, at its full length of 2,048 tokens."""
    import sccello_tools as sccello

    model, spent = sccello.models.load("sccello-small", device="cpu"), 0.0
    for adata in chunks(n_cells):
        begin = time.process_time()
        sccello.tl.embed(adata, model=model, precision="float32")
        spent += time.process_time() - begin
    return spent


WORK = {"tokenizing": tokenizing, "annotating": annotating, "embedding": embedding}


def one(what: str, n_cells: int) -> dict[str, float]:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, "--cells", str(n_cells)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"wall_s": round(time.perf_counter() - begin, 1)}


def fit(points: list[dict[str, float]]) -> dict[str, float]:
    """Slope in log-log: 1 is linear; and the straight line's share of variance."""
    x = np.array([p["cells"] for p in points], dtype=float)
    y = np.array([p["cpu_s"] for p in points])
    line = np.polyfit(x, y, 1)
    residual = y - np.polyval(line, x)
    return {
        "seconds_per_1000_cells": float(1000 * line[0]),
        "r2": float(1 - residual.var() / y.var()),
        "log_log_slope": float(np.polyfit(np.log(x[1:]), np.log(y[1:]), 1)[0]),
    }


def draw(results: dict) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for what, found in results["work"].items():
        x = [p["cells"] for p in found["points"]]
        axes[0].plot(x, [p["cpu_s"] for p in found["points"]], "o-", label=what)
        axes[1].plot(x, [p["peak_gb"] for p in found["points"]], "o-", label=what)
        line = [p["cells"] * found["points"][-1]["cpu_s"] / x[-1] for p in found["points"]]
        axes[0].plot(x, line, ":", color="0.6", zorder=0)
    axes[0].plot([], [], ":", color="0.6", label="linear")
    axes[0].set(xscale="log", yscale="log", xlabel="cells", ylabel="CPU seconds")
    axes[1].axhline(LIMIT_GB, color="0.6", lw=1, ls="--")
    axes[1].set(xscale="log", ylim=(0, 2.3), xlabel="cells", ylabel="peak memory, GB")
    axes[0].legend(frameon=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_minor_formatter("")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=64_000)
    parser.add_argument("--most-embedded", type=int, default=1_024)
    parser.add_argument("--one", choices=WORK)
    parser.add_argument("--cells", type=int)
    given = parser.parse_args()
    if given.one:
        spent = WORK[given.one](given.cells)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(json.dumps({"cells": given.cells, "cpu_s": spent, "peak_gb": round(peak, 3)}))
        return
    results: dict = {
        "threads": 1,
        "data": "pancreas_tritschler, resampled with Poisson noise",
        "work": {},
    }
    for what in WORK:
        most = given.most_embedded if what == "embedding" else given.most
        points = []
        for n_cells in (most // 16, most // 8, most // 4, most):
            points.append(one(what, n_cells))
            print(what, points[-1], flush=True)
            results["work"][what] = {"points": points}
            RESULT.parent.mkdir(parents=True, exist_ok=True)
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
        results["work"][what] |= {"fit": fit(points)}
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    draw(results)


if __name__ == "__main__":
    main()
