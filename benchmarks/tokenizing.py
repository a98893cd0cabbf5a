"""Cells tokenized a second, beside a per-cell loop over pandas as the published code runs it.

    python benchmarks/tokenizing.py --data ../shared/data
    python benchmarks/tokenizing.py                        # on the 583 cells that ship with the package

Real cells are drawn so that the mean cell expresses about 1,700 genes of the vocabulary. All start from the same CSR counts in
memory; the loops are timed on fewer cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata
import numpy as np
import pandas as pd
from _common import against, print_table, time_all
from scipy import sparse

import sccello_tools as sccello
from sccello_tools._threads import n_cores
from sccello_tools.tokens import (
    CLS_ID,
    GeneVocabulary,
    RaggedTokens,
    Tokenizer,
    ValueSummary,
    match_gene_names,
    row_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

GENES_A_CELL = 1700
CHUNK = 512  # cells that the published code scales at a time


class Contender(NamedTuple):
    """One way to do it, and the cells that it is timed on."""

    counts: Counts
    work: Callable[[], object]


class Counts(NamedTuple):
    """Real counts over the genes of the vocabulary."""

    matrix: sparse.csr_array
    gene_ids: list[str]

    @property
    def genes_a_cell(self) -> float:
        return self.matrix.nnz / self.matrix.shape[0]


def read_counts(folder: Path | None) -> anndata.AnnData:
    if folder is None:
        return sccello.datasets.pancreas_tritschler()
    return anndata.read_h5ad(folder / "cells" / "train" / "pancreas.h5ad")


def cells_of_size(adata: anndata.AnnData, n_cells: int, *, seed: int = 0) -> Counts:
    """Draw real cells, richer or poorer ones as often as brings the mean to `GENES_A_CELL` genes; doublets if all are poor."""
    match = match_gene_names(adata.var_names.tolist())
    x = sparse.csr_array(adata.X[:, match.tokens >= 0])
    gene_ids = match.gene_ids[match.tokens >= 0].tolist()
    rng = np.random.default_rng(seed)
    n_genes = np.diff(x.indptr)
    poor, rich = x[n_genes <= GENES_A_CELL], x[n_genes > GENES_A_CELL]
    if not rich.shape[0]:
        rich = x + x[rng.permutation(x.shape[0])]
    low, high = (np.diff(part.indptr).mean() for part in (poor, rich))
    n_rich = round(n_cells * np.clip((GENES_A_CELL - low) / (high - low), 0, 1))
    drawn = [
        part[rng.integers(part.shape[0], size=n)]
        for part, n in ((rich, n_rich), (poor, n_cells - n_rich))
    ]
    return Counts(sparse.csr_array(sparse.vstack(drawn))[rng.permutation(n_cells)], gene_ids)


def tokenize_ours(
    counts: Counts, chunk_cells: int = 4096, *, return_values: bool = False
) -> RaggedTokens:
    """The array layer under pp.tokenize, checks of the values included."""
    tokenizer = Tokenizer(match_gene_names(counts.gene_ids), return_values=return_values)
    summary = ValueSummary()

    def tokenized() -> Iterator[RaggedTokens]:
        for chunk in row_chunks(counts.matrix, n_rows=chunk_cells):
            summary.add(chunk.rows.data)
            yield tokenizer(chunk.rows)

    return RaggedTokens.concatenate(tokenized())


def tokenize_by_cell(
    counts: Counts, layout: Literal["coo", "csr"] = "coo"
) -> tuple[list[list[int]], list[list[float]]]:
    """The published way: scale a chunk as sparse matrices, then look up each cell's genes in a pandas Series and a dict.

    The published code takes each row from what SciPy's `multiply` returns, a COO matrix, and so converts the whole chunk for
    every cell. ``layout="csr"`` is the same loop without that slip.
    """
    vocabulary = GeneVocabulary.load()
    token_of = vocabulary.token_of
    names = pd.Series(counts.gene_ids)
    medians = vocabulary.median_of_token[names.map(token_of).to_numpy()]
    all_ids, all_values = [], []
    for start in range(0, counts.matrix.shape[0], CHUNK):
        x = sparse.csr_matrix(counts.matrix[start : start + CHUNK])
        totals = np.asarray(x.sum(axis=1))
        scaled = x.multiply(10_000 / np.where(totals == 0, 1, totals))
        by_rank = scaled.multiply(1 / medians[None, :]).asformat(layout)
        logged = scaled.log1p().asformat(layout)
        for cell in range(x.shape[0]):
            rank_row, value_row = by_rank.getrow(cell), logged.getrow(cell)
            expressed = rank_row.nonzero()[1]
            order = np.argsort(-rank_row.data)
            genes = names.iloc[expressed].iloc[order]
            all_ids.append([CLS_ID] + [token_of[gene] for gene in genes])
            all_values.append([0.0, *value_row.data[order].tolist()])
    return all_ids, all_values


def check_agreement(counts: Counts) -> None:
    """Refuse to time two things that do not compute the same."""
    ours = tokenize_ours(counts, return_values=True)
    for cell, (ids, values) in enumerate(zip(*tokenize_by_cell(counts, "csr"))):
        mine = ours.values[ours.indptr[cell] : ours.indptr[cell + 1]]  # noqa: PD011
        # Equal ranks stand in any order in the loop, so ids are compared as sets; the last of a cut list may be such.
        same_genes = len(mine) < len(ids) or set(ids) == set(ours[cell].tolist())
        shown = min(len(mine), 1024)
        same_values = np.allclose(np.sort(values[:shown]), np.sort(mine[:shown]), atol=1e-4)
        if not (same_genes and same_values):
            msg = f"cell {cell}: the loop and the tokenizer disagree"
            raise SystemExit(msg)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with cells/train/pancreas.h5ad; the shipped cells if not given",
    )
    parser.add_argument("--cells", type=int, default=16_384, help="cells for the fast side")
    parser.add_argument(
        "--loop-cells",
        type=int,
        default=CHUNK,
        help="cells for the slow side; a whole chunk of the published loop, or it has it easier",
    )
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    many = cells_of_size(read_counts(arguments.data), arguments.cells)
    few = Counts(many.matrix[: arguments.loop_cells], many.gene_ids)
    check_agreement(few)
    as_adata = anndata.AnnData(many.matrix, var=pd.DataFrame(index=many.gene_ids))
    contenders = {
        "published loop": Contender(few, lambda: tokenize_by_cell(few)),
        "the same, rows from CSR": Contender(few, lambda: tokenize_by_cell(few, "csr")),
        "tokens.Tokenizer": Contender(many, lambda: tokenize_ours(many)),
        "pp.tokenize": Contender(many, lambda: sccello.pp.tokenize(as_adata)),
    }
    timings = time_all({name: c.work for name, c in contenders.items()}, n_runs=arguments.runs)
    n_cells = {name: c.counts.matrix.shape[0] for name, c in contenders.items()}
    rate = {name: n_cells[name] / timing.median for name, timing in timings.items()}
    cpu_rate = {name: n_cells[name] / timing.cpu_median for name, timing in timings.items()}
    rows = []
    for name, timing in timings.items():
        ratio = f"{rate[name] / rate['published loop']:,.0f} x"
        per_cpu = f"{cpu_rate[name]:,.0f}"
        rows.append([name, f"{n_cells[name]:,}", timing.rate(n_cells[name]), per_cpu, ratio])
    ours, loop = rate["pp.tokenize"], rate["published loop"]
    free = cpu_rate["pp.tokenize"] * n_cores()
    print_table(
        f"Tokenizing, {many.genes_a_cell:,.0f} genes per cell, median of {arguments.runs} runs",
        ["", "cells", "cells/s (range)", "per CPU second", "speed-up"],
        rows,
        f"pp.tokenize, cells/s: {against(ours, 12_000)}; against the published loop: {against(ours / loop, 150)}",
        f"Without other load on the {n_cores()} cores (from CPU time): at most {free:,.0f} cells/s, {free / cpu_rate['published loop']:,.0f} x the loop",
    )


if __name__ == "__main__":
    main()
