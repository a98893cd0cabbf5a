"""What a user would annotate cells with instead: rivals of `annotation.py`, on the same cells."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from embedding import log_cp10k, token_counts
from scipy import sparse

import sccello_tools as sccello

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_TOKENS = 25_427
UNKNOWN = "unknown"


def scanvi_probabilities(
    train: list[ad.AnnData],
    labels: NDArray[np.str_],
    queries: dict[str, ad.AnnData],
    *,
    n_genes: int = 2_000,
    seed: int = 0,
) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """scANVI, 30 + 10 epochs, then surgery of 30 epochs on each unlabelled query, which it so trains on."""
    import scanpy as sc
    import scvi

    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.ERROR
    counts = [token_counts(adata) for adata in train]
    # a gene that a file does not have would tell the file
    shared = np.flatnonzero(np.all([c.getnnz(axis=0) > 0 for c in counts], axis=0))
    cells = ad.AnnData(sparse.vstack(counts).tocsr()[:, shared])
    cells.var_names = [f"token{i}" for i in shared]
    cells.obs["source"] = np.repeat(
        [f"file{i}" for i in range(len(train))], [a.n_obs for a in train]
    )
    cells.obs["label"] = labels
    logged = cells.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=n_genes, batch_key="source")
    genes = np.flatnonzero(logged.var["highly_variable"].to_numpy())
    cells = cells[:, genes].copy()
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvi.model.SCVI.setup_anndata(cells, batch_key="source", labels_key="label")
        base = scvi.model.SCVI(cells)
        base.train(max_epochs=30, **quiet)
        model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=UNKNOWN)
        model.train(max_epochs=10, n_samples_per_label=100, **quiet)
        found = {}
        for name, query in queries.items():
            asked = ad.AnnData(token_counts(query)[:, shared[genes]])
            asked.var_names = cells.var_names
            asked.obs["source"], asked.obs["label"] = name, UNKNOWN
            surgery = scvi.model.SCANVI.load_query_data(asked, model)
            surgery.train(max_epochs=30, plan_kwargs={"weight_decay": 0.0}, **quiet)
            soft = surgery.predict(soft=True)
            classes = [str(column) for column in soft.columns]
            found[name] = soft.to_numpy().astype(np.float32)
    return classes, found


def celltypist_predictions(
    train: list[ad.AnnData], labels: NDArray[np.str_], queries: dict[str, ad.AnnData]
) -> dict[str, NDArray[np.str_]]:
    """CellTypist trained on the same cells, over the vocabulary's genes."""
    import celltypist

    names = [f"token{i}" for i in range(N_TOKENS)]

    def table(adatas: list[ad.AnnData]) -> ad.AnnData:
        cells = ad.AnnData(sparse.vstack([log_cp10k(adata) for adata in adatas]).tocsr())
        cells.var_names = names
        return cells

    model = celltypist.train(
        table(train), labels=labels, check_expression=False, n_jobs=1, use_SGD=True, mini_batch=True
    )
    return {
        name: celltypist.annotate(table([query]), model=model)
        .predicted_labels["predicted_labels"]
        .astype(str)
        .to_numpy()
        for name, query in queries.items()
    }


@cache
def term_vectors() -> tuple[dict[str, int], NDArray[np.float64]]:
    """Row of each term, and its vector of 100 dimensions."""
    from scipy.sparse.linalg import svds

    ontology = sccello.ontology.CellOntology.load()
    walk = np.log(sccello.ontology.pagerank_rows(ontology, ontology.terms) + 1e-6)
    u, s, _ = svds(walk - walk.mean(0), k=100, random_state=0)
    vectors = u * np.sqrt(s)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return {term: row for row, term in enumerate(ontology.terms)}, vectors


def onclass_scores(
    probabilities: NDArray[np.float32], types: list[str], terms: tuple[str, ...]
) -> NDArray[np.float32]:
    """OnClass's published idea, written anew: terms live where a random walk from them leads; a cell is the mean of its known types.

    The walk's distribution over all terms is brought to 100 dimensions by a truncated SVD; a candidate's score is the cosine
    between it and the probability-weighted vectors of the known types.
    """
    place, vectors = term_vectors()
    cell = probabilities @ vectors[[place[t] for t in types]]
    cell /= np.maximum(np.linalg.norm(cell, axis=1, keepdims=True), 1e-12)
    return (cell @ vectors[[place[t] for t in terms]].T).astype(np.float32)


def neighbour_scores(
    nearest: NDArray[np.str_], terms: tuple[str, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Child or sibling of the nearest known type, at random among them, else at random among all."""
    ontology = sccello.ontology.CellOntology.load()
    scores = rng.random((len(nearest), len(terms))).astype(np.float32)
    for term in np.unique(nearest):
        parents = ontology.parents(str(term))
        related = set(ontology.descendants(str(term))).union(
            *(ontology.descendants(parent) for parent in parents)
        )
        scores[np.ix_(nearest == term, np.array([t in related for t in terms]))] += 1
    return scores
