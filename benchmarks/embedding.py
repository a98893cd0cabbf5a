"""Score an embedding on every evaluation file with known types, beside logistic regression and PCA on the same cells.

python benchmarks/embedding.py --data ../shared/data [--model sccello-small ...] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import anndata as ad
import numpy as np
from _common import load_models, print_table
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.metrics import annotation_score, knn_vote
from sccello_tools.tokens import match_gene_names

EVALUATION = ("kang_pbmc_2donors", "ovarian_tumour_1donor", "pancreas_tritschler", "pbmc3k")
LABEL = "cell_type_ontology_term_id"
N_TOKENS = 25_427


def token_counts(adata: ad.AnnData) -> sparse.csr_matrix:
    """Counts over the vocabulary, one column a token id."""
    match = match_gene_names(adata.var_names)
    columns = np.flatnonzero(match.tokens >= 0)
    to_token = sparse.csr_matrix(
        (np.ones(len(columns), dtype=np.float32), (columns, match.tokens[columns])),
        shape=(adata.n_vars, 25_427),
    )
    return sparse.csr_matrix(sparse.csr_matrix(adata.X) @ to_token)


def log_cp10k(adata: ad.AnnData) -> sparse.csr_matrix:
    """log1p of counts per 10,000 over the vocabulary, one column a token id."""
    counts = token_counts(adata)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.diags(1e4 / np.maximum(totals, 1)) @ counts
    return scaled.log1p().tocsr().astype(np.float32)


def accepted_answers(truth: np.ndarray, known: set[str]) -> dict[str, set[str]]:
    """For each true type that training could teach: itself and its subtypes."""
    ontology = sccello.ontology.CellOntology.load()
    accepted = {t: {t, *ontology.descendants(t)} for t in np.unique(truth)}
    return {t: answers for t, answers in accepted.items() if answers & known}


def baselines(
    train: list[ad.AnnData], labels: np.ndarray, queries: dict[str, ad.AnnData]
) -> dict[str, dict[str, np.ndarray]]:
    """Predictions of logistic regression (and its probabilities) and of a neighbour vote on 50 principal components."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    reference = sparse.vstack([log_cp10k(adata) for adata in train]).tocsr()
    features = {name: log_cp10k(query) for name, query in queries.items()}
    regression = LogisticRegression(C=1.0, max_iter=60, tol=1e-2, solver="lbfgs").fit(
        reference, labels
    )
    # arpack centres without making the counts dense
    components = PCA(50, svd_solver="arpack", random_state=0).fit(reference)
    projected = components.transform(reference)
    return {
        "logistic regression": {name: regression.predict(x) for name, x in features.items()},
        "logistic regression, probabilities": {
            name: regression.predict_proba(x) for name, x in features.items()
        },
        "PCA-50 + 15 neighbours": {
            name: knn_vote(projected, labels, components.transform(x), metric="euclidean")
            for name, x in features.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cells/train and cells/eval")
    parser.add_argument("--model", nargs="+", default=["sccello-small"], help="one or more")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        print(
            "Skipped: the training and evaluation cells do not ship. Pass their folder in --data."
        )
        return

    train = [ad.read_h5ad(path) for path in sorted((args.data / "cells" / "train").glob("*.h5ad"))]
    queries = {
        name: ad.read_h5ad(args.data / "cells" / "eval" / f"{name}.h5ad") for name in EVALUATION
    }
    labels = np.concatenate([adata.obs[LABEL].astype(str).to_numpy() for adata in train])

    predictions = {}
    for model_name, model in load_models(args.model).items():
        for adata in (*train, *queries.values()):
            sccello.tl.embed(adata, model=model)
        reference = np.concatenate([adata.obsm["X_sccello"] for adata in train])
        predictions[f"{model_name} + 15 neighbours"] = {
            name: knn_vote(reference, labels, query.obsm["X_sccello"])
            for name, query in queries.items()
        }
    if not args.no_baselines:
        fitted = baselines(train, labels, queries)
        del fitted["logistic regression, probabilities"]
        predictions |= fitted

    rows: list[list[str]] = []
    results: dict[str, dict[str, list[float]]] = {}
    for name, query in queries.items():
        truth = query.obs[LABEL].astype(str).to_numpy()
        accepted = accepted_answers(truth, set(labels))
        scores = {
            method: annotation_score(truth, p[name], accepted) for method, p in predictions.items()
        }
        results[name] = {method: [s.accuracy, s.mean_recall] for method, s in scores.items()}
        rows.append([name, *(f"{s.accuracy:.3f} / {s.mean_recall:.3f}" for s in scores.values())])
    means = {
        method: np.mean([results[name][method] for name in results], axis=0)
        for method in predictions
    }
    rows.append(["mean", *(f"{a:.3f} / {r:.3f}" for a, r in means.values())])
    print_table(
        "Label transfer: accuracy / mean recall over known types (a subtype counts as correct)",
        ["file", *predictions],
        rows,
    )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
