"""Measured cells as other assays would see them: on gene panels, and with fewer counts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from labels.label_space import labels_of
from scipy import sparse

from sccello_tools.annotation import CellMarkers
from sccello_tools.tokens import VOCABULARY_SIZE, GeneVocabulary

if TYPE_CHECKING:
    from recipe.sources import Cells

PANELS = (50, 100, 200, 500, 1_000)
THINNED = (300, 1_000)


def sample_rows(cells: Cells, n_each: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most n rows per file and label, in order."""
    files = cells.obs.file.to_numpy().astype(str)
    group = np.char.add(np.char.add(files, "|"), labels_of(cells.obs).astype(str))
    kept = [rng.permutation(np.flatnonzero(group == g))[:n_each] for g in np.unique(group)]
    return np.sort(np.concatenate(kept))


def views(cells: Cells, rng: np.random.Generator) -> dict[str, Cells]:
    """Return the same cells as they are, on random and curated panels, and thinned to given total counts."""
    found = {"all genes": cells}
    detected = np.asarray((cells.counts > 0).mean(0)).ravel()
    common = np.flatnonzero(detected > 0.005)
    curated = curated_tokens()
    for size in PANELS:
        p = detected[common] / detected[common].sum()
        drawn = rng.choice(common, min(size, len(common)), replace=False, p=p)
        found[f"{size} random genes"] = on_panel(cells, drawn)
        found[f"{size} curated genes"] = on_panel(cells, curated[:size])
    for total in THINNED:
        found[f"{total} counts"] = thinned(cells, total, rng)
    return found


def on_panel(cells: Cells, tokens: np.ndarray) -> Cells:
    """Return the cells with counts of some genes only."""
    kept = np.zeros(VOCABULARY_SIZE, np.float32)
    kept[tokens] = 1
    counts = sparse.csr_matrix(cells.counts @ sparse.diags(kept))
    counts.eliminate_zeros()
    genes = {file: own[kept[own] > 0] for file, own in cells.genes.items()}
    return replace(cells, counts=counts.astype(np.float32), genes=genes)


def thinned(cells: Cells, total: int, rng: np.random.Generator) -> Cells:
    """Return the cells with counts thinned to a total; cells with fewer stay as they are."""
    counts = cells.counts.copy()
    sums = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    share = np.repeat(np.minimum(total / sums, 1), np.diff(counts.indptr))
    counts.data = rng.binomial(counts.data.astype(np.int64), share).astype(np.float32)
    counts.eliminate_zeros()
    return replace(cells, counts=counts)


def curated_tokens() -> np.ndarray:
    """Return marker genes, the best one of each term in turn, without repeats."""
    token_of = GeneVocabulary.load().token_of
    table = CellMarkers.load().table
    table = table[table.positive].sort_values("weight", ascending=False, kind="stable")
    rank = table.groupby("cell_type_ontology_term_id").cumcount()
    order = table.assign(rank=rank).sort_values(["rank", "weight"], ascending=[True, False], kind="stable").gene_id  # fmt: skip
    return np.array(list(dict.fromkeys(token_of[gene] for gene in order)))
