"""Annotation of mouse cells by human orthologues, next to human cells of the same types restricted to the same genes.

    python benchmarks/mouse.py --data ../shared/data [--model sccello-small] [--cells 40] [--json out.json] [--docs docs/mouse.md]

Mouse: stomach and intestine (Mouse Cell Atlas, without "Erythroid cell") and lung (Zilionis); human: evaluation cells, which the model
was not trained on. Reported per set of cells: mean recall of `tl.annotate_novel` at the level of types over all types that the model
knows (a subtype is correct), accuracy of a vote of 15 other cells of the same set in the embedding, and the fraction of cells with the
status "known". Human cells get the type of the mouse cells that theirs is a subtype of, so that both are scored at the same level. Three ways to match mouse genes are compared: all orthologues with sums (the default), one-to-one orthologues only, and
symbols in upper case.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from _common import print_table

import sccello_tools as sccello
from sccello_tools.metrics import annotation_score, ontology_score
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

LABEL = "cell_type_ontology_term_id"
KEY = "sccello_cell_type"
MOUSE = ("mca_stomach_intestine", "zilionis_lung")
HUMAN = ("kang_pbmc_2donors", "ovarian_tumour_1donor", "pbmc3k")
ERYTHROID = "CL:0000764"  # not clean in these data
WAYS = ("all orthologues", "one-to-one", "upper case")
N_NEIGHBORS = 15
NONE = "–"  # no such cells
BEGIN, END = "<!-- begin: benchmarks/mouse.py -->", "<!-- end -->"


def gene_ids(names: list[str], way: str) -> NDArray[np.str_]:
    """Human genes of mouse variables."""
    if way == "upper case":
        upper = [name.upper() for name in names]
        return match_gene_names(upper, organism="human").gene_ids
    match = match_gene_names(names, organism="mouse")
    shared = np.isin(names, match.many_to_one) & (way == "one-to-one")
    return np.where(shared, "", match.gene_ids)


def sample(adata: ad.AnnData, n: int) -> ad.AnnData:
    """Draw up to ``n`` cells of each type."""
    rng = np.random.default_rng(0)
    types = adata.obs[LABEL].astype(str).to_numpy()
    rows = [rng.permutation(np.flatnonzero(types == kind))[:n] for kind in np.unique(types)]
    return adata[np.sort(np.concatenate(rows))].copy()


def same_type(term: str, types: set[str], ontology: CellOntology) -> str:
    """Return the most specific of ``types`` that a term is or belongs to; "" if there is none."""
    fits = types & ontology.ancestors(term, include_self=True)
    return max(sorted(fits), key=ontology.depth) if fits else ""


def score(adata: ad.AnnData, model: str, ontology: CellOntology) -> dict[str, Any]:
    """Annotate cells and score the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sccello.tl.annotate_novel(adata, model=model, level="type", return_scores=True)
    known = set(adata.obsm[f"{KEY}_scores"].columns)
    truth = adata.obs[LABEL].astype(str).to_numpy()
    accepted = {t: {t, *ontology.descendants(t)} for t in np.unique(truth)}
    accepted = {t: terms for t, terms in accepted.items() if terms & known}
    found = adata.obs[f"{KEY}_ontology_term_id"].astype(object).fillna("").to_numpy(dtype=str)
    scored = np.isin(truth, list(accepted))
    points = adata.obsm["X_sccello"]
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    similarity = points @ points.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :N_NEIGHBORS]
    types, codes = np.unique(truth, return_inverse=True)
    votes = np.stack([(codes[nearest] == code).sum(axis=1) for code in range(len(types))], axis=1)
    correct = np.array([p in accepted.get(t, ()) for t, p in zip(truth, found)])
    return {
        "n_cells": adata.n_obs,
        "n_tokens": float(np.median(adata.obs["sccello_n_tokens"])),
        "n_types_known": len(accepted),
        "mean_recall": annotation_score(truth, found, accepted).mean_recall,
        "hierarchical_f1": ontology_score(truth[scored], found[scored], ontology).hierarchical_f1,
        "neighbours": float((types[votes.argmax(axis=1)] == truth).mean()),
        "status_known": float((adata.obs[f"{KEY}_status"] == "known").mean()),
        "recall": {
            t: [float(correct[truth == t].mean()), int((truth == t).sum())] for t in accepted
        },
    }


def report(results: dict[str, dict[str, Any]], ontology: CellOntology, model: str) -> str:
    """Return the tables of the documentation."""
    sets = [
        "| cells | genes | fraction of counts | known types | mean recall | hierarchical F1 | 15 neighbours | status known |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results.items():
        sets.append(
            f"| {name.replace('_', ' ')} | {row['n_genes']:,} | {row['fraction_of_counts']:.2f} | {row['n_types_known']} | "
            f"{row['mean_recall']:.2f} | {row['hierarchical_f1']:.2f} | {row['neighbours']:.2f} | {row['status_known']:.2f} |"
        )
    kinds = {
        "mouse": [n for n in results if n.startswith("mouse") and n.endswith(WAYS[0])],
        "human, same genes": [n for n in results if ", genes of " in n],
        "human, all genes": [n for n in results if n.endswith("all genes")],
    }
    types = {
        t: {kind: pooled(results, names, t) for kind, names in kinds.items()}
        for t in sorted(
            {t for n in kinds["mouse"] for t in results[n]["recall"]}, key=ontology.name
        )
    }
    rows = [f"| type | {' | '.join(kinds)} |", "| --- |" + " --- |" * len(kinds)]
    rows += [f"| {ontology.name(t)} | {' | '.join(found.values())} |" for t, found in types.items()]
    shared = [f for f in types.values() if NONE not in f.values()]
    means = [np.mean([float(f[kind].split()[0]) for f in shared]) for kind in kinds]
    rows.append(
        f"| **mean of the {len(shared)} types with human cells** | {' | '.join(f'**{m:.2f}**' for m in means)} |"
    )
    return (
        f"Model `{model}`, up to 40 cells per type and data set.\n\n" + "\n".join(sets) + "\n\n"
        "Recall by type, with the number of cells:\n\n" + "\n".join(rows)
    )


def pooled(results: dict[str, dict[str, Any]], names: list[str], term: str) -> str:
    """Return the recall of a type over the cells of several sets."""
    found = [results[n]["recall"][term] for n in names if term in results[n]["recall"]]
    total = sum(n for _, n in found)
    return f"{sum(r * n for r, n in found) / total:.2f} ({total})" if total else NONE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with mouse/ and cells/eval/")
    parser.add_argument("--model", default="sccello-small")
    parser.add_argument("--cells", type=int, default=40, help="cells per type")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path, help="page whose tables are replaced")
    args = parser.parse_args()
    if args.data is None:
        print("Skipped: the cells are not shipped. Pass their folder as --data.")
        return
    ontology = CellOntology.load()
    results: dict[str, dict[str, Any]] = {}
    covered: dict[str, set[str]] = {}
    mouse_types: set[str] = set()
    for name in MOUSE:
        cells = ad.read_h5ad(args.data / "mouse" / f"{name}.h5ad")
        cells = sample(cells[cells.obs[LABEL] != ERYTHROID].copy(), args.cells)
        mouse_types |= set(cells.obs[LABEL].astype(str))
        for way in WAYS:
            adata = cells.copy()
            adata.var["gene"] = gene_ids(adata.var_names.tolist(), way)
            sccello.pp.match_genes(adata, gene_ids="gene")
            matched = (adata.var["gene"] != "").to_numpy()
            if way == WAYS[0]:
                covered[name] = set(adata.var["gene"]) - {""}
            results[f"mouse {name}, {way}"] = {
                "n_genes": adata.var["gene"][matched].nunique(),
                "fraction_of_counts": float(adata.X[:, matched].sum() / adata.X.sum()),
                **score(adata, args.model, ontology),
            }
    for name in HUMAN:
        cells = ad.read_h5ad(args.data / "cells" / "eval" / f"{name}.h5ad")
        types = cells.obs[LABEL].astype(str).map(lambda t: same_type(t, mouse_types, ontology))
        cells.obs[LABEL] = types
        cells = sample(cells[types != ""].copy(), args.cells)
        genes = match_gene_names(cells.var_names.tolist()).gene_ids
        for which, kept in [
            ("all genes", genes != ""),
            *((f"genes of {m}", np.isin(genes, list(c))) for m, c in covered.items()),
        ]:
            adata = cells[:, kept].copy()
            results[f"human {name}, {which}"] = {
                "n_genes": len(set(genes[kept])),
                "fraction_of_counts": float(adata.X.sum() / cells.X.sum()),
                **score(adata, args.model, ontology),
            }
    rows = [
        [
            name,
            f"{found['n_cells']} ({found['n_types_known']} known types)",
            f"{found['n_genes']:,} / {found['fraction_of_counts']:.2f} / {found['n_tokens']:.0f}",
            f"{found['mean_recall']:.3f}",
            f"{found['hierarchical_f1']:.3f}",
            f"{found['neighbours']:.3f}",
            f"{found['status_known']:.2f}",
        ]
        for name, found in results.items()
    ]
    print_table(
        "Mouse cells",
        [
            "cells, genes",
            "cells",
            "genes / fraction of counts / tokens",
            "mean recall",
            "hierarchical F1",
            "15 neighbours",
            "known",
        ],
        rows,
        "Mean recall over the types that the model knows; neighbours are other cells of the same set.",
    )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.docs:
        text = args.docs.read_text()
        start, end = (text.index(mark) for mark in (BEGIN, END))
        tables = report(results, ontology, sccello.models.load(args.model, device="cpu").name)
        args.docs.write_text(f"{text[: start + len(BEGIN)]}\n\n{tables}\n\n{text[end:]}")


if __name__ == "__main__":
    main()
