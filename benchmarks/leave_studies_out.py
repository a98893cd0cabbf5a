"""Known types of studies left out: this package's recipe, logistic regression, neighbours, CellTypist and scANVI on the same cells.

    python scripts/leave_studies_out.py --data ../shared/data --seeds 0 --out runs/leave_studies_out.json
    python benchmarks/leave_studies_out.py --data ../shared/data --recipe runs/leave_studies_out.json --json out.json

Each fold holds out all studies of some organs together. Baselines are fitted to a sample of what the recipe trains on: at most 100 measured cells
per file and label, and 8,000 synthetic cells. Scores are the mean recall over a study's types (a subtype counts as correct) and
hierarchical F1. Tissues are inferred by the recipe, and not used by the other methods. scANVI, which is fitted to each file without its
labels, gets at most 25 cells per file and label. `--annotation` adds the full annotation with markers and novelty,
by the same fold models, of at most 25 cells per study and type; its 13 evidence weights were fitted to these studies.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _common import print_table

if TYPE_CHECKING:
    from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

METHODS = ("logistic regression", "PCA-50 + 15 neighbours", "CellTypist", "scANVI")
RECIPE = "this package's classifier, without markers"
ANNOTATION = "tl.annotate_novel"
MIN_CELLS = 8  # of a type in a study, as in scripts/leave_studies_out.py


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path)
    parser.add_argument("--recipe", type=Path, help="results of scripts/leave_studies_out.py")
    parser.add_argument("--annotation", type=Path, help="results of scripts/calibrate_bundled_model.py --report")  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--json", type=Path, help="results so far are read from here, and added")
    args = parser.parse_args()
    if args.data is None:
        print("Skipped: the training cells are not part of the package. Pass their folder in --data.")  # fmt: skip
        return
    found: dict[str, dict[str, list[float]]] = (
        json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    )
    score_baselines(args, found)
    if args.recipe:
        found |= recipe_scores(json.loads(args.recipe.read_text()))
    if args.annotation:
        found |= annotation_scores(json.loads(args.annotation.read_text()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print_results(found)


def score_baselines(args: argparse.Namespace, found: dict[str, dict[str, list[float]]]) -> None:
    """Add the scores of each method and study that are not in the results yet."""
    from annotation_methods import (
        Reference,
        celltypist_predictions,
        neighbor_predictions,
        regression_probabilities,
        scanvi_predictions,
    )
    from leave_studies_out import FOLDS, scores, split
    from recipe.setup import prepare, read_sources

    from sccello_tools.ontology import CellOntology

    ontology = CellOntology.load()
    cells, profiles = read_sources(args.data, ontology, twin=True)
    for number in args.folds:
        fold = list(FOLDS)[number]
        train, test, kept = split(cells, profiles, fold)
        missing = [m for m in args.methods if fold not in found.get(f"{m}|folds", {})]
        if not missing:
            continue
        data = prepare(train, kept, ontology, twin=True)
        reference = Reference.of(data)
        for method in missing:
            started = time.monotonic()
            asked = test.take(some_of_each(test)) if method == "scANVI" else test
            files = asked.obs.file.to_numpy().astype(str)
            rows = {file: np.flatnonzero(files == file) for file in np.unique(files)}
            queries = {file: asked.counts[own] for file, own in rows.items()}
            if method == "logistic regression":
                p = regression_probabilities(reference, queries)
                predicted = {file: reference.classes[of.argmax(1)] for file, of in p.items()}
            elif method == "CellTypist":
                predicted = celltypist_predictions(reference, queries)
            elif method == "scANVI":
                predicted = scanvi_predictions(reference, queries)
            else:
                predicted = neighbor_predictions(reference, queries)
            terms = np.empty(len(files), dtype=object)
            for file, own in rows.items():
                terms[own] = predicted[file]
            # cells without a prediction count as wrong: the root is above every type
            terms[terms == "unknown"] = "CL:0000000"
            scored = scores(terms.astype(str), asked, data.targets.types, ontology)
            found.setdefault(method, {}).update(scored)
            found.setdefault(f"{method}|folds", {})[fold] = [time.monotonic() - started]
            means = np.round(np.mean(list(scored.values()), axis=0), 3).tolist()
            print(f"{method}, {fold}: {means}, {time.monotonic() - started:.0f} s", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))


def some_of_each(cells: Any, n: int = 25, seed: int = 0) -> np.ndarray:
    """Return the rows of at most n cells per file and label, in order.

    scANVI is fitted to each query, and the cost of a step grows with the number of labels.
    """
    rng = np.random.default_rng(seed)
    groups = cells.obs.groupby(["file", "original_label"], observed=True, sort=True).indices
    return np.sort(np.concatenate([rng.permutation(rows)[:n] for rows in groups.values()]))


def recipe_scores(results: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Read the scores of the base recipe with inferred tissues by study, averaged over seeds."""
    by_study: dict[str, list[list[float]]] = {}
    for key, run in results.items():
        arm, *_, last = key.split("|")
        if arm == "base" and last.isdecimal():  # without --set
            for study, values in run["scores"]["tissue inferred"].items():
                by_study.setdefault(study, []).append(values)
    return {RECIPE: {study: np.mean(v, axis=0).tolist() for study, v in by_study.items()}}


def annotation_scores(types: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Average recall and hierarchical F1 of the types of each study."""
    by_study: dict[str, list[list[float]]] = {}
    for row in types:
        if row["n_scored"] >= MIN_CELLS:
            by_study.setdefault(row["study"], []).append([row["recall"], row["hierarchical_f1"]])
    return {ANNOTATION: {study: np.mean(v, axis=0).tolist() for study, v in by_study.items()}}


def print_results(found: dict[str, dict[str, list[float]]]) -> None:
    """Print a table of studies by methods, with means over the studies that all methods have."""
    methods = [m for m in (ANNOTATION, RECIPE, *METHODS) if m in found]
    studies = sorted(set.intersection(*(set(found[m]) for m in methods)))
    rows = [[study, *(f"{found[m][study][0]:.3f}" for m in methods)] for study in studies]
    for place, name in enumerate(("mean recall over studies", "mean hierarchical F1 over studies")):
        rows.append([name, *(f"{np.mean([found[m][s][place] for s in studies]):.3f}" for m in methods)])  # fmt: skip
    print_table(
        "Studies left out: mean recall over types (a subtype counts as correct)",
        ["study", *methods],
        rows,
        "All methods train on measured and synthetic cells of the other studies; baselines on a sample of them. Baselines assign the most probable label, this package "
        "the type of highest expected utility. scANVI is fitted to each file as well, without its labels, and tl.annotate_novel and scANVI annotate at most 25 cells per type and study.",
    )


if __name__ == "__main__":
    main()
