"""The recipe of the bundled model: effect of each component, and quality against speed for encoders of several sizes.

    python scripts/leave_studies_out.py --data ../shared/data --folds 0 3 --seeds 0 1 2 --steps 800 --out benchmarks/results/training_recipe.json \\
        --arms base "no styles" ... --set hidden_size=128 max_length=256 learning_rate=0.002 gene_every=0
    python scripts/leave_studies_out.py --data ../shared/data --folds 0 3 --steps 800 --out benchmarks/results/training_recipe.json \\
        --set hidden_size=256 max_length=384 n_layers=1 gene_every=0
    python benchmarks/training_recipe.py --plot docs/_static/encoder_size.png

Reads what these runs wrote and trains nothing. Speed is measured here, with random weights of the same sizes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _common import print_table, time_all

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.nn import EncoderConfig, ScCelloModel

RESULTS = Path(__file__).parent / "results" / "training_recipe.json"
PRIOR = "tissue inferred"
OTHER_ORGANS = (
    "hao",
    "ipsc",
    "kang",
    "malt",
    "zheng",
    "geact_sorted_blood",
)  # as in scripts/leave_studies_out.py
N_CELLS, N_HEADS = 512, 4  # fmt: skip


class Size(NamedTuple):
    """Size of an encoder."""

    layers: int
    width: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.layers} layer{'s' * (self.layers > 1)} of {self.width}, {self.tokens} tokens"


class Run(NamedTuple):
    """Scores of one arm, size, seed and fold, by study."""

    arm: str
    size: Size
    seed: int
    steps: int
    fold: str
    scores: dict[str, list[float]]
    """Mean recall and hierarchical F1 of each study."""


def read(path: Path) -> list[Run]:
    """Read all runs."""
    runs = []
    for key, run in json.loads(path.read_text(encoding="utf-8")).items():
        arm, fold, seed, steps, *changed = key.split("|")
        values = dict(item.split("=", 1) for item in changed)
        size = Size(int(values.get("n_layers", 1)), int(values["hidden_size"]), int(values["max_length"]))  # fmt: skip
        runs.append(Run(arm, size, int(seed), int(steps), fold, run["scores"][PRIOR]))
    return runs


def mean(runs: list[Run], *, new_organs: bool | None = None, place: int = 0) -> float:
    """Average the studies of runs, or those of organs with or without measured training cells."""
    values = [
        v[place]
        for run in runs
        for study, v in run.scores.items()
        if new_organs is None or (study in OTHER_ORGANS) != new_organs
    ]
    return float(np.mean(values))


def print_components(runs: list[Run]) -> None:
    """Print each arm of the size that has several arms by fold, with the difference to the whole recipe by seed."""
    size = next(run.size for run in runs if run.arm != "base")
    runs = [run for run in runs if run.size == size]
    rows: dict[str, list[str]] = {}
    columns, notes = ["recipe"], []
    for number, fold in enumerate(dict.fromkeys(run.fold for run in runs)):
        arms: dict[str, dict[int, Run]] = {}
        for run in runs:
            if run.fold == fold:
                arms.setdefault(run.arm, {})[run.seed] = run
        # seeds that all arms have
        seeds = sorted(set.intersection(*(set(of_seed) for of_seed in arms.values())))
        letter = "ABCD"[number]
        columns += [f"recall, fold {letter}", "difference", "hierarchical F1"]
        for arm, of_seed in arms.items():
            found = [mean([of_seed[seed]]) for seed in seeds]
            changes = [x - mean([arms["base"][seed]]) for x, seed in zip(found, seeds, strict=True)]
            rows.setdefault(arm, []).extend([
                _spread(found), "" if arm == "base" else _spread(changes, sign="+"),
                _spread([mean([of_seed[seed]], place=1) for seed in seeds]),
            ])  # fmt: skip
        n = len(arms["base"][seeds[0]].scores)
        plural = "s" if len(seeds) > 1 else ""
        notes.append(f"fold {letter} ({fold}): {n} studies, {len(seeds)} seed{plural}")
    print_table(
        f"Studies left out: mean recall after {runs[0].steps:,} steps, {size}",
        columns,
        [["whole recipe" if arm == "base" else arm, *values] for arm, values in rows.items()],
        f"Means over studies, ± half the range over seeds: {'; '.join(notes)}. Classifier without markers, tissues inferred. Differences are paired by seed. "
        "A small encoder makes several seeds affordable; masked gene prediction, a part of the final recipe, is here an addition.",
    )


def print_sizes(runs: list[Run], plot: Path | None, n_runs: int) -> None:
    """Print quality and speed by size of the encoder."""
    quality: dict[Size, list[Run]] = {}
    for run in runs:
        if run.arm == "base" and run.seed == 0:
            quality.setdefault(run.size, []).append(run)
    most = max(len(of_size) for of_size in quality.values())
    quality = {size: quality[size] for size in sorted(quality) if len(quality[size]) == most}
    rates = speeds(list(quality), n_runs)
    table = [
        [str(size), f"{mean(own):.3f}", f"{mean(own, new_organs=True):.3f}", f"{mean(own, new_organs=False):.3f}",
         f"{mean(own, place=1):.3f}", f"{rates[size]:,.0f}"]
        for size, own in quality.items()
    ]  # fmt: skip
    own = next(iter(quality.values()))
    print_table(
        f"Studies left out: quality and speed by size of the encoder, {own[0].steps:,} steps",
        ["encoder", "mean recall", "organs without measured training cells", "other organs", "hierarchical F1", "cells/s"],
        table,
        f"One seed, {sum(len(run.scores) for run in own)} studies of {len(own)} folds, without masked gene prediction. Speed: tokens to embeddings of {N_CELLS} cells of a pancreas study, "
        "random weights, float32.",
    )  # fmt: skip
    if plot:
        draw({size: mean(of_size) for size, of_size in quality.items()}, rates, plot)


def speeds(sizes: list[Size], n_runs: int) -> dict[Size, float]:
    """Measure cells per second of encoders with random weights."""
    cells = sccello.datasets.pancreas_tritschler()[:N_CELLS].copy()
    work = {}
    for size in sizes:
        torch.manual_seed(0)
        network = ScCelloModel(EncoderConfig(
            hidden_size=size.width, n_layers=size.layers, n_heads=N_HEADS, intermediate_size=2 * size.width, max_positions=size.tokens,
        )).eval()  # fmt: skip
        tokens = sccello.pp.tokenize(cells, max_length=size.tokens)
        work[str(size)] = lambda n=network, t=tokens: encode(n, t, precision="float32")
    found = time_all(work, n_runs=n_runs)
    return {size: cells.n_obs / found[str(size)].median for size in sizes}


def draw(quality: dict[Size, float], rates: dict[Size, float], path: Path) -> None:
    """Draw mean recall against speed."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    shapes = sorted({(size.layers, size.width) for size in quality})
    for (layers, width), color in zip(
        shapes, ("#1f6f8b", "#c8553d", "#588157", "#7b2d8b"), strict=False
    ):
        own = sorted(size for size in quality if (size.layers, size.width) == (layers, width))
        x, y = [rates[size] for size in own], [quality[size] for size in own]
        axis.plot(x, y, "o-", color=color, label=f"{layers} layer{'s' * (layers > 1)} of {width}")
        for size, *at in zip(own, x, y, strict=True):
            axis.annotate(f"{size.tokens}", at, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    axis.set(xlabel="cells/s (encoder)", ylabel="mean recall, studies left out", xscale="log")
    ticks = [500, 1_000, 2_000, 5_000, 10_000]
    low, high = axis.get_xlim()
    axis.set_xticks([t for t in ticks if low <= t <= high])
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.xaxis.set_minor_formatter("")
    axis.margins(y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, title="labels: tokens")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _spread(values: list[float], sign: str = "") -> str:
    half = (max(values) - min(values)) / 2
    return f"{np.mean(values):{sign}.3f}" + (f" ± {half:.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--plot", type=Path, help="figure of quality against speed")
    parser.add_argument("--runs", type=int, default=5, help="runs of each timing")
    args = parser.parse_args()
    runs = read(RESULTS)
    print_components(runs)
    print_sizes(runs, args.plot, args.runs)


if __name__ == "__main__":
    main()
