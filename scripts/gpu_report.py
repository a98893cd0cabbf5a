"""Throughput and memory of embedding on this machine's GPU, backend by backend, against what the hardware could do.

    python scripts/gpu_report.py [--model sccello-small] [--tokens 2048] [--cells 2000]

Floating-point operations are counted from the model's shape; the limit is measured, as a large matrix product in bfloat16.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.nn.attention import available_backends


def limit_tflops(size: int = 8192, repeats: int = 10) -> float:
    """What a matrix product in bfloat16 reaches."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    a @ a
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        a @ a
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - begin) / 1e12


def flops(config, lengths: np.ndarray) -> float:
    """Of all layers but the last, which computes one row a cell."""
    d, h, n_layers = config.hidden_size, config.intermediate_size, config.n_layers - 1
    dense = 2 * (4 * d * d + 2 * d * h) * lengths.sum()
    attention = 4 * d * (lengths.astype(np.float64) ** 2).sum()
    return float(n_layers * (dense + attention))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sccello-small")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--cells", type=int, default=2000)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing to report.")
        return
    model = sccello.models.load(given.model, device="cuda")
    length = min(given.tokens, model.config.max_positions)
    tokens = sccello.pp.tokenize(sccello.datasets.pancreas_tritschler(), max_length=length)
    tokens = tokens.take(np.random.default_rng(0).integers(0, len(tokens), given.cells))
    limit = limit_tflops()
    work = flops(model.config, tokens.lengths) / 1e12
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; matrix product in bfloat16: {limit:.0f} TFLOP/s"
    )
    print(f"{given.model}, {given.cells:,} cells, {tokens.lengths.mean():.0f} tokens on average")
    print(
        f"{'backend':>14} {'precision':>10} {'cells/s':>9} {'tokens/s':>12} {'TFLOP/s':>8} {'of limit':>8} {'peak GB':>8}"
    )
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        for name in available_backends("cuda", dtype):
            options = {"precision": precision, "attention": name}
            encode(model.network, tokens.take(range(64)), **options)
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
            begin = time.perf_counter()
            encode(model.network, tokens, **options)
            torch.cuda.synchronize()
            spent = time.perf_counter() - begin
            peak = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"{name:>14} {precision:>10} {given.cells / spent:9,.0f} {tokens.lengths.sum() / spent:12,.0f} "
                f"{work / spent:8.1f} {work / spent / limit:8.1%} {peak:8.2f}"
            )


if __name__ == "__main__":
    main()
