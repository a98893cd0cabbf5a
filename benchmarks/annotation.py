"""Annotation of cells that were never used for training: known and unseen types, novelty, coverage, gene panels.

    python benchmarks/annotation.py --data ../shared/data --model runs/sccello-small-eval --shipped sccello-small --json out.json

`--model` is the evaluation twin: dendritic, PP and regulatory T cells are unknown to it, so that unseen types, novelty and open-world terms
are scored with it. `--shipped` is scored on known types and coverage as well. Baselines are fitted to a sample of the twin's training cells,
synthetic cells included. A package without marker evidence can be scored, too; it lacks some columns.
"""

from __future__ import annotations

import argparse
import json
import time
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch
from _common import print_table
from annotation_methods import (
    Reference,
    celltypist_predictions,
    neighbor_predictions,
    neighbour_scores,
    novelty_baselines,
    onclass_scores,
    regression_probabilities,
)
from embedding import EVALUATION, LABEL, accepted_answers

import sccello_tools as sccello
from sccello_tools.annotation import resolve_candidates
from sccello_tools.metrics import (
    accuracy_at,
    annotation_score,
    ontology_score,
    open_set_auroc,
    reliability,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel
    from sccello_tools.ontology import CellOntology

UNSEEN = {
    "heldout_types_kang": "CL:0000451",
    "heldout_types_pancreas": "CL:0002275",
    "heldout_types_zheng": "CL:0000815",
}
OPEN_SET = ("kang_pbmc_2donors", "pancreas_tritschler", "pbmc3k")
"""Files with known and unseen types."""
TISSUES = {
    "kang_pbmc_2donors": "blood",
    "ovarian_tumour_1donor": "ovary",
    "pancreas_tritschler": "pancreas",
    "pbmc3k": "blood",
}
LUNG_LINES = "lung_lines_mixology"
N_OTHERS, N_DRAWS = 100, 10
PANELS = (50, 100, 200, 300, 500, 1_000)
N_PANEL_DRAWS = 2
PREVIOUS = "previous bundled model"
HAS_EVIDENCE = "evidence" in signature(sccello.tl.annotate_novel).parameters


def current(labels: Iterable[object], ontology: CellOntology) -> NDArray[np.str_]:
    """Replace obsolete ids."""
    return np.array([ontology.current(str(t)) if str(t).startswith("CL:") else "" for t in labels])


class Truth:
    """True types of the cells of a file, and which of them a model knows."""

    def __init__(self, adata: ad.AnnData, known: Iterable[str], taught: set[str], ontology: CellOntology) -> None:  # fmt: skip
        self.labels = current(adata.obs[LABEL], ontology)
        self.ontology = ontology
        above_known = {a for t in known for a in ontology.ancestors(t, include_self=True)}
        self.known = np.isin(self.labels, list(above_known))
        self.novel = np.isin(self.labels, list(UNSEEN.values()))
        self.accepted = accepted_answers(self.labels, taught)

    def right(self, terms: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Whether each term is the true type, above or below it."""
        up = {t: self.ontology.ancestors(t, include_self=True) if t in self.ontology else {t} for t in {*terms, *self.labels}}  # fmt: skip
        return np.array([g in up[t] or t in up[g] for g, t in zip(terms, self.labels)])


def annotated(adata: ad.AnnData, model: LoadedModel, key: str, **options: Any) -> NDArray[np.str_]:
    """Annotate cells and return the ids of their terms."""
    sccello.tl.annotate_novel(adata, model=model, key_added=key, **options)
    return adata.obs[f"{key}_ontology_term_id"].astype(str).to_numpy()


def is_novel(adata: ad.AnnData, key: str) -> NDArray[np.bool_]:
    """Whether each cell was called novel."""
    return adata.obs[f"{key}_status"].astype(str).isin(["novel_subtype", "unknown"]).to_numpy()


def known_types(queries: dict[str, ad.AnnData], truths: dict[str, Truth], models: dict[str, LoadedModel], reference: Reference | None, before: dict[str, Any], *, celltypist: bool) -> dict[str, Any]:  # fmt: skip
    """Accuracy and mean recall of known types by method and file, and recall of each type."""
    predictions: dict[str, dict[str, NDArray[np.str_]]] = {}
    for label, model in models.items():
        variants: dict[str, dict[str, Any]] = {
            label: {},
            f"{label}, tissue given": {"tissue": None},
        }
        if HAS_EVIDENCE:
            variants[f"{label}, without markers"] = {"evidence": ("embedding", "ontology")}
        for name, options in variants.items():
            predictions[name] = {}
            for file in EVALUATION:
                query = queries[file].copy()
                given = {k: TISSUES[file] if k == "tissue" else v for k, v in options.items()}
                try:
                    predictions[name][file] = annotated(query, model, "x", level="type", **given)
                except (
                    sccello.errors.LabelError
                ) as error:  # a tissue that the model has no record of
                    print(f"{name}, {file}: {error}")
                    predictions[name][file] = annotated(query, model, "x", level="type")
    if HAS_EVIDENCE:
        predictions["marker scores alone"] = {
            file: marker_predictions(queries[file], models) for file in EVALUATION
        }
    if reference is not None:
        predictions["logistic regression"] = {
            f: reference.classes[p.argmax(1)]
            for f, p in regression_probabilities(reference, queries).items()
            if f in EVALUATION
        }
        predictions["PCA-50 + 15 neighbours"] = neighbor_predictions(
            reference, {f: queries[f] for f in EVALUATION}
        )
        if celltypist:
            predictions["CellTypist"] = celltypist_predictions(
                reference, {f: queries[f] for f in EVALUATION}
            )
    scores: dict[str, dict[str, list[float]]] = {}
    by_type: dict[str, dict[str, dict[str, list[float]]]] = {}
    for file in EVALUATION:
        truth = truths[file]
        scores[file], by_type[file] = {}, {}
        asked = np.isin(truth.labels, list(truth.accepted))
        for method, found in predictions.items():
            score = annotation_score(truth.labels, found[file], truth.accepted)
            f1 = ontology_score(truth.labels[asked], found[file][asked], truth.ontology).hierarchical_f1  # fmt: skip
            scores[file][method] = [score.accuracy, score.mean_recall, f1]
            by_type[file][method] = {
                t: [float(np.isin(found[file][truth.labels == t], list(answers)).mean()), int((truth.labels == t).sum())]
                for t, answers in truth.accepted.items()
            }  # fmt: skip
        if before:
            scores[file][PREVIOUS] = before["known"]["scores"][file]["evaluation twin"]
    methods = list(scores[EVALUATION[0]])
    rows = []
    for method in methods:
        values = np.array([scores[file][method] for file in EVALUATION])
        rows.append([method, *(f"{a:.3f} / {r:.3f}" for a, r, _ in values), *(f"{x:.3f}" for x in values.mean(0))])  # fmt: skip
    print_table(
        "Known types: accuracy / mean recall (a subtype counts as correct)",
        ["method", *EVALUATION, "mean accuracy", "mean recall", "mean hierarchical F1"],
        rows,
        "Baselines: at most 100 measured cells per file and label and 8,000 synthetic cells of the twin's training data, 4,000 variable genes.",
    )
    return {"scores": scores, "by_type": by_type}


def marker_predictions(query: ad.AnnData, models: dict[str, LoadedModel]) -> NDArray[np.str_]:
    """The known type with the highest marker score."""
    from sccello_tools.annotation import evidence_of

    known = evidence_of(next(iter(models.values()))).known.types
    scored = query.copy()
    sccello.tl.score_markers(scored, key_added="markers")
    table = scored.obsm["markers"]
    columns = [t for t in known if t in table]
    return np.array(columns)[table[columns].to_numpy().argmax(1)]


def unseen_types(queries: dict[str, ad.AnnData], model: LoadedModel, known: tuple[str, ...], reference: Reference | None, before: dict[str, Any], ontology: CellOntology) -> dict[str, Any]:  # fmt: skip
    """Assign cells of unseen types to one of 103 candidates."""
    others = resolve_candidates(None, ontology, exclude=[*known, *UNSEEN.values()])
    variants: dict[str, dict[str, Any]] = {"all evidence": {}, "published score": {"method": "published"}}  # fmt: skip
    if HAS_EVIDENCE:
        variants["markers alone"] = {"evidence": ("markers",)}
        variants["without markers"] = {"evidence": ("embedding", "ontology")}
    probabilities = {} if reference is None else regression_probabilities(reference, {f: queries[f] for f in UNSEEN})  # fmt: skip
    draws: list[dict[str, dict[str, list[float]]]] = []
    for seed in range(N_DRAWS):
        rng = np.random.default_rng(seed)
        terms = (*UNSEEN.values(), *rng.choice(others, N_OTHERS, replace=False).tolist())
        found: dict[str, dict[str, list[float]]] = {}
        for file, truth in UNSEEN.items():
            ranked = {}
            for name, options in variants.items():
                query = queries[file]
                annotated(query, model, "among", candidates=list(terms), return_scores=True, **options)  # fmt: skip
                ranked[name] = query.obsm["among_scores"][list(terms)].to_numpy()
            if reference is not None:
                p = probabilities[file]
                place = np.array([str(c) in ontology for c in reference.classes])
                classes = reference.classes[place].tolist()
                ranked["child or sibling of the type of logistic regression"] = neighbour_scores(
                    reference.classes[p.argmax(1)], terms, rng
                )
                ranked["OnClass's idea on logistic regression"] = onclass_scores(p[:, place], classes, terms)  # fmt: skip
            found[file] = {}
            truths = np.full(queries[file].n_obs, truth)
            for name, scores in ranked.items():
                first = np.array(terms)[scores.argmax(axis=1)]
                found[file][name] = [
                    accuracy_at(scores, terms, truths, 1),
                    accuracy_at(scores, terms, truths, 5),
                    ontology_score(truths, first, ontology).hierarchical_f1,
                ]
        draws.append(found)
    rows = []
    for name in draws[0][next(iter(UNSEEN))]:
        table = np.array([[draw[file][name] for file in UNSEEN] for draw in draws])
        mean, spread = table.mean((0, 1)), table.mean(1).std(0)
        rows.append([name, *(f"{v:.3f}" for v in table.mean(0)[:, 0]), *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread))])  # fmt: skip
    found_means = {name: {file: np.mean([d[file][name] for d in draws], axis=0).tolist() for file in UNSEEN} for name in draws[0][next(iter(UNSEEN))]}  # fmt: skip
    if before:
        found_means[PREVIOUS] = before["unseen"]["all evidence"]
        means = np.array([found_means[PREVIOUS][file] for file in UNSEEN])
        rows.append(
            [PREVIOUS, *(f"{v:.3f}" for v in means[:, 0]), *(f"{v:.3f}" for v in means.mean(0))]
        )
    print_table(
        f"Unseen types among {N_OTHERS + 3} candidates, {N_DRAWS} draws",
        ["method", *UNSEEN, "accuracy", "accuracy at 5", "hierarchical F1"],
        rows,
    )
    return found_means


def open_world(queries: dict[str, ad.AnnData], truths: dict[str, Truth], model: LoadedModel, before: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Terms of cells of unseen types without candidates, and the share of cells called novel."""
    out: dict[str, Any] = {}
    rows = []
    for file in (*EVALUATION, *UNSEEN):
        query, truth = queries[file], truths[file]
        typed = annotated(query, model, "typed", level="type")
        backed = annotated(query, model, "auto")
        novel = is_novel(query, "auto")
        entry: dict[str, Any] = {"known_called_novel": float(novel[truth.known].mean()) if truth.known.any() else None}  # fmt: skip
        if truth.novel.any():
            labels = truth.labels[truth.novel]
            best = best_open_terms(query, model)
            for name, terms in (("end_to_end", typed), ("end_to_end_backed_off", backed), ("best_open_term", best)):  # fmt: skip
                if terms is not None:
                    given = terms[truth.novel]
                    entry[name] = [
                        float((given == labels).mean()),
                        ontology_score(labels, given, truth.ontology).hierarchical_f1,
                    ]
            entry["found"] = float(novel[truth.novel].mean())
            entry["n_novel"] = int(truth.novel.sum())
        out[file] = entry
        if before:
            entry[PREVIOUS] = before["open_world"][file]
        rows.append([file, cell(entry["known_called_novel"]), *(cell(entry.get(k)) for k in ("found", "best_open_term", "end_to_end", "end_to_end_backed_off")), *(cell(entry[PREVIOUS].get(k)) for k in ("known_called_novel", "found", "end_to_end") if before)])  # fmt: skip
    print_table(
        "Open world, no candidates: exact term / hierarchical F1 of cells of unseen types",
        ["file", "known cells called novel", "unseen cells called novel", "best open term", "assigned, level='type'", "assigned, level='auto'", *(["previous: known called novel", "previous: unseen called novel", "previous: assigned"] if before else [])],
        rows,
    )  # fmt: skip
    return out


def cell(value: float | list[float] | None) -> str:
    """A number, or a pair, of a table."""
    if value is None:
        return ""
    return " / ".join(f"{v:.3f}" for v in np.atleast_1d(value))


def best_open_terms(query: ad.AnnData, model: LoadedModel) -> NDArray[np.str_] | None:
    """The best open term of every cell, whether it is called novel or not."""
    if not HAS_EVIDENCE:
        return None
    annotator, hidden, cell, counts = annotator_of(query, model)
    part = annotator.partial(hidden, cell, counts)
    return np.array(annotator.model.space.open)[part.open_term]


def annotator_of(query: ad.AnnData, model: LoadedModel) -> tuple[Any, NDArray[np.float32], NDArray[np.float32], Any]:  # fmt: skip
    """Annotator in the inferred tissues, both representations and counts by token."""
    from embedding import token_counts

    from sccello_tools.annotation import CellMarkers, OpenWorldAnnotator, evidence_of
    from sccello_tools.tokens import match_gene_names

    ontology = sccello.ontology.CellOntology.load()
    fit = evidence_of(model)
    hidden = np.asarray(query.obsm["X_sccello"], dtype=np.float32)
    with torch.inference_mode():
        cell = model.network.cell_representation(torch.from_numpy(hidden)).numpy()
    matched = match_gene_names(query.var_names).tokens
    counts = token_counts(query)
    tokens = np.where(np.isin(np.arange(counts.shape[1]), matched), np.arange(counts.shape[1]), -1)
    annotator = OpenWorldAnnotator.of(fit, ontology, CellMarkers.load(), tokens=tokens)
    if fit.tissues is not None:
        fractions = fit.tissues.infer(annotator.known_probabilities(hidden, cell))
        annotator = annotator.in_tissue(fractions @ fit.tissues.weights)
    return annotator, hidden, cell, counts


def open_set(queries: dict[str, ad.AnnData], truths: dict[str, Truth], model: LoadedModel, reference: Reference | None, before: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """AUROC of cells of unseen types against known ones of the same file."""
    out: dict[str, dict[str, float]] = {}
    regression = {} if reference is None else regression_probabilities(reference, {f: queries[f] for f in OPEN_SET})  # fmt: skip
    for file in OPEN_SET:
        query, truth = queries[file], truths[file]
        annotated(query, model, "scored", return_scores=True)
        asked = truth.known | truth.novel
        probabilities = query.obsm["scored_scores"].to_numpy()
        scores = {
            "novelty": query.obs["sccello_novelty"].to_numpy(),
            "1 - largest probability": 1 - probabilities.max(1),
        }
        if HAS_EVIDENCE and reference is not None:
            scores |= novelty_baselines(*annotator_of(query, model), reference, model)
        if reference is not None:
            scores["logistic regression: 1 - largest probability"] = 1 - regression[file].max(1)
        out[file] = {name: open_set_auroc(np.asarray(s, float)[asked], truth.novel[asked]) for name, s in scores.items()}  # fmt: skip
        if before:
            out[file][PREVIOUS] = before["open_set"][file]["novelty"]
    methods = list(out[OPEN_SET[0]])
    rows = [[m, *(f"{out[f][m]:.3f}" for f in OPEN_SET), f"{np.mean([out[f][m] for f in OPEN_SET]):.3f}"] for m in methods]  # fmt: skip
    print_table("Open set: AUROC of cells of unseen types against known ones", ["score", *OPEN_SET, "mean"], rows)  # fmt: skip
    return out


def coverage(queries: dict[str, ad.AnnData], truths: dict[str, Truth], models: dict[str, LoadedModel], before: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Share of correct terms at nominal 90 %, calibration error, share of cells with a most specific term."""
    out: dict[str, Any] = {}
    rows = []
    for label, model in models.items():
        out[label] = {}
        for file in EVALUATION:
            query, truth = queries[file].copy(), truths[file]
            backed = annotated(query, model, "auto")
            typed = annotated(query, model, "typed", level="type")
            kept = truth.known & ~is_novel(query, "auto")
            right = truth.right(backed)
            confidence = query.obs["auto_confidence"].to_numpy().astype(float)
            out[label][file] = {
                "coverage": float(right[truth.known].mean()),
                "coverage_not_novel": float(right[kept].mean()),
                "calibration_error": reliability(confidence[kept], right[kept]).error,
                "specific": float((backed == typed)[kept].mean()),
                "coverage_of_types": float(truth.right(typed)[truth.known].mean()),
            }
            rows.append([label, file, *(f"{v:.3f}" for v in out[label][file].values())])
    if before:
        out[PREVIOUS] = before["coverage"]["evaluation twin"]
        rows += [[PREVIOUS, file, *(f"{v:.3f}" for v in row.values())] for file, row in out[PREVIOUS].items()]  # fmt: skip
    print_table(
        "Coverage at nominal 90 % of cells of known types",
        ["model", "file", "all known cells", "not called novel", "calibration error", "fraction without back-off", "coverage without back-off"],
        rows,
    )  # fmt: skip
    return out


def panels(queries: dict[str, ad.AnnData], truths: dict[str, Truth], model: LoadedModel, before: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Mean recall and coverage with random and curated gene panels."""
    from embedding import token_counts

    from sccello_tools.tokens import match_gene_names

    out: dict[str, Any] = {}
    for file in EVALUATION:
        query, truth = queries[file], truths[file]
        counts = token_counts(query)
        detected = np.asarray((counts > 0).mean(0)).ravel()
        tokens = match_gene_names(query.var_names).tokens
        rate = np.where(tokens >= 0, detected[np.maximum(tokens, 0)], 0)
        column = np.flatnonzero(rate > 0.005)
        curated = curated_columns(tokens) if HAS_EVIDENCE else column
        for size in (*PANELS, 0):
            kinds = ("random", *(("curated",) if HAS_EVIDENCE else ()))
            for kind in kinds if size else ("all genes",):
                for draw in range(N_PANEL_DRAWS if kind == "random" else 1):
                    rng = np.random.default_rng((draw, size))
                    if kind == "random":
                        p = rate[column] / rate[column].sum()
                        chosen = rng.choice(column, min(size, len(column)), replace=False, p=p)
                    elif kind == "curated":
                        chosen = curated[:size]
                    else:
                        chosen = np.arange(query.n_vars)
                    panel = ad.AnnData(query.X[:, chosen], obs=query.obs[[LABEL]], var=query.var.iloc[chosen])  # fmt: skip
                    typed = annotated(panel, model, "typed", level="type", min_matched=1)
                    backed = annotated(panel, model, "auto", min_matched=1)
                    score = annotation_score(truth.labels, typed, truth.accepted)
                    novel = is_novel(panel, "auto")
                    out.setdefault(kind, {}).setdefault(str(size), []).append(
                        [score.accuracy, score.mean_recall, float(truth.right(backed)[truth.known].mean()), float(novel[truth.known].mean())]
                    )  # fmt: skip
    means = {kind: {size: np.mean(v, axis=0).tolist() for size, v in sizes.items()} for kind, sizes in out.items()}  # fmt: skip
    means |= {f"{PREVIOUS}, {kind}": sizes for kind, sizes in before.get("panels", {}).items() if kind != "curated"}  # fmt: skip
    rows = [[kind, size if size != "0" else "all", *(f"{v:.3f}" for v in values)] for kind, sizes in means.items() for size, values in sizes.items()]  # fmt: skip
    print_table(
        "Gene panels, mean over files",
        ["panel", "genes", "accuracy", "mean recall", "coverage", "known cells called novel"],
        rows,
        "Random panels draw genes in proportion to the fraction of cells that express them; curated panels take the best marker genes of all terms in turn.",
    )
    return means


def curated_columns(tokens: NDArray[np.integer]) -> NDArray[np.intp]:
    """Columns of the best markers of all terms, one of each term in turn, without repeats."""
    from sccello_tools.annotation import CellMarkers
    from sccello_tools.tokens import GeneVocabulary

    token_of = GeneVocabulary.load().token_of
    table = CellMarkers.load().table
    table = table[table.positive].sort_values("weight", ascending=False, kind="stable")
    rank = table.groupby("cell_type_ontology_term_id").cumcount()
    order = [token_of[g] for g in table.assign(rank=rank).sort_values(["rank", "weight"], ascending=[True, False], kind="stable").gene_id]  # fmt: skip
    place = {int(t): i for i, t in reversed(list(enumerate(tokens))) if t >= 0}
    return np.array([place[t] for t in dict.fromkeys(order) if t in place])


def lung_lines(path: Path, model: LoadedModel) -> dict[str, Any]:
    """Terms of five lung cancer lines, which no model knows."""
    query = ad.read_h5ad(path)
    terms = annotated(query, model, "auto")
    names, counts = np.unique(terms, return_counts=True)
    order = np.argsort(-counts)[:6]
    ontology = sccello.ontology.CellOntology.load()
    top = {ontology.name(str(names[i])): int(counts[i]) for i in order}
    share = float(is_novel(query, "auto").mean())
    print(f"Lung cancer lines: {share:.3f} called novel; {top}")
    return {"novel": share, "terms": top}


def speed(query: ad.AnnData, model: LoadedModel, n_cells: int = 20_000) -> dict[str, float]:
    """Cells annotated per second of one core, given their embedding."""
    rows = np.random.default_rng(0).integers(query.n_obs, size=n_cells)
    many = ad.AnnData(query.X[rows], obsm={"X_sccello": query.obsm["X_sccello"][rows]}, uns=query.uns, var=query.var)  # fmt: skip
    annotated(many[:500].copy(), model, "warm_up")
    started, cpu = time.perf_counter(), time.process_time()
    annotated(many, model, "timed", use_rep="X_sccello")
    found = {"cells_per_second": n_cells / (time.perf_counter() - started), "cells_per_cpu_second": n_cells / (time.process_time() - cpu)}  # fmt: skip
    print(f"Annotation of embedded cells: {found['cells_per_second']:,.0f} cells/s, {found['cells_per_cpu_second']:,.0f} per CPU second")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="sccello-small", help="evaluation twin")
    parser.add_argument("--shipped", help="model that knows the held-out types")
    parser.add_argument("--celltypist", action="store_true", help="also train CellTypist (minutes)")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument(
        "--reference", type=Path, help="file that keeps the baselines' training matrix"
    )
    parser.add_argument(
        "--before", type=Path, help="results of this script for another model, shown beside"
    )
    parser.add_argument("--skip", nargs="*", default=[], choices=["unseen", "panels", "speed"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        print("Skipped: the training and evaluation cells are not part of the package. Pass their folder in --data.")  # fmt: skip
        return
    sccello.settings.verbosity = "error"
    ontology = sccello.ontology.CellOntology.load()
    folder = args.data / "cells" / "eval"
    twin = sccello.models.load(args.model, device="cpu")
    models = {"evaluation twin": twin}
    if args.shipped:
        models["shipped model"] = sccello.models.load(args.shipped, device="cpu")
    if HAS_EVIDENCE:
        from sccello_tools.annotation import evidence_of

        known = evidence_of(twin).known.types
    else:
        known = tuple(twin.prototypes.ids)
    taught = {str(t) for path in sorted((args.data / "cells" / "train").glob("*.h5ad")) for t in current(ad.read_h5ad(path, backed="r").obs[LABEL], ontology)}  # fmt: skip
    queries = {name: ad.read_h5ad(folder / f"{name}.h5ad") for name in (*EVALUATION, *UNSEEN)}
    for adata in queries.values():
        sccello.tl.embed(adata, model=twin)
    truths = {name: Truth(adata, known, taught, ontology) for name, adata in queries.items()}
    reference = None if args.no_baselines else Reference.load(args.data, args.reference)

    before = json.loads(args.before.read_text()) if args.before else {}

    out: dict[str, Any] = {"models": {label: [m.name, m.sha256] for label, m in models.items()}}
    out["known"] = known_types(
        queries, truths, models, reference, before, celltypist=args.celltypist
    )
    out["coverage"] = coverage(queries, truths, models, before)
    out["open_world"] = open_world(queries, truths, twin, before)
    out["open_set"] = open_set(queries, truths, twin, reference, before)
    if "unseen" not in args.skip:
        out["unseen"] = unseen_types(queries, twin, known, reference, before, ontology)
    out["lung_lines"] = lung_lines(folder / f"{LUNG_LINES}.h5ad", twin)
    if "speed" not in args.skip:
        out["speed"] = speed(queries["pbmc3k"], twin)
    if "panels" not in args.skip:
        out["panels"] = panels(queries, truths, twin, before)
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
