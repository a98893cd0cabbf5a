"""Tables of what `scripts/gpu_report.py` measured on the last machine with a GPU. Measures nothing itself.

python benchmarks/gpu.py
"""

from __future__ import annotations

import json
from pathlib import Path

from _common import print_table

RESULT = Path(__file__).parent / "results" / "gpu.json"


def main() -> None:
    report = json.loads(RESULT.read_text(encoding="utf-8"))
    machine = f"{report['device']}; torch {report['torch']}; measured {report['date']}"
    print_table(
        f"Embedding on one GPU (limit: a product of 8,192 x 8,192 matrices in bfloat16, {report['limit_tflops']:,.0f} TFLOP/s)",
        (
            "model",
            "attention",
            "precision",
            "tokens per cell",
            "cells/s",
            "TFLOP/s",
            "fraction of limit",
            "peak GB",
        ),
        [
            (
                row["model"], row["backend"], row["precision"], f"{row['mean_tokens']:,.0f}", f"{row['cells_per_s']:,.0f}",
                f"{row['tflops']:.0f}", f"{row['of_limit']:.1%}", f"{row['peak_gb']:.2f}",
            )
            for row in report["embedding"]
        ],
        "From tokens in memory to vectors in memory; one run, after one of 256 cells. Operations are counted from the model's shape.",
        machine=machine,
    )  # fmt: skip
    full, half = (
        next(row for row in report["training"] if row["form"] == f"as published, {name}")["losses"]
        for name in ("float32", "bfloat16")
    )
    last = len(full) // 2
    print_table(
        "Pretraining on one GPU, published size, cells of about 1,950 tokens",
        ("settings", "cells/s", "ms per step", "peak GB"),
        [
            (row["form"], f"{row['cells_per_s']:,.0f}", f"{row['ms_per_step']:,.0f}", f"{row['peak_gb']:.2f}")
            for row in report["training"]
        ],
        "Steps of 12 cells unless stated otherwise; medians over the steps after the fifth.",
        f"Loss with the published settings at the first step, from the same weights with different dropout: {full[0]:.3f} in float32, {half[0]:.3f} in "
        f"bfloat16 ({half[0] / full[0] - 1:+.2%}); mean of the last {last} of {len(full)} steps: {sum(full[-last:]) / last:.2f} and "
        f"{sum(half[-last:]) / last:.2f}. Steps of 12 cells are noisy: settings in bfloat16 that do not affect the loss differ by as much.",
        machine=machine,
    )  # fmt: skip
    if functions := report.get("functions"):
        print_table(
            "Functions on one GPU, embedding included",
            ("function", "cells", "seconds", "cells/s"),
            [
                (row["function"], f"{row['cells']:,}", f"{row['seconds']:.2f}", f"{row['cells'] / row['seconds']:,.1f}")
                for row in functions
            ],
            "One run, after one of 8 cells. The run on dask includes the start of the worker process.",
            machine=machine,
        )  # fmt: skip


if __name__ == "__main__":
    main()
