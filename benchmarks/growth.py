"""How time grows: with cells, genes of the matrix, tokens of a cell, candidates, ontology terms.

    python benchmarks/growth.py [--runs 5] [--plot docs/_static/growth.png]

One thing grows at a time, the others stay. The exponent is the slope of log time against log size over the larger half of the sizes: 1 is
linear. Cells are real ones (the shipped pancreas study) drawn with replacement, or tokens made up where only their number counts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _common import print_table, time_all
from _steps import made_up_tokens
from scaling import PUBLISHED, SMALL
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.nn import ScCelloModel
from sccello_tools.ontology import CellOntology, pagerank_rows, published_labels, spearman_matrix

if TYPE_CHECKING:
    from collections.abc import Callable


class Curve(NamedTuple):
    """Seconds at several sizes, medians."""

    what: str
    grows: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        half = slice(len(self.sizes) // 2, None)
        return float(np.polyfit(np.log(self.sizes[half]), np.log(self.seconds[half]), 1)[0])


def measure(what: str, grows: str, work: dict[int, Callable[[], object]], n_runs: int) -> Curve:
    """Time each size, in turns."""
    timings = time_all({str(size): function for size, function in work.items()}, n_runs=n_runs)
    return Curve(what, grows, tuple(work), tuple(t.median for t in timings.values()))


def resampled(n_cells: int) -> ad.AnnData:
    source = sccello.datasets.pancreas_tritschler()
    rows = np.random.default_rng(0).integers(0, source.n_obs, n_cells)
    counts = sparse.csr_matrix(source.X)[rows]
    return ad.AnnData(counts, var=pd.DataFrame(index=source.var_names))


def with_genes(adata: ad.AnnData, n_genes: int) -> ad.AnnData:
    """Keep the genes that most cells express, so that the values that are there fall with their number."""
    order = np.argsort(-np.asarray((adata.X > 0).sum(axis=0)).ravel(), kind="stable")
    return adata[:, np.sort(order[:n_genes])].copy()


def curves(n_runs: int) -> list[Curve]:
    """Measure all."""
    cells = {n: resampled(n) for n in (1_000, 2_000, 4_000, 8_000, 16_000)}
    genes = {n: with_genes(cells[4_000], n) for n in (2_000, 4_000, 8_000, 16_000, 32_000)}
    torch.manual_seed(0)
    networks = {
        "published size": (ScCelloModel(PUBLISHED).eval(), (128, 256, 512, 1024, 2048)),
        "4 layers of 128": (ScCelloModel(SMALL).eval(), (32, 64, 128, 256, 512)),
    }
    ontology = CellOntology.load()
    terms = sorted(ontology)
    known = [ontology.current(term) for term in published_labels()]
    similarity = np.random.default_rng(0).random((2_000, len(known)), dtype=np.float32)
    rows = pagerank_rows(ontology, terms[:1_600], columns=known).astype(np.float32)
    found = [
        measure("tokenizing", "cells", {n: lambda a=a: sccello.pp.tokenize(a) for n, a in cells.items()}, n_runs),
        measure("tokenizing 4,000 cells", "genes of the matrix", {n: lambda a=a: sccello.pp.tokenize(a) for n, a in genes.items()}, n_runs),
    ]  # fmt: skip
    for name, (network, lengths) in networks.items():
        tokens = {n: made_up_tokens(8, n) for n in lengths}
        work = {
            n: lambda t=t, w=network: encode(w, t, precision="float32") for n, t in tokens.items()
        }
        found.append(measure(f"encoding 8 cells, {name}", "tokens per cell", work, n_runs))
    tokens = {n: made_up_tokens(n, 256) for n in (16, 32, 64, 128, 256)}
    small = networks["4 layers of 128"][0]
    found += [
        measure("encoding cells of 256 tokens, 4 layers of 128", "cells", {
            n: lambda t=t: encode(small, t, precision="float32") for n, t in tokens.items()
        }, n_runs),
        measure("scoring 2,000 cells", "candidates", {
            n: lambda n=n: spearman_matrix(similarity, rows[:n]) for n in (100, 200, 400, 800, 1_600)
        }, n_runs),
        measure("PageRank rows, factorised before", "terms", {
            n: lambda n=n: pagerank_rows(ontology, terms[:n]) for n in (100, 200, 400, 800, 1_600)
        }, n_runs),
    ]  # fmt: skip
    return found


def plot(found: list[Curve], path: Path) -> None:
    """Draw each curve beside a straight line from its first point."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained")
    for axis, curve in zip(axes.flat, found, strict=False):
        seconds = np.array(curve.seconds)
        sizes = np.array(curve.sizes)
        axis.plot(sizes, seconds, "o-", color="#1f6f8b")
        axis.plot(sizes, seconds[-1] * sizes / sizes[-1], ":", color="grey", label="linear")
        axis.set_title(curve.what.replace(", ", ",\n"), fontsize=9)
        axis.set(xlabel=curve.grows, ylabel="seconds", xlim=(0, None), ylim=(0, None))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.locator_params(axis="x", nbins=4)
        axis.spines[["top", "right"]].set_visible(False)
    axes.flat[0].legend(frameon=False)
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found = curves(args.runs)
    print_table(
        f"Seconds, median of {args.runs} runs; exponent of growth over the larger sizes (1 is linear)",
        ("task", "variable", "from", "seconds", "to", "seconds", "exponent"),
        [
            (
                curve.what, curve.grows, f"{curve.sizes[0]:,}", f"{curve.seconds[0]:.3g}", f"{curve.sizes[-1]:,}",
                f"{curve.seconds[-1]:.3g}", f"{curve.exponent:.2f}",
            )
            for curve in found
        ],
        "Attention grows with the square of the number of tokens per cell, the other parts of the encoder linearly. Genes are added in the order of how many cells "
        "express them, so the last ones add few values.",
    )  # fmt: skip
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
