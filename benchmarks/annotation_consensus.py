"""Consensus of four annotators against each of them, on evaluation cells that none was trained on.

    python benchmarks/annotation_consensus.py --data ../shared/data [--model sccello-small] [--json out.json]

Annotators: this package (`tl.annotate_novel` with the shipped model), CellTypist, logistic regression and marker scores. CellTypist and
logistic regression are fitted to the sample of training cells of `annotation.py`, the scale of the marker scores to cells/train. popV's majority vote counts identical labels; its
score is the number of annotators that agree. Reported per file: accuracy and mean recall (a subtype of the truth is correct),
hierarchical F1, and the AUROC of agreement and of popV's score for correct against wrong predictions.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections import Counter
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _common import print_table
from annotation_methods import Reference, celltypist_predictions, regression_probabilities
from embedding import EVALUATION, LABEL, N_TOKENS, accepted_answers, log_cp10k
from scipy import sparse
from sklearn.metrics import roc_auc_score

import sccello_tools as sccello
from sccello_tools.metrics import annotation_score, ontology_score
from sccello_tools.tokens import match_gene_names

OURS = "this package"


def marker_weights(data: Path, types: list[str]) -> tuple[list[str], sparse.csr_matrix]:
    """Terms with markers, and unit weights of their positive human markers over the vocabulary, (n_terms, N_TOKENS)."""
    table = pd.read_parquet(data / "markers_by_cl_term.parquet")
    kept = (table["species"] == "Human") & (table["marker_type"] == "positive")
    table = table[kept & table["CL_ID"].isin(types)].drop_duplicates(["CL_ID", "marker"])
    weight = np.log1p(table["ECs_global"].astype(float)) * np.sqrt(table["SPs_global"])
    distinct = table["marker"].unique().tolist()
    token_of = dict(zip(distinct, match_gene_names(distinct, min_matched=1).tokens.tolist()))
    tokens = table["marker"].map(token_of).to_numpy()
    known = tokens >= 0
    terms = sorted(table["CL_ID"].unique())
    rows = table["CL_ID"].map({t: i for i, t in enumerate(terms)}).to_numpy()
    matrix = sparse.csr_matrix(
        (weight.to_numpy()[known], (rows[known], tokens[known])), shape=(len(terms), N_TOKENS)
    )
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return terms, sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, 1e-9)) @ matrix)


def marker_predictions(
    data: Path, train: list[ad.AnnData], types: list[str], queries: dict[str, ad.AnnData]
) -> dict[str, np.ndarray]:
    """Type with the highest weighted mean of standardised expression of its markers."""
    terms, weights = marker_weights(data, types)
    reference = sparse.vstack([log_cp10k(adata) for adata in train]).tocsr()
    genes = np.unique(weights.indices)
    mean = np.asarray(reference[:, genes].mean(axis=0)).ravel()
    square = np.asarray(reference[:, genes].multiply(reference[:, genes]).mean(axis=0)).ravel()
    std = np.sqrt(np.maximum(square - mean**2, 0))
    own = weights[:, genes].toarray()
    found = {}
    for name, query in queries.items():
        z = np.clip((log_cp10k(query)[:, genes].toarray() - mean) / (std + 0.1), -1, 6)
        found[name] = np.array(terms)[(z @ own.T).argmax(axis=1)]
    return found


def majority(predictions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Most frequent label of each cell, the first annotator's among ties, and how many annotators gave it."""
    labels, counts = [], []
    for votes in zip(*predictions):
        frequency = Counter(votes)
        best = max(votes, key=lambda vote: (frequency[vote], -votes.index(vote)))
        labels.append(best)
        counts.append(frequency[best])
    return np.array(labels), np.array(counts)


def auroc(score: np.ndarray, correct: np.ndarray) -> float:
    return (
        float(roc_auc_score(correct, score)) if 0 < correct.sum() < len(correct) else float("nan")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder with cells/ and markers_by_cl_term.parquet"
    )
    parser.add_argument("--model", default="sccello-small")
    parser.add_argument(
        "--reference", type=Path, help="file that keeps the baselines' training matrix"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        print("Skipped: the cells are not shipped. Pass their folder as --data.")
        return
    ontology = sccello.ontology.CellOntology.load()
    train = [ad.read_h5ad(path) for path in sorted((args.data / "cells/train").glob("*.h5ad"))]
    queries = {name: ad.read_h5ad(args.data / f"cells/eval/{name}.h5ad") for name in EVALUATION}
    labels = np.concatenate([adata.obs[LABEL].astype(str).to_numpy() for adata in train])
    types = sorted(set(labels))
    predictions: dict[str, dict[str, np.ndarray]] = {OURS: {}}
    for name, query in queries.items():
        sccello.tl.annotate_novel(query, model=args.model, level="type")
        column = query.obs["sccello_cell_type_ontology_term_id"]
        predictions[OURS][name] = column.astype(object).fillna("").to_numpy(dtype=str)
    reference = Reference.load(args.data, args.reference)
    if importlib.util.find_spec("celltypist"):
        predictions["CellTypist"] = celltypist_predictions(reference, queries)
    predictions["logistic regression"] = {
        name: reference.classes[p.argmax(axis=1)]
        for name, p in regression_probabilities(reference, queries).items()
    }
    predictions["marker scores"] = marker_predictions(args.data, train, types, queries)

    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, query in queries.items():
        truth = query.obs[LABEL].astype(str).to_numpy()
        cells = ad.AnnData(obs=pd.DataFrame(index=query.obs_names))
        for method, own in predictions.items():
            cells.obs[method] = own[name]
        sccello.tl.consensus(cells, list(predictions))
        term = cells.obs["sccello_consensus_ontology_term_id"].astype(object).fillna("")
        agreement = cells.obs["sccello_consensus_agreement"].to_numpy()
        voted, n_equal = majority([own[name] for own in predictions.values()])
        every = {method: own[name] for method, own in predictions.items()}
        every |= {"majority vote (popV)": voted, "consensus": term.to_numpy(dtype=str)}
        confidence = {"majority vote (popV)": n_equal, "consensus": agreement}
        accepted = accepted_answers(truth, set(labels))
        known = np.isin(truth, list(accepted))
        results[name] = {}
        for method, predicted in every.items():
            score = annotation_score(truth, predicted, accepted)
            judged = ontology_score(truth[known], predicted[known], ontology)
            correct = np.array([p in accepted.get(t, ()) for t, p in zip(truth, predicted)])[known]
            results[name][method] = {
                "accuracy": score.accuracy,
                "mean_recall": score.mean_recall,
                "hierarchical_f1": judged.hierarchical_f1,
                "auroc_of_score": auroc(confidence[method][known], correct)
                if method in confidence
                else float("nan"),
            }
    methods = list(next(iter(results.values())))
    rows = []
    for name, found in results.items():
        for method in methods:
            s = found[method]
            rows.append(
                [
                    name if method == methods[0] else "",
                    method,
                    f"{s['accuracy']:.3f} / {s['mean_recall']:.3f}",
                    f"{s['hierarchical_f1']:.3f}",
                    "" if np.isnan(s["auroc_of_score"]) else f"{s['auroc_of_score']:.3f}",
                ]
            )
    for method in methods:
        means = {
            field: np.mean([found[method][field] for found in results.values()])
            for field in ("accuracy", "mean_recall", "hierarchical_f1", "auroc_of_score")
        }
        rows.append(
            [
                "mean" if method == methods[0] else "",
                method,
                f"{means['accuracy']:.3f} / {means['mean_recall']:.3f}",
                f"{means['hierarchical_f1']:.3f}",
                "" if np.isnan(means["auroc_of_score"]) else f"{means['auroc_of_score']:.3f}",
            ]
        )
    print_table(
        "Consensus of annotators",
        ["cells", "method", "accuracy / mean recall", "hierarchical F1", "AUROC of its score"],
        rows,
        "A subtype of the truth is correct. CellTypist is skipped if it is not installed.",
    )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
