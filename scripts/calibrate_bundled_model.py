"""Fit the annotation of `sccello-small` or its evaluation twin, and write `annotation.safetensors` into the model's folder.

    python scripts/leave_studies_out.py --data ../shared/data --features runs/folds
    python scripts/calibrate_bundled_model.py --data ../shared/data --model runs/sccello-small-eval --folds runs/folds --twin

Known types, prototypes and distances are fitted to cells drawn as in training (measured cells, in part thinned, and synthetic cells),
embedded by the model itself. Evidence weights, novelty threshold and temperatures come from models that were trained without some of
the studies (`leave_studies_out.py --features`), because the model itself has seen all of them. `cells/eval/` is never read.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from labels.label_space import MALIGNANT, Targets, labels_of, read_label_map, term_of
from leave_studies_out import FOLDS, recorded_in_training, split, unit_of
from recipe.classifier import fit_head, recorded_types, tissue_weights
from recipe.sampling import Batch, SamplingConfig, rank_cells
from recipe.setup import prepare, read_sources
from recipe.training import embed

import sccello_tools as sccello
from sccello_tools.annotation import (
    CellMarkers,
    KnownTypes,
    LabelledCells,
    OpenWorldAnnotator,
    TissueWeights,
    save_evidence,
)
from sccello_tools.annotation.classifier import TypeDistances
from sccello_tools.annotation.features import FeatureScale
from sccello_tools.annotation.fit_evidence import calibrate_evidence
from sccello_tools.annotation.held_out import HeldOut
from sccello_tools.annotation.known_types import CLASSIFIER_TEMPERATURE, mean_directions
from sccello_tools.models.registry import update_entry
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import VOCABULARY_SIZE

if TYPE_CHECKING:
    from recipe.setup import TrainingData
    from recipe.sources import Cells, Profiles

    from sccello_tools.annotation import (
        EvidenceFit,
    )

RESOURCES = Path(sccello.__file__).parent / "resources"
REFERENCE_STEP = 30_000_000  # draws from these steps never train
N_REFERENCE, N_ON_PANELS = 24_000, 4_000
N_HELD_OUT = 25  # cells per study and type
N_SEEN = 15
TEMPERATURE = 2.5
"""Divisor of the logits, chosen on held-out studies together with the weight of marker evidence."""
MIN_CELLS = 3  # of a type, for a centre


def fit_known(hidden: np.ndarray, cell: np.ndarray, labels: np.ndarray, targets: Targets, kept: np.ndarray) -> KnownTypes:  # fmt: skip
    """Fit classifier, prototypes and distances of the ``kept`` types."""
    head = fit_head(hidden, cell, labels, targets)
    exact = targets.exact()
    one = (exact.sum(1) == 1)[labels]
    index = exact.argmax(1)[labels]
    enough = kept & (np.bincount(index[one], minlength=len(kept)) >= MIN_CELLS)
    place = np.cumsum(enough) - 1
    rows = one & enough[index]
    scaled = (hidden[rows] - head.mean) / head.std
    scale = np.float32(CLASSIFIER_TEMPERATURE / TEMPERATURE)
    return KnownTypes(
        tuple(np.array(targets.types)[enough].tolist()),
        FeatureScale(head.mean, head.std),
        np.ascontiguousarray(head.weight.T[enough]) * scale,
        head.bias[enough] * scale,
        mean_directions(cell[rows], place[index[rows]], int(enough.sum())),
        TypeDistances.of(scaled, place[index[rows]], int(enough.sum())),
    )


def only(known: KnownTypes, types: tuple[str, ...]) -> KnownTypes:
    """Return the types that are also in ``types``."""
    rows = np.flatnonzero(np.isin(known.types, types))
    distances = TypeDistances(known.distances.whitening, known.distances.centres[rows])
    return replace(
        known, types=tuple(np.array(known.types)[rows].tolist()), weight=known.weight[rows], bias=known.bias[rows],
        prototypes=known.prototypes[rows], distances=distances,
    )  # fmt: skip


def sample(cells: Cells, types: tuple[str, ...], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return at most n rows per study and type, and how many cells each stands among."""
    terms = np.array([term_of(label) for label in labels_of(cells.obs)])
    units = np.array([unit_of(*pair) for pair in zip(cells.obs.study, cells.obs.file, strict=True)])
    usable = np.flatnonzero(np.isin(terms, types))
    _, group = np.unique(np.char.add(np.char.add(units[usable], "|"), terms[usable]), return_inverse=True)  # fmt: skip
    sizes = np.bincount(group)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(group == g))[:n] for g in range(len(sizes))]
    )
    chosen.sort()
    return usable[chosen], sizes[group[chosen]]


def labelled(cells: Cells, rows: np.ndarray, hidden: np.ndarray, cell: np.ndarray, frequency: np.ndarray) -> LabelledCells:  # fmt: skip
    """Combine embeddings with counts and labels."""
    obs = cells.obs.iloc[rows]
    files, panels = np.unique(obs.file.to_numpy().astype(str), return_inverse=True)
    measured = np.zeros((len(files), VOCABULARY_SIZE), bool)
    for mask, file in zip(measured, files, strict=True):
        mask[cells.genes[str(file)]] = True
    units = np.array([unit_of(*pair) for pair in zip(obs.study, obs.file, strict=True)])
    terms = np.array([term_of(label) for label in labels_of(obs)])
    return LabelledCells(
        hidden[rows].astype(np.float32), cell[rows].astype(np.float32), cells.counts[rows], terms, units, panels, measured,
        np.zeros(len(rows), bool), frequency,
    )  # fmt: skip


def held_out(path: Path, fold: str, cells: Cells, types: tuple[str, ...], profiles: Profiles, ontology: CellOntology, rng: np.random.Generator) -> HeldOut:  # fmt: skip
    """Read the features of a fold and fit its classifier."""
    features = np.load(path)
    fold_types, labels = features["types"].astype(str).tolist(), features["labels"].astype(str).tolist()  # fmt: skip
    targets = Targets.of(labels, fold_types, ontology)
    known = fit_known(
        features["ref_hidden"].astype(np.float32), features["ref_cell"].astype(np.float32), features["ref_label"], targets, features["present"]
    )  # fmt: skip
    known = only(known, types)
    _, test, _ = split(cells, profiles, fold)
    hidden, cell = (features[name].astype(np.float32) for name in ("hidden", "cell"))
    if len(hidden) != len(test.obs):
        msg = f"{path} has {len(hidden)} cells, the fold {len(test.obs)}. Re-run leave_studies_out.py --features."
        raise ValueError(msg)
    organs, recorded = recorded_types(recorded_in_training(fold), known.types, ontology)
    tissues = TissueWeights(tuple(organs), tissue_weights(recorded).astype(np.float32))
    rows, frequency = sample(test, known.types, N_HELD_OUT, rng)
    # the tissues of a study are inferred from all its cells, as for the cells of a user
    units = np.array([unit_of(*pair) for pair in zip(test.obs.study, test.obs.file, strict=True)])
    log_weight = np.zeros((len(rows), len(known.types)), np.float32)
    for unit in np.unique(units[rows]):
        all_rows = np.flatnonzero(units == unit)
        evidence = known.evidence(hidden[all_rows], cell[all_rows], None)
        fractions = tissues.infer(np.exp(evidence.log_probabilities))
        log_weight[units[rows] == unit] = np.log(fractions @ tissues.weights)
    return HeldOut(labelled(test, rows, hidden, cell, frequency), known, log_weight)


def recall_on_held_out(fit: EvidenceFit, folds: list[HeldOut], ontology: CellOntology, markers: CellMarkers) -> list[dict[str, object]]:  # fmt: skip
    """Return recall, hierarchical F1 and most frequent answers of each study and type, by models that have not seen the study."""
    place = {t: i for i, t in enumerate(fit.known.types)}
    found = []
    for fold in folds:
        cells, types = fold.cells, np.array(fold.known.types)
        offsets = fit.novelty.offsets[[place[t] for t in types]]
        of_fold = replace(
            fit, known=fold.known, novelty=replace(fit.novelty, offsets=offsets), tissues=None
        )
        for study in np.unique(cells.studies):
            rows = np.flatnonzero(cells.studies == study)
            tokens = np.where(cells.measured[cells.panels[rows[0]]], np.arange(VOCABULARY_SIZE), -1)
            annotator = OpenWorldAnnotator.of(of_fold, ontology, markers, tokens=tokens).in_tissue(np.exp(fold.log_weight[rows[0]]))  # fmt: skip
            part = annotator.partial(cells.hidden[rows], cells.cells[rows], cells.counts[rows])
            given, novel = types[part.assigned], annotator.finish([part]).novelty > 0
            for term in np.unique(cells.types[rows]):
                own = cells.types[rows] == term
                up = {t: ontology.ancestors(t, include_self=True) for t in {term, *given[own]}}
                names, counts = np.unique(given[own], return_counts=True)
                found.append({
                    "study": str(study), "type": str(term), "name": ontology.name(str(term)), "n_cells": int(cells.frequency[rows][own][0]), "n_scored": int(own.sum()),
                    "recall": float(np.mean([term in up[t] for t in given[own]])), "exact": float((given[own] == term).mean()),
                    "hierarchical_f1": float(np.mean([2 * len(up[term] & up[t]) / (len(up[term]) + len(up[t])) for t in given[own]])),
                    "novel": float(novel[own].mean()), "malignant": float((given[own] == MALIGNANT).mean()),
                    "answers": {ontology.name(str(names[i])): int(counts[i]) for i in np.argsort(-counts)[:3]},
                })  # fmt: skip
    return found


def draw(data: TrainingData, sampling: SamplingConfig, max_length: int, *, n: int, start: int, seed: int) -> Batch:  # fmt: skip
    """Draw cells as training does."""
    sampler = data.sampler(sampling, max_length=max_length, seed=seed)
    batches = [sampler(REFERENCE_STEP + start + i, 500) for i in range(n // 500)]
    return Batch(*(np.concatenate([getattr(b, name) for b in batches]) for name in Batch._fields))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder with cells/, profiles/ and tissue_profiles.h5ad")  # fmt: skip
    parser.add_argument("--model", type=Path, default=RESOURCES / "models" / "sccello-small")
    parser.add_argument("--folds", type=Path, required=True, help="folder of leave_studies_out.py --features")  # fmt: skip
    parser.add_argument("--bank", type=Path, help="bank_measured.npz of train_bundled_model.py; saves embedding the cells again")  # fmt: skip
    parser.add_argument("--twin", action="store_true", help="of the model without the held-out types")  # fmt: skip
    parser.add_argument(
        "--report", type=Path, help="write recall by held-out study and type, as JSON"
    )
    parser.add_argument("--device", default="cpu", help="for embedding")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    started = time.monotonic()
    ontology, markers = CellOntology.load(), CellMarkers.load()
    model = sccello.models.load(args.model, device=args.device)
    recipe = json.loads((args.model / "metadata.json").read_text())["pretrain_config"]
    sampling = SamplingConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in recipe["sampling"].items()})  # fmt: skip
    max_length = model.config.max_positions
    cells, profiles = read_sources(args.data, ontology, twin=args.twin)
    data = prepare(cells, profiles, ontology, twin=args.twin)
    print(f"{time.monotonic() - started:.0f} s: {len(data.targets.types)} types", flush=True)

    drawn = [
        draw(data, replace(sampling, panel=0.0), max_length, n=N_REFERENCE, start=0, seed=args.seed),
        draw(data, replace(sampling, panel=1.0), max_length, n=N_ON_PANELS, start=100_000, seed=args.seed),
    ]  # fmt: skip
    states = [embed(model.network, batch) for batch in drawn]
    hidden, cell = (np.concatenate([part[k] for part in states]) for k in (0, 1))
    labels = np.concatenate([batch.labels for batch in drawn])
    known = fit_known(hidden, cell, labels, data.targets, data.taught)
    print(f"{time.monotonic() - started:.0f} s: {len(known.types)} types fitted", flush=True)

    table = read_label_map()
    if args.twin:
        table = table[~table.source.str.startswith("release_only")]
    organs, recorded = recorded_types(table, known.types, ontology)
    tissues = TissueWeights(tuple(organs), tissue_weights(recorded).astype(np.float32))

    twin_cells, twin_profiles = (cells, profiles) if args.twin else read_sources(args.data, ontology, twin=True)  # fmt: skip
    folds = []
    for i, fold in enumerate(FOLDS):
        rng = np.random.default_rng((args.seed, i))
        folds.append(held_out(args.folds / f"fold_{i}.npz", fold, twin_cells, known.types, twin_profiles, ontology, rng))  # fmt: skip
        print(f"{time.monotonic() - started:.0f} s: fold {i}, {len(folds[-1].cells)} cells of {len(folds[-1].known.types)} types", flush=True)  # fmt: skip

    rows, frequency = sample(data.cells, known.types, N_SEEN, np.random.default_rng(args.seed))
    if args.bank:
        bank = np.load(args.bank)
        measured = bank["hidden"], bank["cell"]
        seen = labelled(data.cells, rows, *measured, frequency)
    else:
        some = data.cells.take(rows)
        seen = labelled(some, np.arange(len(rows)), *embed(model.network, rank_cells(some, max_length)), frequency)  # fmt: skip
    fit = calibrate_evidence(known, folds, ontology, markers, seen=seen, prefers_subtypes=True)
    terms = np.array([term_of(label) for label in labels_of(data.cells.obs)])
    lengths = np.diff(data.cells.counts.indptr) + 1
    fit = replace(
        fit,
        counts=np.array([(terms == t).sum() for t in known.types], np.int64),
        token_range=tuple(float(x) for x in np.percentile(lengths, [1, 99])),
        tissues=tissues,
    )
    if args.report:
        args.report.write_text(
            json.dumps(recall_on_held_out(fit, folds, ontology, markers), indent=1)
        )
    path = save_evidence(fit, args.model, weights_sha256=model.sha256, ontology_release=ontology.release)  # fmt: skip
    if args.model.parent == RESOURCES / "models":
        update_entry(args.model.name, args.model)
    print(fit.weights)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(known.types)} types, known temperature {fit.known_temperature}, "
        f"open temperature {fit.open_temperature}, fallback threshold {fit.fallback_threshold:.3f}, novelty threshold {fit.novelty.threshold:.2f}, "
        f"{time.monotonic() - started:.0f} s"
    )  # fmt: skip


if __name__ == "__main__":
    main()
