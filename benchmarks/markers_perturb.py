"""`screen` against exact scores on real cells, in one run, and perturbations whose effect is known.

For `screen`, each cell is scored by `perturb` and by `screen` one after the other; the ratio of processor times is the median over
the cells. For known biology, marker genes are masked in the cells of all types. The effect on a type is the mean shift over its
sampled cells, where cells without the gene count as 0; it should be largest in the type that the gene is a marker of.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from markers_cells import EVAL, TERM, read, spread

import sccello_tools as sccello
from sccello_tools.perturbation import N_SCREENED, perturbation_scores
from sccello_tools.tokens import GeneVocabulary, RaggedTokens

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from sccello_tools.nn import ScCelloModel

TOP = 50
N_EXACT = (60, 75, 100)
KNOWN = {
    "pancreas": {
        "INS": "type B pancreatic cell",
        "GCG": "pancreatic A cell",
        "SST": "pancreatic D cell",
        "PPY": "pancreatic PP cell",
    },
    "PBMC3k": {
        "CD79A": "B cell",
        "MS4A1": "B cell",
        "LYZ": "CD14-positive monocyte",
        "S100A8": "CD14-positive monocyte",
        "FCGR3A": "CD14-low, CD16-positive monocyte",
        "NKG7": "natural killer cell",
        "GNLY": "natural killer cell",
        "CD8A": "CD8-positive, alpha-beta T cell",
        "IL7R": "CD4-positive, alpha-beta T cell",
        "PPBP": "megakaryocyte",
        "FCER1A": "dendritic cell",
    },
}  # written down before any of them was computed


def screen(folder: Path, model: str, n_cells: int) -> dict[str, object]:
    """Overlap of the best 50 genes of each cell, and processor time."""
    loaded = sccello.models.load(model, device="cpu")
    cells, types = [], set()
    for i, name in enumerate(EVAL):
        adata = read(folder, name)
        part = adata[spread(adata, n_cells // len(EVAL) + (i < n_cells % len(EVAL)))].copy()
        types |= set(part.obs[TERM])
        tokens = sccello.pp.tokenize(part, max_length=loaded.config.max_positions)
        cells += [tokens[k] for k in range(len(tokens))]
    overlaps: dict[str, list[float]] = {name: [] for name in ("fast", *map(str, N_EXACT))}
    ratios: dict[str, list[float]] = {name: [] for name in overlaps}
    for ids in cells:
        cell = RaggedTokens(np.array([0, len(ids)]), ids, np.zeros(len(ids), np.float32))
        exact, seconds = _timed(loaded.network, cell, method="perturb")
        best = set(_top(exact))
        for name, own_overlaps in overlaps.items():
            how = (
                {"method": "fast"} if name == "fast" else {"method": "screen", "n_exact": int(name)}
            )
            found, own_seconds = _timed(loaded.network, cell, **how)
            own_overlaps.append(len(best & set(_top(found))) / TOP)
            ratios[name].append(seconds / own_seconds)
    return {
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "n_cells": len(cells),
        "n_types": len(types),
        "median_tokens": float(np.median([len(ids) for ids in cells])),
        "n_exact": N_SCREENED,
        "methods": {
            name: {
                "overlap": float(np.mean(overlaps[name])),
                "overlap_low": float(np.min(overlaps[name])),
                "speed_ratio": float(np.median(ratios[name])),
                "speed_ratio_low": float(np.min(ratios[name])),
                "speed_ratio_high": float(np.max(ratios[name])),
            }
            for name in overlaps
        },
    }


def _timed(network: ScCelloModel, cell: RaggedTokens, **how: Any) -> tuple[np.ndarray, float]:
    start = time.process_time()
    scores = perturbation_scores(network, cell, **how)[1:]
    return scores, time.process_time() - start


def _top(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable")[:TOP].tolist()


def biology(model: str, n_cells: int) -> dict[str, object]:
    """Effect of masking known markers on each type of the shipped cells."""
    cells = {
        "pancreas": sccello.datasets.pancreas_tritschler(),
        "PBMC3k": sccello.datasets.pbmc3k_subsample(),
    }
    vocabulary = GeneVocabulary.load()
    id_of = dict(zip(vocabulary.symbols.tolist(), vocabulary.gene_ids.tolist()))
    rows = []
    for name, markers in KNOWN.items():
        adata = cells[name]
        sizes = adata.obs["cell_type"].value_counts()
        adata = adata[adata.obs["cell_type"].isin(sizes.index[sizes >= 10])].copy()
        names = {gene: id_of[gene] if id_of[gene] in adata.var_names else gene for gene in markers}
        sccello.tl.perturb(
            adata, list(names.values()), groupby="cell_type", model=model, n_cells_per_group=n_cells
        )
        table = sccello.get.perturbation_df(adata)
        table["effect"] = (table["shift"] * table["n_changed"] / table["n_cells"]).fillna(0)
        for gene, own in markers.items():
            of_gene = table[table["perturbation"] == names[gene]].set_index("group")
            largest = str(of_gene["effect"].idxmax())
            row = of_gene.loc[own]
            rows.append(
                {
                    "cells": name,
                    "gene": gene,
                    "type": own,
                    "changed": f"{row['n_changed']}/{row['n_cells']}",
                    "shift": float(row["shift"]),
                    "control_shift": float(row["control_shift"]),
                    "pval": float(row["pval"]),
                    "largest_in": largest,
                }
            )
    return {"model": model, "n_cells_per_group": n_cells, "rows": rows}
