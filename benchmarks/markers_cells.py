"""Cells of the marker benchmarks: types, known markers, and scores that several parts share.

Known markers of a cell are those of its Cell Ontology term; where the table has fewer than ten of them, of the nearest
ancestor that has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anndata
import numpy as np
import pandas as pd

import sccello_tools as sccello
from sccello_tools.ontology import CellOntology, match_labels
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from pathlib import Path

TERM = "cell_type_ontology_term_id"
EVAL = {
    "PBMC3k": "eval/pbmc3k.h5ad",
    "Kang, 2 donors": "eval/kang_pbmc_2donors.h5ad",
    "Tritschler": "eval/pancreas_tritschler.h5ad",
}
TRAIN = {
    "Zheng (train)": "train/zheng_facs.h5ad",
    "Kang, 6 donors (train)": "train/kang_pbmc_6donors.h5ad",
    "pancreas (train)": "train/pancreas.h5ad",
}
MIN_MARKERS = 10
MIN_CELLS = 5


def read(folder: Path, name: str) -> anndata.AnnData:
    """Cells of one data set, without types of fewer than five."""
    adata = anndata.read_h5ad(folder / "cells" / (EVAL | TRAIN)[name])
    sizes = adata.obs[TERM].value_counts()
    adata = adata[adata.obs[TERM].isin(sizes.index[sizes >= MIN_CELLS])].copy()
    adata.obs[TERM] = adata.obs[TERM].astype(str).astype("category")
    sccello.pp.match_genes(adata)
    return adata


def spread(adata: anndata.AnnData, n_cells: int, seed: int = 0) -> np.ndarray:
    """Rows of ``n_cells`` cells, as many of each type as it has them, in random order."""
    rng = np.random.default_rng(seed)
    codes = adata.obs[TERM].cat.codes.to_numpy()
    order = rng.permutation(adata.n_obs)
    turn = np.empty(adata.n_obs, dtype=int)  # which one of its type a cell is
    for code in np.unique(codes):
        own = order[codes[order] == code]
        turn[own] = np.arange(len(own))
    return order[np.argsort(turn[order], kind="stable")][:n_cells]


class Known(NamedTuple):
    """Markers of a type."""

    genes: frozenset[str]
    """Ensembl ids."""
    of: str
    """Term that they are of: the type, or an ancestor."""


def known_markers(folder: Path, types: list[str]) -> dict[str, Known]:
    """Known markers of each type that has any, itself or above it."""
    ontology = CellOntology.load()
    table = _published_markers(folder / "cellmarkers.tsv.gz", ontology)
    genes_of = table.groupby(TERM)["gene_id"].agg(frozenset).to_dict()
    genes_of = {t: g for t, g in genes_of.items() if t and len(g) >= MIN_MARKERS}
    known = {}
    for term in types:
        rung = [term]
        while rung and not any(t in genes_of for t in rung):
            rung = sorted({above for t in rung for above in ontology.parents(t)})
        found = next((t for t in rung if t in genes_of), None)
        if found is not None:
            known[term] = Known(genes_of[found], found)
    return known


def _published_markers(path: Path, ontology: CellOntology) -> pd.DataFrame:
    """Read ``cellmarkers.tsv`` of the scCello repository: one row per type and gene, with term and Ensembl id."""
    rows = pd.read_csv(path, sep="\t", dtype=str).dropna(subset=["cellType", "geneMarker"])
    report = match_labels(rows["cellType"].tolist(), ontology)
    terms = [report[name].id if report[name].is_mapped else "" for name in rows["cellType"]]
    genes = [
        list(dict.fromkeys(s.strip() for s in text.split(",") if s.strip()))
        for text in rows["geneMarker"]
    ]
    long = pd.DataFrame(
        {
            TERM: np.repeat(terms, [len(own) for own in genes]),
            "symbol": [s for own in genes for s in own],
        }
    )
    distinct = long["symbol"].unique().tolist()
    ids = match_gene_names(distinct, min_matched=1).gene_ids.tolist()
    long["gene_id"] = long["symbol"].map(dict(zip(distinct, ids)))
    return long[long["gene_id"] != ""]
