"""Agreement of `fast` with `perturb` on real cells of several types and data sets.

Exact scores take long; they are kept in a folder, cell by cell, so that a run that was stopped goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markers_cells import EVAL, TERM, read, spread
from scipy.stats import spearmanr

import sccello_tools as sccello
from sccello_tools.perturbation import perturbation_scores
from sccello_tools.tokens import RaggedTokens

if TYPE_CHECKING:
    from pathlib import Path

TOP = 20
DIRECTIONS = (0, 2, 4, 8)


def agreement(
    folder: Path, model: str, n_cells: int, max_length: int, scratch: Path
) -> dict[str, object]:
    loaded = sccello.models.load(model, device="cpu")
    scratch = scratch / f"{loaded.sha256[:12]}_{max_length}"
    scratch.mkdir(parents=True, exist_ok=True)
    cells, types = [], set()
    for i, name in enumerate(EVAL):
        adata = read(folder, name)
        rows = spread(adata, n_cells // len(EVAL) + (i < n_cells % len(EVAL)))
        part = adata[rows].copy()
        types |= set(part.obs[TERM])
        tokens = sccello.pp.tokenize(part, max_length=max_length)
        cells += [(name, k, tokens[k]) for k in range(len(tokens))]
    figures = {k: ([], []) for k in DIRECTIONS}
    for name, k, ids in cells:
        tokens = RaggedTokens(np.array([0, len(ids)]), ids, np.zeros(len(ids), dtype=np.float32))
        path = scratch / f"{name}_{k}.npz"
        stored = np.load(path) if path.exists() else None
        if stored is not None and np.array_equal(stored["ids"], ids):
            exact = stored["scores"]
        else:
            exact = perturbation_scores(loaded.network, tokens)
            np.savez(path, ids=ids, scores=exact)
        for n_directions, (correlations, overlaps) in figures.items():
            fast = perturbation_scores(
                loaded.network, tokens, method="fast", n_directions=n_directions
            )
            a, b = exact[1:], fast[1:]
            correlations.append(spearmanr(a, b).statistic)
            overlaps.append(len({*np.argsort(-a)[:TOP]} & {*np.argsort(-b)[:TOP]}) / TOP)
    return {
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "n_cells": len(cells),
        "n_types": len(types),
        "max_length": max_length,
        "median_tokens": float(np.median([len(ids) for _, _, ids in cells])),
        "directions": {
            str(k): {
                "spearman_mean": float(np.mean(correlations)),
                "spearman_low": float(np.min(correlations)),
                "top20_overlap": float(np.mean(overlaps)),
            }
            for k, (correlations, overlaps) in figures.items()
        },
    }
