"""Do perturbation scores find known markers? AUROC beside what needs no model, for cells and for types; GO terms of the markers.

In a cell, its genes (the tokens that the model sees) are ranked by each score, and the area under the curve is taken of known
markers of the cell's type against the other genes; then the mean over cells, as published. For a type, all genes that any of the
drawn cells shows are ranked by the group's figure. All scores are of the same cells and genes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
import torch
from markers_cells import TERM, known_markers, read
from sklearn.metrics import roc_auc_score

import sccello_tools as sccello
from sccello_tools.models import load
from sccello_tools.nn import ScCelloModel
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from pathlib import Path

    import anndata
    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

LAYER = "perturbation"
GO_TYPES = {  # named before any was looked at: those of the issue
    "B cell": ("PBMC3k", "CL:0000236"),
    "monocyte (CD14+)": ("PBMC3k", "CL:0001054"),
    "natural killer cell": ("PBMC3k", "CL:0000623"),
    "beta cell": ("Tritschler", "CL:0000169"),
}
N_TERMS = 5


def untrained(model: str) -> LoadedModel:
    """The same model with random weights."""
    trained = load(model, device="cpu")
    torch.manual_seed(0)
    network = ScCelloModel(trained.config).eval()
    return dataclasses.replace(trained, network=network, name=f"{model}, untrained")


def drawn(adata: anndata.AnnData, model: str | LoadedModel, n_cells: int) -> anndata.AnnData:
    """Cells that marker genes were taken from, with their scores in a layer and normalised expression in another."""
    sccello.tl.marker_genes(
        adata, TERM, model=model, method="fast", n_cells_per_group=n_cells, layer_added=LAYER
    )
    part = adata[np.diff(adata.layers[LAYER].indptr) > 0].copy()
    part.layers["log"] = part.X.copy()
    sc.pp.normalize_total(part, target_sum=1e4, layer="log")
    sc.pp.log1p(part, layer="log")
    return part


def figures(part: anndata.AnnData) -> dict[str, NDArray[np.float64]]:
    """Scores of cells and genes, (n_cells, n_genes) each; a score of the type is repeated for its cells."""
    codes = part.obs[TERM].cat.codes.to_numpy()
    scores, log = part.layers[LAYER].toarray(), part.layers["log"].toarray()
    sc.tl.rank_genes_groups(part, TERM, method="wilcoxon", layer="log", use_raw=False)
    ranked = part.uns["rank_genes_groups"]
    by_type = {}
    for field in ("logfoldchanges", "scores"):
        table = np.zeros((len(part.obs[TERM].cat.categories), part.n_vars))
        for i, group in enumerate(part.obs[TERM].cat.categories):
            table[i, part.var_names.get_indexer(ranked["names"][group])] = ranked[field][group]
        by_type[field] = table[codes]
    return {
        "perturbation (as published)": scores,
        "perturbation less the rest": scores - _rest(scores, codes),
        "expression": log,
        "token rank (expression over the gene's median)": np.expm1(log) / _medians(part),
        "expression less the rest": log - _rest(log, codes),
        "log fold change": by_type["logfoldchanges"],
        "Wilcoxon": by_type["scores"],
        "random": np.random.default_rng(0).random(scores.shape),
    }


def _medians(part: anndata.AnnData) -> NDArray[np.float64]:
    """Of each variable in the vocabulary; 1 for variables that it does not know, which no token shows."""
    vocabulary = GeneVocabulary.load()
    medians = vocabulary.median_of_token[vocabulary.tokens]
    median_of = dict(zip(vocabulary.gene_ids.tolist(), medians.tolist()))
    return np.array([median_of.get(gene, 1.0) for gene in part.var["sccello_gene_id"]])


def _rest(values: NDArray[np.float64], codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """For each cell the mean over the cells of other types."""
    total = values.sum(0)
    out = np.empty_like(values)
    for code in np.unique(codes):
        own = codes == code
        out[own] = (total - values[own].sum(0)) / (~own).sum()
    return out


def area(folder: Path, part: anndata.AnnData) -> dict[str, dict[str, float]]:
    """AUROC of each score: mean over cells, and mean over types of the type's mean score."""
    genes = part.var["sccello_gene_id"].to_numpy()
    known = known_markers(folder, list(part.obs[TERM].cat.categories))
    is_known = {term: np.isin(genes, list(found.genes)) for term, found in known.items()}
    layer, types = part.layers[LAYER], part.obs[TERM].astype(str).to_numpy()
    shown = np.zeros(part.n_vars, dtype=bool)
    shown[layer.indices] = True
    out = {}
    for name, values in figures(part).items():
        cells = []
        for i, term in enumerate(types):
            seen = layer.indices[layer.indptr[i] : layer.indptr[i + 1]]
            if term in is_known and 0 < is_known[term][seen].sum() < len(seen):
                cells.append(roc_auc_score(is_known[term][seen], values[i, seen]))
        per_type = {
            term: roc_auc_score(truth[shown], values[types == term].mean(0)[shown])
            for term, truth in is_known.items()
        }
        out[name] = {
            "cells": float(np.mean(cells)),
            "n_cells": len(cells),
            "types": float(np.mean(list(per_type.values()))),
            "by_type": {term: round(float(v), 4) for term, v in per_type.items()},
        }
    return out


def truth(folder: Path, names: list[str], model: str, n_cells: int) -> dict[str, object]:
    """AUROC on each data set, of the model and of the same model without training."""
    out: dict[str, object] = {}
    terms: dict[str, list[dict[str, object]]] = {}
    for name in names:
        part = drawn(read(folder, name), model, n_cells)
        out[name] = area(folder, part)
        for label, (where, term) in GO_TYPES.items():
            if where == name:
                terms[label] = top_terms(part, term)
        random = drawn(read(folder, name), untrained(model), n_cells)
        areas = area(folder, random)
        for kind in ("perturbation (as published)", "perturbation less the rest"):
            out[name][f"{kind}, untrained model"] = areas[kind]
    return {"cells_per_type": n_cells, "data_sets": out, "go": terms}


def top_terms(part: anndata.AnnData, group: str) -> list[dict[str, object]]:
    """Most significant terms of a group that stand for themselves."""
    table = sccello.tl.enrich_go(part, group=group, max_fdr=None)
    table = table[table["folded_into"] == ""].head(N_TERMS)
    return [
        {
            "term": row["name"],
            "genes": f"{row['study_count']}/{row['study_n']}",
            "odds": round(row["odds_ratio"], 1),
            "fdr": float(f"{row['fdr']:.2g}"),
        }
        for _, row in table.iterrows()
    ]
