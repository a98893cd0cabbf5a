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
from sccello_tools.perturbation import perturbation_scores
from sccello_tools.tokens import GeneVocabulary, RaggedTokens

if TYPE_CHECKING:
    from pathlib import Path

TOP = 50
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
    overlaps, ratios, fast_overlaps, lengths, types = [], [], [], [], set()
    for i, name in enumerate(EVAL):
        adata = read(folder, name)
        part = adata[spread(adata, n_cells // len(EVAL) + (i < n_cells % len(EVAL)))].copy()
        types |= set(part.obs[TERM])
        tokens = sccello.pp.tokenize(part, max_length=loaded.config.max_positions)
        for k in range(len(tokens)):
            ids = tokens[k]
            cell = RaggedTokens(np.array([0, len(ids)]), ids, np.zeros(len(ids), np.float32))
            found, seconds = {}, {}
            for method in ("perturb", "fast", "screen"):
                start = time.process_time()
                found[method] = perturbation_scores(loaded.network, cell, method=method)[1:]
                seconds[method] = time.process_time() - start
            best = {m: set(np.argsort(-scores, kind="stable")[:TOP]) for m, scores in found.items()}
            overlaps.append(len(best["perturb"] & best["screen"]) / TOP)
            fast_overlaps.append(len(best["perturb"] & best["fast"]) / TOP)
            ratios.append(seconds["perturb"] / seconds["screen"])
            lengths.append(len(ids))
    return {
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "n_cells": len(overlaps),
        "n_types": len(types),
        "median_tokens": float(np.median(lengths)),
        "top50_overlap": float(np.mean(overlaps)),
        "top50_overlap_low": float(np.min(overlaps)),
        "fast_top50_overlap": float(np.mean(fast_overlaps)),
        "speed_ratio": float(np.median(ratios)),
        "speed_ratio_low": float(np.min(ratios)),
        "speed_ratio_high": float(np.max(ratios)),
    }


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
