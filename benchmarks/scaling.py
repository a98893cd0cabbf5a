"""What tokenizing, embedding and pretraining cost from ten thousand cells to a billion: a model of the cost, checked against this machine.

    python benchmarks/scaling.py [--runs 5]

The model counts floating-point operations and bytes from the architecture alone. Two rates are measured here, a matrix product and a copy of
memory; from them alone the time of encoding is predicted for several sizes and lengths and compared with the clock. What it says of machines
that are not here rests on their data sheets and on the shares of them that are named below: it is arithmetic, not measurement.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import torch
from _common import against, print_table, time_all

from sccello_tools.data import CLS_ID, RaggedTokens
from sccello_tools.engine import encode
from sccello_tools.nn import EncoderConfig, ScCelloModel

PUBLISHED = EncoderConfig()
MASKED, VOCABULARY = 0.15, 25_427
CSR_BYTES, TOKEN_BYTES = (
    8,
    4,
)  # a gene of a cell in an h5ad file; a token in a corpus, before compression
MEAN_TOKENS, GENES_A_CELL = 900, 1_700
# Beside its matrix products a layer reads and writes each token's states about this often (projections, residual sums, norms).
STATES_A_LAYER = 24


def forward_flops(c: EncoderConfig, n: float, *, cls_only: bool = True) -> float:
    """Operations of one cell of n tokens; the last layer answers for <cls> alone when embedding."""
    h, f = c.hidden_size, c.intermediate_size
    linear, attention = 2 * n * (4 * h * h + 2 * h * f), 4 * n * n * h
    last = 4 * n * h * h + 4 * n * h if cls_only else linear + attention
    return (c.n_layers - 1) * (linear + attention) + last


def forward_bytes(c: EncoderConfig, n: float, width: int) -> float:
    """Bytes of states that move through memory for one cell."""
    return c.n_layers * STATES_A_LAYER * n * c.hidden_size * width


def training_flops(c: EncoderConfig, n: float) -> float:
    """Forward and backward (twice the forward), and the logits of masked genes over the whole vocabulary."""
    logits = 2 * MASKED * n * VOCABULARY * c.hidden_size
    return 3 * (forward_flops(c, n, cls_only=False) + logits)


class Machine(NamedTuple):
    """A machine by its data sheet."""

    name: str
    flops: float
    """Matrix operations a second that this code can be expected to reach."""
    memory: float
    """Bytes a second."""
    tokenizing: float
    """Cells a second that its processors tokenize."""
    disk: float
    """Bytes a second that it reads."""
    n: int = 1


def seconds(m: Machine, kind: str, n_cells: float) -> tuple[float, str]:
    """Time of the slowest part, as the parts overlap, and which it is."""
    n, c = MEAN_TOKENS, PUBLISHED
    if kind == "tokenize":
        parts = {
            "tokenizing": n_cells / (m.tokenizing * m.n),
            "reading": n_cells * GENES_A_CELL * CSR_BYTES / (m.disk * m.n),
        }
    elif kind == "embed":
        parts = {
            "matrix products": n_cells * forward_flops(c, n) / (m.flops * m.n),
            "memory": n_cells * forward_bytes(c, n, 2) / (m.memory * m.n),
            "tokenizing": n_cells / (m.tokenizing * m.n),
            "reading": n_cells * GENES_A_CELL * CSR_BYTES / (m.disk * m.n),
        }
    else:
        parts = {
            "matrix products": n_cells * training_flops(c, n) / (m.flops * m.n),
            "memory": n_cells * 3 * forward_bytes(c, n, 2) / (m.memory * m.n),
            "reading tokens": n_cells * n * TOKEN_BYTES / (m.disk * m.n),
        }
    slowest = max(parts, key=parts.__getitem__)
    return parts[slowest], slowest


def spoken(value: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.2g} s"


def check(n_runs: int) -> tuple[list[list[str]], float, float, float]:
    """Predict and measure encoding here, for several sizes and lengths."""
    a = torch.randn(1024, 256)
    b = torch.randn(256, 1024)
    q = torch.randn(1, 4, 1000, 64)
    block = torch.randn(32 * 2**20)
    target = torch.empty_like(block)
    with torch.inference_mode():
        rates = time_all(
            {
                "product": lambda: [a @ b for _ in range(20)],
                "attention": lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q),
                "copy": lambda: target.copy_(block),
            },
            n_runs=max(n_runs, 5),
        )
    flops = 20 * 2 * 1024 * 256 * 1024 / rates["product"].median
    attention = 4 * 1000 * 1000 * 256 / rates["attention"].median
    memory = 2 * block.numel() * 4 / rates["copy"].median
    rows, worst = [], 0.0
    sizes = {
        "published": PUBLISHED,
        "bundled": EncoderConfig(
            hidden_size=128, n_layers=4, intermediate_size=256, max_positions=512
        ),
    }
    rng = np.random.default_rng(0)
    for name, c in sizes.items():
        torch.manual_seed(0)
        network = ScCelloModel(c).eval()
        for n in (256, 512, 1024, 2048):
            if n > c.max_positions:
                continue
            n_cells = 8 * 2048 // n
            ids = rng.integers(2, CLS_ID, size=(n_cells, n)).astype(np.int32)
            ids[:, 0] = CLS_ID
            bounds = np.arange(0, ids.size + 1, n)
            tokens = RaggedTokens(bounds, ids.ravel(), np.zeros(ids.size, dtype=np.float32))
            timing = time_all(
                {"encode": lambda t=tokens, w=network: encode(w, t, precision="float32")},
                n_runs=n_runs,
            )["encode"]
            h = c.hidden_size
            in_attention = (c.n_layers - 1) * 4 * n * n * h
            predicted = n_cells * (
                (forward_flops(c, n) - in_attention) / flops
                + in_attention / attention
                + forward_bytes(c, n, 4) / memory
            )
            off = predicted / timing.median - 1
            worst = max(worst, abs(off))
            rows.append(
                [
                    f"{name}, {n:,} tokens",
                    f"{n_cells / timing.median:,.1f}",
                    f"{n_cells / predicted:,.1f}",
                    f"{off:+.0%}",
                ]
            )
    return rows, flops, memory, worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    rows, flops, memory, worst = check(args.runs)
    print_table(
        "Encoding in float32: measured here, and predicted from a rate of matrix products, one of attention and one of memory",
        ["size of the model, length", "cells/s", "predicted", "time predicted / measured - 1"],
        rows,
        f"Rates measured in this run: products {flops / 1e9:,.0f} GFLOP/s, copies {memory / 1e9:,.0f} GB/s. "
        f"Largest error {worst:.0%}: {against(worst, 0.3, at_least=False)}",
    )
    print_table(
        "Cost of one cell at the published size",
        [
            "tokens",
            "embedding, GFLOP",
            "of it attention",
            "training, GFLOP",
            "of it gene logits",
            "states, MB (bf16)",
        ],
        [
            [
                f"{n:,}",
                f"{forward_flops(PUBLISHED, n) / 1e9:.1f}",
                f"{(PUBLISHED.n_layers - 1) * 4 * n * n * PUBLISHED.hidden_size / forward_flops(PUBLISHED, n):.0%}",
                f"{training_flops(PUBLISHED, n) / 1e9:.1f}",
                f"{6 * MASKED * n * VOCABULARY * PUBLISHED.hidden_size / training_flops(PUBLISHED, n):.0%}",
                f"{forward_bytes(PUBLISHED, n, 2) / 1e6:.0f}",
            ]
            for n in (256, 512, 900, 2048)
        ],
    )
    machines = (
        Machine("this machine, 2 cores", flops, memory, 26_000, 1e9),
        # data sheet: 989 TFLOP/s bf16 dense, 3.35 TB/s; a third of the former is what hidden size 256 may reach
        Machine("one H100", 989e12 / 3, 3.35e12 * 0.7, 16 * 13_000, 3e9),
        Machine("8 H100", 989e12 / 3, 3.35e12 * 0.7, 12 * 13_000, 1.5e9, 8),
        Machine("512 H100", 989e12 / 3, 3.35e12 * 0.7, 12 * 13_000, 0.5e9, 512),
    )
    for kind, title in (
        ("tokenize", "Tokenizing"),
        ("embed", "Embedding, published size, from files of counts"),
        ("pretrain", "One epoch of pretraining, published size, from a corpus"),
    ):
        table = []
        for n_cells in (1e4, 1e6, 22e6, 1e9):
            cells = [seconds(m, kind, n_cells) for m in machines]
            table.append([f"{n_cells:,.0f}", *(f"{spoken(t)} ({what})" for t, what in cells)])
        print_table(
            f"{title}: time, and what it waits for", ["cells", *(m.name for m in machines)], table
        )


if __name__ == "__main__":
    main()
