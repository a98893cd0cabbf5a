"""What tokenizing, embedding and pretraining cost from ten thousand cells to a billion: a model of the cost, checked against this machine.

    python benchmarks/scaling.py [--runs 5]

The model counts floating-point operations and bytes from the architecture alone. Rates are measured here: matrix products, attention, dropout, a
copy of memory; from them alone the time of encoding and of training is predicted for several sizes and lengths and compared with the clock.
What it says of one GPU rests on what `scripts/gpu_report.py` measured there; of more of them, on their number: that is arithmetic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from _common import against, print_table, time_all
from _steps import Clock, made_up_tokens, two_types

from sccello_tools.engine import encode
from sccello_tools.nn import EncoderConfig, ScCelloModel

if TYPE_CHECKING:
    from collections.abc import Callable

GPU = Path(__file__).parent / "results" / "gpu.json"
PUBLISHED = EncoderConfig()
SMALL = EncoderConfig(hidden_size=128, n_layers=4, intermediate_size=256, max_positions=512)
SIZES = {"published": PUBLISHED, "4 layers of 128": SMALL}
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


class Rates(NamedTuple):
    """What this machine reaches at the shapes of one model, best runs; nothing overlaps here, so that times add up."""

    products: float
    """Operations a second."""
    attention: float
    memory: float
    """Bytes a second."""
    trained_products: float
    """Operations a second, of forward and backward together."""
    trained_attention: float
    dropout: float
    """Numbers a second, forward and backward."""

    def forward(self, c: EncoderConfig, n: float, *, cls_only: bool = True) -> float:
        """Seconds to encode one cell."""
        layers = c.n_layers - (1 if cls_only else 0)
        in_attention = layers * 4 * n * n * c.hidden_size
        others = forward_flops(c, n, cls_only=cls_only) - in_attention
        moved = forward_bytes(c, n, 4) / self.memory
        return others / self.products + in_attention / self.attention + moved

    def training(self, c: EncoderConfig, n: float) -> float:
        """Seconds to train on one cell; activations are computed again for the backward pass."""
        in_attention = 3 * c.n_layers * 4 * n * n * c.hidden_size
        others = training_flops(c, n) - in_attention
        dropped = 2 * (2 * c.n_layers + 1) * n * c.hidden_size
        return (
            self.forward(c, n, cls_only=False)
            + others / self.trained_products
            + in_attention / self.trained_attention
            + 3 * forward_bytes(c, n, 4) / self.memory
            + dropped / self.dropout
        )


class Machine(NamedTuple):
    """A machine: what it needs for a cell, and how fast it tokenizes and reads."""

    name: str
    embedding: float
    """Seconds a cell on one device."""
    training: float
    tokenizing: float
    """Cells a second that the processors of one device tokenize."""
    disk: float
    """Bytes a second that one device can read."""
    n: int = 1
    """Devices."""


def seconds(m: Machine, kind: str, n_cells: float) -> tuple[float, str]:
    """Time of the slowest part, as the parts overlap, and which it is."""
    counts = {
        "tokenizing": 1 / m.tokenizing,
        "reading": GENES_A_CELL * CSR_BYTES / m.disk,
    }
    parts = {
        "tokenize": counts,
        "embed": counts | {"encoder": m.embedding},
        "pretrain": {"training step": m.training, "reading": MEAN_TOKENS * TOKEN_BYTES / m.disk},
    }[kind]
    slowest = max(parts, key=parts.__getitem__)
    return parts[slowest] * n_cells / m.n, slowest


def spoken(value: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.2g} s"


def rates_here(c: EncoderConfig, n_runs: int) -> Rates:
    """Measure this machine at the shapes of a model, with 1,000 tokens."""
    h, heads = c.hidden_size, c.n_heads
    x, w = torch.randn(1024, h, requires_grad=True), torch.randn(h, 4 * h, requires_grad=True)
    q = torch.randn(1, heads, 1000, h // heads, requires_grad=True)
    block = torch.randn(32 * 2**20)
    target = torch.empty_like(block)
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward(work: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(work)

    taken = time_all(
        {
            "products": forward(lambda: [x @ w for _ in range(20)]),
            "attention": forward(lambda: attend(q, q, q)),
            "memory": forward(lambda: target.copy_(block)),
            "trained_products": lambda: [(x @ w).sum().backward() for _ in range(20)],
            "trained_attention": lambda: attend(q, q, q).sum().backward(),
            "dropout": lambda: torch.nn.functional.dropout(x, 0.02).sum().backward(),
        },
        n_runs=4 * n_runs,
    )
    products, attention = 20 * 2 * 1024 * h * 4 * h, 4 * 1000 * 1000 * h
    work = {
        "products": products,
        "attention": attention,
        "memory": 2 * block.numel() * 4,
        "trained_products": 3 * products,
        "trained_attention": 3 * attention,
        "dropout": x.numel(),
    }
    return Rates(**{name: amount / taken[name].best for name, amount in work.items()})


def check(rates: dict[str, Rates], n_runs: int) -> list[tuple[str, float, float]]:
    """Measure and predict cells a second here: encoding at several sizes and lengths, and training."""
    found = []
    for name, c in SIZES.items():
        torch.manual_seed(0)
        network = ScCelloModel(c).eval()
        for n in (256, 512, 1024, 2048):
            if n > c.max_positions:
                continue
            n_cells = 8 * 2048 // n
            tokens = made_up_tokens(n_cells, n)
            timing = time_all(
                {"encode": lambda t=tokens, w=network: encode(w, t, precision="float32")},
                n_runs=n_runs,
            )["encode"]
            predicted = 1 / rates[name].forward(c, n)
            found.append((f"{name}, embedding, {n:,} tokens", n_cells / timing.best, predicted))
    for n in (256, 512):
        measured = training_rate(n)
        found.append(
            (
                f"published, training, {n:,} tokens",
                measured,
                1 / rates["published"].training(PUBLISHED, n),
            )
        )
    return found


def training_rate(n: int, n_cells: int = 12, n_steps: int = 4) -> float:
    """Cells a second of steps of the published size: one pass, no attention dropout, activations computed again."""
    from sccello_tools.ontology import CellOntology
    from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, fit

    config = PretrainConfig(**{
        **PretrainConfig.published().to_dict(), "max_steps": n_steps, "batch_cells": n_cells,
        "second_pass": False, "attention_dropout": 0.0,
    })  # fmt: skip
    clock = Clock()
    fit(
        [LabelledTokens(made_up_tokens(n_cells, n), two_types(n_cells))],
        CellOntology.load(),
        config,
        trainer_kwargs={"accelerator": "cpu", "callbacks": [clock]},
    )
    return n_cells / float(clock.steps()[:, 0].min())


class Gpu(NamedTuple):
    """What was measured on a GPU, as rates at which the states of tokens move, which explain both sizes of the model."""

    name: str
    embedding: float
    """Bytes a second."""
    training: float
    copy: float
    small: tuple[float, float]
    """Cells a second of 4 layers of 128 (the bundled model until November 2026), measured and predicted from the published one's rate."""


def measured_gpu() -> Gpu:
    """Read the last report of `scripts/gpu_report.py`."""
    report = json.loads(GPU.read_text(encoding="utf-8"))
    best = {
        row["model"]: row
        for row in report["embedding"]
        if row["backend"] == "torch_varlen" and row["precision"] == "bfloat16"
    }
    large, small = best["published size"], best["sccello-small"]
    rate = large["cells_per_s"] * forward_bytes(PUBLISHED, large["mean_tokens"], 2)
    step = next(row for row in report["training"] if row["form"] == "the same, one pass")
    return Gpu(
        report["device"],
        rate,
        step["cells_per_s"] * 3 * forward_bytes(PUBLISHED, large["mean_tokens"], 2),
        1e9 * report["copy_gb_per_s"],
        (small["cells_per_s"], rate / forward_bytes(SMALL, small["mean_tokens"], 2)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    rates = {name: rates_here(c, args.runs) for name, c in SIZES.items()}
    found = check(rates, args.runs)
    gpu = measured_gpu()
    found.append((f"4 layers of 128, embedding, 512 tokens, {gpu.name} in bfloat16", *gpu.small))
    worst = max(abs(measured / predicted - 1) for _, measured, predicted in found)
    here = "; ".join(
        f"{name}: products {r.products / 1e9:,.0f}, attention {r.attention / 1e9:,.0f}, both with backward pass "
        f"{r.trained_products / 1e9:,.0f} and {r.trained_attention / 1e9:,.0f} GFLOP/s, dropout {r.dropout / 1e6:,.0f} million numbers/s"
        for name, r in rates.items()
    )
    memory = rates["published"].memory
    print_table(
        "Cells per second, measured and predicted from the rates of this machine (best runs)",
        [
            "model size, task, length",
            "measured",
            "predicted",
            "predicted / measured time - 1",
        ],
        [
            (name, f"{measured:,.1f}", f"{predicted:,.1f}", f"{measured / predicted - 1:+.0%}")
            for name, measured, predicted in found
        ],
        f"Rates measured in this run, float32, at the shapes of each model with 1,000 tokens: {here}; copies {memory / 1e9:,.0f} GB/s. "
        f"The GPU row is predicted from the rate of the published size on this GPU. Largest error {worst:.0%}: {against(worst, 0.3, at_least=False)}",
    )
    print_table(
        "Cost of one cell at the published size",
        [
            "tokens",
            "embedding, GFLOP",
            "of which attention",
            "training, GFLOP",
            "of which gene logits",
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
    embedding = forward_bytes(PUBLISHED, MEAN_TOKENS, 2) / gpu.embedding
    training = 3 * forward_bytes(PUBLISHED, MEAN_TOKENS, 2) / gpu.training
    h100 = 4.8 / 3.35  # memory of the one and of the other, by their data sheets
    published = rates["published"]
    machines = (
        Machine(
            "this machine, 2 cores",
            published.forward(PUBLISHED, MEAN_TOKENS),
            published.training(PUBLISHED, MEAN_TOKENS),
            26_000,
            1e9,
        ),
        Machine(f"one {gpu.name}", embedding, training, 16 * 13_000, 3e9),
        Machine("one H100", h100 * embedding, h100 * training, 16 * 13_000, 3e9),
        Machine("8 H100", h100 * embedding, h100 * training, 12 * 13_000, 1.5e9, 8),
        Machine("512 H100", h100 * embedding, h100 * training, 12 * 13_000, 0.5e9, 512),
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
        print_table(f"{title}: time (bottleneck)", ["cells", *(m.name for m in machines)], table)


if __name__ == "__main__":
    main()
