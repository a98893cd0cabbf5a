"""Cost of a pretraining step of the published size: memory, cells a second, float32 against bfloat16, cost against tokens.

    python benchmarks/pretraining.py [--data ../shared/data] [--plot docs/_static/pretraining_cost.png] [--json out.json]

Each figure is of a process of its own that takes steps forward and backward and through the optimiser; memory is the most that it
held (ru_maxrss), what Python and torch take before the model is made included and told apart. bfloat16 is as fast as the processor's
own units for it: without them (AVX512-BF16, AMX) it is emulated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

N_CELLS = 12
WANTED_BYTES, WANTED_RATE, WANTED_DIFFERENCE = 3e9, 4.0, 0.01
LENGTHS = (128, 256, 512, 1024, 2048)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def step_of(options: dict) -> dict[str, float]:
    """Take steps in this process and say what they cost."""
    import numpy as np
    import torch
    from _steps import Clock, made_up_tokens, two_types

    from sccello_tools.ontology import CellOntology
    from sccello_tools.tokens import RaggedTokens
    from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, fit

    config = PretrainConfig(**{
        **PretrainConfig.published().to_dict(), "batch_cells": N_CELLS, **options["config"],
    })  # fmt: skip
    if length := options.get("length"):
        tokens = made_up_tokens(N_CELLS, length)
    else:
        cells = np.load(options["cells"])
        ids = cells["ids"]
        tokens = RaggedTokens(cells["indptr"], ids, np.zeros(len(ids), dtype=np.float32))
    source = LabelledTokens(tokens, two_types(len(tokens)))
    ontology = CellOntology.load()
    # the imports that a first step makes, with a model that costs nothing
    small = PretrainConfig(
        hidden_size=8,
        n_layers=1,
        n_heads=2,
        intermediate_size=8,
        max_length=16,
        max_steps=1,
        batch_cells=2,
        n_negatives=8,
        precision=config.precision,
    )
    short = LabelledTokens(tokens.truncate(16), source.cell_types)
    fit([short], ontology, small, trainer_kwargs={"accelerator": "cpu"})
    base = peak_bytes()
    clock = Clock()
    result = fit(
        [source], ontology, config, trainer_kwargs={"accelerator": "cpu", "callbacks": [clock]}
    )
    wall, cpu = clock.steps().T
    return {
        "seconds": float(np.median(wall)), "cpu_seconds": float(np.median(cpu)),
        "tokens": float(result.curve["tokens"].mean()), "peak": peak_bytes(), "base": base,
        "losses": result.curve["loss"].tolist(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def measure(name: str, cells: Path, **options) -> dict[str, float]:
    """Take steps in a fresh process."""
    given = json.dumps({"cells": str(cells), **options})
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--worker", given], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    said = {k: v for k, v in found.items() if k != "losses"}
    print(
        f"{name}: {time.perf_counter() - started:.0f} s in all, {said}", file=sys.stderr, flush=True
    )
    return found


def write_cells(folder: Path | None, path: Path) -> None:
    """Tokens of real cells: those of the training pancreas, or what ships."""
    import anndata as ad
    import numpy as np

    import sccello_tools as sccello

    adata = sccello.datasets.pancreas_tritschler()
    if folder is not None:
        adata = ad.read_h5ad(folder / "cells" / "train" / "pancreas.h5ad")
    tokens = sccello.pp.tokenize(adata)
    longest = np.argsort(-tokens.lengths, kind="stable")[:200]
    tokens = tokens.take(longest)
    np.savez(path, indptr=tokens.indptr, ids=tokens.ids)


def plot_cost(costs: dict[int, dict[str, float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    lengths = list(costs)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    seconds = [costs[n]["cpu_seconds"] / N_CELLS for n in lengths]
    axes[0].plot(lengths, seconds, "o-", color="#1f6f8b")
    axes[0].plot(
        lengths,
        [seconds[0] / lengths[0] * n for n in lengths],
        ":",
        color="grey",
        label="linear from the first",
    )
    axes[0].set(xlabel="tokens of a cell", ylabel="CPU seconds a cell and step")
    axes[0].legend(frameon=False)
    axes[1].plot(
        lengths,
        [(costs[n]["peak"] - costs[n]["base"]) / 1e9 for n in lengths],
        "o-",
        color="#1f6f8b",
    )
    axes[1].set(xlabel="tokens of a cell", ylabel=f"GB of a step of {N_CELLS} cells")
    for axis in axes:
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="folder with cells/train/pancreas.h5ad")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--forms", nargs="+", help="only these forms of a step")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(step_of(json.loads(args.worker))))
        return

    import tempfile

    from _common import against, print_table

    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as name:
        cells = Path(name) / "cells.npz"
        write_cells(args.data, cells)
        one_pass = {"second_pass": False, "attention_dropout": 0.0, "max_steps": args.steps}
        half = {**one_pass, "precision": "bfloat16"}
        forms = {
            "one pass, no attention dropout": one_pass,
            "as published": {"max_steps": args.steps},
            "one pass, activations kept": {**one_pass, "checkpoint_activations": False},
        }
        for form in args.forms or forms:
            results[form] = measure(form, cells, config=forms[form])
        costs = {
            length: measure(f"{length} tokens", cells, length=length, config=one_pass)
            for length in args.lengths
        }
        # both at a length that a processor without units for bfloat16 gets through
        losses = {
            name: measure(f"{name}, 512 tokens", cells, config={**config, "max_length": 512})
            for name, config in {"float32": one_pass, "bfloat16": half}.items()
        }
    rows = []
    for form, found in results.items():
        rate, ideal = N_CELLS / found["seconds"], N_CELLS / found["cpu_seconds"] * found["threads"]
        rows.append((
            form, f"{found['tokens'] / N_CELLS:,.0f}", f"{found['peak'] / 1e9:.2f}",
            against(found["peak"], WANTED_BYTES, at_least=False), f"{(found['peak'] - found['base']) / 1e9:.2f}",
            f"{rate:.2f}", f"{ideal:.2f}", against(ideal, WANTED_RATE),
        ))  # fmt: skip
    full, rounded = losses["float32"], losses["bfloat16"]
    difference = max(abs(a - b) / a for a, b in zip(full["losses"], rounded["losses"], strict=True))
    print_table(
        f"A step of {N_CELLS} cells, published size, float32",
        ("settings", "tokens per cell", "peak GB", "", "peak GB above imports", "cells/s (wall time)", "cells/s (CPU time)", ""), rows,
        "CPU time: the speed that is expected without other load on the cores.",
        f"bfloat16 against float32, cells of 512 tokens: loss differs by at most {difference:.3%} over {args.steps} steps, "
        f"{against(difference, WANTED_DIFFERENCE, at_least=False)}; {rounded['cpu_seconds'] / full['cpu_seconds']:.1f} times the CPU time, "
        f"{rounded['peak'] / 1e9:.2f} against {full['peak'] / 1e9:.2f} GB.",
        f"Hardware support for bfloat16 on this processor: {'yes' if _has_bf16() else 'no, it is emulated'}.",
    )  # fmt: skip
    print_table(
        "Cost by number of tokens, one pass, no attention dropout, float32",
        ("tokens per cell", "CPU ms per cell", "CPU µs per token", "GB above imports"),
        [
            (
                f"{n:,}", f"{1e3 * c['cpu_seconds'] / N_CELLS:,.0f}", f"{1e6 * c['cpu_seconds'] / N_CELLS / n:,.0f}",
                f"{(c['peak'] - c['base']) / 1e9:.2f}",
            )
            for n, c in costs.items()
        ],
    )  # fmt: skip
    if args.plot:
        plot_cost(costs, args.plot)
    if args.json:
        args.json.write_text(
            json.dumps({"forms": results, "costs": costs, "precision": losses}, indent=1)
        )


def _has_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


if __name__ == "__main__":
    main()
