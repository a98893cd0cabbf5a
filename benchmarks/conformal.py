"""Back-off compared with conformal prediction sets on the ontology, at nominal 90 %.

    python scripts/leave_studies_out.py --data ../shared/data --features runs/folds
    python benchmarks/conformal.py --data ../shared/data --folds runs/folds --model runs/sccello-small-eval

All methods use the same probabilities of known types. Split conformal prediction takes one threshold from cells of held-out studies:
for sets of types (all types whose probability reaches it), and for sets of all types below an ancestor (the idea of scConform, written
anew). The package instead takes a threshold for each data set from the confidence of its own cells. Scored are evaluation cells of known types,
which neither the model nor the thresholds have seen. An answer is right if it holds the true type, a type above or below it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from _common import print_table

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.annotation import EvidenceFit
    from sccello_tools.ontology import CellOntology

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
ALPHA = 0.1
N_EACH = 25  # held-out cells per study and type


def calibration_cells(args: argparse.Namespace, fit: EvidenceFit, ontology: CellOntology) -> tuple[NDArray[np.float32], NDArray[np.str_], NDArray[np.float64]]:  # fmt: skip
    """Probabilities of known types, true types and weights of cells of held-out studies."""
    from calibrate_bundled_model import held_out
    from leave_studies_out import FOLDS
    from recipe.setup import read_sources

    from sccello_tools.annotation import CellMarkers, MarkerScorer
    from sccello_tools.annotation.evidence import EvidenceModel
    from sccello_tools.annotation.evidence_weights import scored
    from sccello_tools.annotation.head import softmax
    from sccello_tools.annotation.held_out import HeldOutCells, fold_features, joined
    from sccello_tools.annotation.term_space import TermSpace, human_terms

    markers = CellMarkers.load()
    scorer = MarkerScorer.of(markers, ontology)
    usable = human_terms(ontology)
    terms = [t for t in markers.terms if t in usable]
    space = TermSpace.of(fit.known.types, ontology, markers, candidates=terms)
    model = EvidenceModel.of(space, scorer, fit.weights, ontology)
    cells, profiles = read_sources(args.data, ontology, twin=True)
    probabilities, types, weights = [], [], []
    for i, fold in enumerate(FOLDS):
        rng = np.random.default_rng((0, i))
        out = held_out(args.folds / f"fold_{i}.npz", fold, cells, fit.known.types, profiles, ontology, rng)  # fmt: skip
        features = joined(fold_features(out, model, scorer, modes=("known",)))
        asked = HeldOutCells.of([out.cells], fit.known.types)
        _, scores, _ = scored(features, model, fit.weights)
        probabilities.append(softmax(scores / np.float32(fit.known_temperature)))
        types.append(asked.types[features.rows])
        weights.append(asked.natural_weights(features.rows))
    return np.concatenate(probabilities), np.concatenate(types), np.concatenate(weights)


def compatible(truth: NDArray[np.str_], terms: tuple[str, ...], ontology: CellOntology) -> NDArray[np.bool_]:  # fmt: skip
    """(n_cells, n_terms): whether each term is the true type, above or below it."""
    from sccello_tools.annotation.backoff import TypeHierarchy

    hierarchy = TypeHierarchy(ontology, {})
    distinct = {t: np.array([hierarchy.compatible(k, t) for k in terms]) for t in set(truth.tolist())}  # fmt: skip
    return np.stack([distinct[t] for t in truth.tolist()])


def flat_threshold(p: NDArray[np.float32], right: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:  # fmt: skip
    """Probability that sets of types have to reach: of 1 - alpha of the cells, a right type does."""
    best = np.where(right, p, 0).max(axis=1)
    order = np.argsort(-best, kind="stable")
    cumulated = np.cumsum(weight[order]) / (weight.sum() + weight.mean())
    return float(best[order][min(int(np.searchsorted(cumulated, 1 - ALPHA)), len(order) - 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folds", type=Path, help="folder of leave_studies_out.py --features")
    parser.add_argument("--model", default="sccello-small", help="evaluation twin")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None or args.folds is None:
        print("Skipped: the training and evaluation cells are not part of the package. Pass --data and --folds.")  # fmt: skip
        return
    from annotation import LABEL, Truth, annotator_of
    from embedding import EVALUATION

    import sccello_tools as sccello
    from sccello_tools.annotation import evidence_of
    from sccello_tools.annotation.backoff import Lineages, choose_level
    from sccello_tools.annotation.coverage import (
        assigned_types,
        coverage_threshold,
        pooled_threshold,
        utilities,
    )

    sccello.settings.verbosity = "error"
    ontology = sccello.ontology.CellOntology.load()
    model = sccello.models.load(args.model, device="cpu")
    fit = evidence_of(model)
    known = fit.known.types
    utility = utilities(known, ontology)
    lineages = Lineages.of(known, ontology, broader_types=True)
    n_below = [np.array([sum(t in ontology.ancestors(k, include_self=True) for k in known) for t in c.terms]) for c in lineages.lineages]  # fmt: skip

    p, truth, weight = calibration_cells(args, fit, ontology)
    assigned = assigned_types(p, utility)
    pooled = pooled_threshold(lineages.sums(p, assigned).astype(np.float32), lineages.is_correct(assigned, truth), weight, ALPHA)  # fmt: skip
    flat = flat_threshold(p, compatible(truth, known, ontology), weight)
    print(f"{len(p):,} calibration cells; thresholds {pooled:.3f} (below an ancestor) and {flat:.3f} (sets of types)")  # fmt: skip

    out: dict[str, Any] = {"thresholds": [pooled, flat], "files": {}}
    rows = []
    for file in EVALUATION:
        query = ad.read_h5ad(args.data / "cells" / "eval" / f"{file}.h5ad")
        sccello.tl.embed(query, model=model)
        asked = Truth(query, known, set(), ontology)
        annotator, hidden, cell, counts = annotator_of(query, model)
        scores = annotator.partial(hidden, cell, counts, return_scores=True).scores[asked.known]
        labels = asked.labels[asked.known]
        assigned = assigned_types(scores, utility)
        sums = lineages.sums(scores, assigned).astype(np.float32)
        right = lineages.is_correct(assigned, labels)
        at = np.arange(len(labels))
        found: dict[str, list[float]] = {}
        for name, threshold in (
            ("threshold of the data set (this package)", coverage_threshold(sums, ALPHA)),
            ("conformal sets below an ancestor", pooled),
        ):
            level = choose_level(sums, threshold)
            size = [n_below[k][min(j, len(n_below[k]) - 1)] for k, j in zip(assigned, level, strict=True)]  # fmt: skip
            found[name] = [float(right[at, level].mean()), float(np.mean(size)), float((level == 0).mean())]  # fmt: skip
        member = scores >= flat
        covered = (member & compatible(labels, known, ontology)).any(axis=1)
        found["conformal sets of types"] = [float(covered.mean()), float(member.sum(1).mean()), float((member.sum(1) == 1).mean())]  # fmt: skip
        out["files"][file] = found
        rows += [[file, name, f"{c:.3f}", f"{n:.1f}", f"{s:.3f}"] for name, (c, n, s) in found.items()]  # fmt: skip
    print_table(
        "Coverage at nominal 90 % of cells of known types",
        [
            "file",
            "method",
            "coverage",
            "types in the prediction",
            "fraction without back-off or with one type",
        ],
        rows,
        f"Labels are in obs[{LABEL!r}]. Cells called novel are included. A prediction of an ancestor contains all known types at or below it.",
    )
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
