"""Compare training recipes by leaving out studies: each measured study is scored by a model that never saw it.

    python scripts/leave_studies_out.py --data ../shared/data
    python scripts/leave_studies_out.py --data ../shared/data --arms base "no styles" --seeds 0 1 2 --folds 0 3 --steps 800 \
        --set hidden_size=128 max_length=256 learning_rate=0.002 gene_every=0

Four folds hold out all studies of some organs together, so that a held-out organ has no measured training cells, only synthetic ones.
An arm is the bundled model's recipe with some fields changed; `--set` changes fields in every arm, for instance to compare arms with a
small encoder. Scores are the mean recall over types (a subtype counts as correct), and
hierarchical F1, averaged over studies; runs that are in the results file are not repeated.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from labels.label_space import MALIGNANT, TUMOUR, labels_of, read_label_map, term_of
from recipe.classifier import (
    adjust_to_tissue,
    fit_head,
    organ_of,
    probabilities,
    recorded_types,
    tissue_weights,
    utilities,
)
from recipe.sampling import Batch, SamplingConfig, rank_cells
from recipe.setup import prepare, read_sources
from recipe.sources import STUDIES
from recipe.training import PRESETS, Trainer, TrainingConfig, embed, new_network

from sccello_tools.annotation import TissueWeights
from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    from recipe.setup import TrainingData
    from recipe.sources import Cells, Profiles

FOLDS: dict[str, tuple[str, ...]] = {
    "pancreas, heart, blood 10x": ("pancreas_fasolino", "pancreas_muraro", "pancreas_tosti", "moncada", "hao", "ipsc"),
    "colon, blood": ("pelka", "li2017", "geact_large_intestine", "kang", "malt"),
    "marrow, ovary, breast": ("vangalen", "geact_bone_marrow", "qian_ovary", "scdeconr", "janesick"),
    "prostate, lung, thymus, esophagus, bladder, diaphragm, sorted blood": (
        "prostate_gse141445", "zilionis", "geact_bronchus", "geact_thymus", "geact_esophagus", "geact_bladder", "geact_diaphragm", "zheng", "geact_sorted_blood",
    ),
}  # fmt: skip
OTHER_ORGANS = ("hao", "ipsc", "kang", "malt", "zheng", "geact_sorted_blood")
"""Held-out studies of organs of which other studies train."""
PROFILES_OF_HELD_OUT = {"pancreas, heart, blood 10x": ("Adult Pancreas_Muraro", "Adult_Pancreas_HCA")}  # fmt: skip
"""Profiles that may summarise held-out cells."""
MIN_CELLS = 8  # of a type in a study, for a recall
REFERENCE_STEP, N_REFERENCE = 20_000_000, 16_000

ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "no styles": {"style": 0.0},
    "no noise": {"noise": (0.0, 0.0)},
    "no thinning": {"thinning": 0.0},
    "no panels": {"panel": 0.0},
    "measured cells only": {"synthetic": 0.0},
    "three quarters synthetic": {"synthetic": 0.75},
    "no masked gene": {"gene_every": 0},
    "masked gene": {"gene_every": 2},
    "no alignment": {"weight_alignment": 0.0},
    "published coherence": {"coherence": "published"},
    "hidden size 128": {"hidden_size": 128, "learning_rate": 2e-3},
    "512 tokens": {"max_length": 512},
    "2 layers": {"n_layers": 2},
    "6,000 steps": {"steps": 6_000},
}


def unit_of(study: str, file: str) -> str:
    """Return the study, or the file of the one study with several organs."""
    return file if study == "geact" else study


def split(cells: Cells, profiles: Profiles, fold: str) -> tuple[Cells, Cells, Profiles]:
    """Return training cells, held-out cells and training profiles."""
    units = np.array([unit_of(*pair) for pair in zip(cells.obs.study, cells.obs.file, strict=True)])
    held_out = np.isin(units, FOLDS[fold])
    gone = PROFILES_OF_HELD_OUT.get(fold, ())
    kept = ~(profiles.obs.tissue.isin(gone) | profiles.obs["sample"].isin(gone)).to_numpy()
    return cells.take(~held_out), cells.take(held_out), profiles.take(kept)


def scores(predicted: np.ndarray, cells: Cells, types: tuple[str, ...], ontology: CellOntology) -> dict[str, list[float]]:  # fmt: skip
    """Return mean recall over types and hierarchical F1 of each study from the (n_cells,) predicted types; asked are cells of ``types``."""
    truth = labels_of(cells.obs)
    units = np.array([unit_of(*pair) for pair in zip(cells.obs.study, cells.obs.file, strict=True)])
    up = {
        t: ontology.ancestors(term_of(t), include_self=True)
        for t in {*types, *truth, *predicted.tolist()}
    }
    found = {}
    for unit in sorted(set(units)):
        recalls, f1s = [], []
        for label in sorted(set(truth[units == unit])):
            rows = (units == unit) & (truth == label)
            right = {t for t in {*types, *predicted.tolist()} if term_of(label) in up[t] or (label == TUMOUR and t == MALIGNANT)}  # fmt: skip
            if rows.sum() < MIN_CELLS or right.isdisjoint(types):
                continue
            recalls.append(float(np.isin(predicted[rows], list(right)).mean()))
            f1s.append(np.mean([2 * len(up[label] & up[p]) / (len(up[label]) + len(up[p])) for p in predicted[rows]]))  # fmt: skip
        if recalls:
            found[unit] = [float(np.mean(recalls)), float(np.mean(f1s))]
    return found


def recorded_in_training(fold: str) -> pd.DataFrame:
    """Return the label map without the held-out studies of a fold."""
    table = read_label_map()
    file = table.source.str.split("/").str[-1]
    study = file.map(lambda name: STUDIES.get(name, name))
    held_out = study.isin(FOLDS[fold]) | file.isin(FOLDS[fold]) | (file == "pancreas")
    kept = ~held_out | (table.kind == "profile")
    return table[kept & ~table.source.str.startswith("release_only")]


def with_priors(probs: np.ndarray, cells: Cells, fold: str, data: TrainingData, ontology: CellOntology) -> dict[str, np.ndarray]:  # fmt: skip
    """Return probabilities without a tissue prior, with the study's tissue given, and with tissues inferred from its cells."""
    table = recorded_in_training(fold)
    organs, recorded = recorded_types(table, data.targets.types, ontology)
    weights = tissue_weights(recorded)
    tissues = TissueWeights(tuple(organs), weights)
    units = np.array([unit_of(*pair) for pair in zip(cells.obs.study, cells.obs.file, strict=True)])
    given, inferred = probs.copy(), probs.copy()
    for unit in set(units):
        rows = units == unit
        names = {organ_of(tissue) for tissue in cells.obs.tissue[rows]} & set(organs)
        of_given = weights[[organs.index(o) for o in names]].max(0) if names else weights.mean(0)
        given[rows] = adjust_to_tissue(probs[rows], of_given)
        inferred[rows] = adjust_to_tissue(probs[rows], tissues.infer(probs[rows]) @ weights)  # fmt: skip
    return {"no prior": probs, "tissue given": given, "tissue inferred": inferred}


class Fold(NamedTuple):
    """What trains and what is held out."""

    name: str
    data: TrainingData
    test: Cells


def run(arm: dict[str, Any], fold: Fold, seed: int, ontology: CellOntology, steps: int, work: Path, features: Path | None = None, device: str = "cpu") -> dict[str, Any]:  # fmt: skip
    """Train without the studies of a fold and score them; optionally write the embeddings for `calibrate_bundled_model.py`."""
    config = TrainingConfig(steps=steps, seed=seed)
    config = replace(config, **{k: v for k, v in arm.items() if hasattr(config, k)})
    sampling = replace(SamplingConfig(), **{k: v for k, v in arm.items() if not hasattr(config, k)})
    data, test = fold.data, fold.test
    sampler = data.sampler(sampling, max_length=config.max_length, seed=seed)
    started = time.monotonic()
    trainer = Trainer(new_network(config, sampler, device), sampler, data.targets, ontology, config)
    trainer.train(checkpoint=work / "checkpoint.pt")
    (work / "checkpoint.pt").unlink(missing_ok=True)
    seconds = time.monotonic() - started
    # the classifier is fitted on cells as training draws them, without panels
    plain = data.sampler(replace(sampling, panel=0.0), max_length=config.max_length, seed=seed)
    drawn = [plain(REFERENCE_STEP + i, 500) for i in range(N_REFERENCE // 500)]
    reference = Batch(
        *(np.concatenate([getattr(b, name) for b in drawn]) for name in Batch._fields)
    )
    reference_states = embed(trainer.network, reference)
    head = fit_head(*reference_states, reference.labels, data.targets)
    hidden, cell = embed(trainer.network, rank_cells(test, config.max_length))
    if features is not None:
        features.mkdir(parents=True, exist_ok=True)
        half = [x.astype(np.float16) for x in (*reference_states, hidden, cell)]
        np.savez(
            features / f"fold_{list(FOLDS).index(fold.name)}.npz",
            **dict(zip(("ref_hidden", "ref_cell", "hidden", "cell"), half, strict=True)),
            ref_label=reference.labels, labels=np.array(data.targets.labels), types=np.array(data.targets.types), present=data.taught,
        )  # fmt: skip
    logits = head.logits(hidden, cell)
    logits[:, ~data.taught] = -1e4
    utility = utilities(data.targets.types, ontology)
    found = with_priors(probabilities(logits), test, fold.name, data, ontology)
    return {
        "seconds": seconds,
        "scores": {
            name: scores(
                np.array(data.targets.types)[np.where(data.taught, p @ utility, -1).argmax(1)],
                test,
                data.targets.types,
                ontology,
            )
            for name, p in found.items()
        },
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Average the studies of some folds: recall and F1 of new organs, of other organs."""
    found = {}
    for prior in runs[0]["scores"]:
        units = {u: v for r in runs for u, v in r["scores"][prior].items()}
        groups = [[v for u, v in units.items() if (u in OTHER_ORGANS) == other] for other in (False, True)]  # fmt: skip
        found[prior] = [float(x) for group in groups for x in np.mean(group, axis=0)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=["base"], choices=ARMS)
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2, 3], help="indices of folds")  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--preset", choices=PRESETS, default="sccello-small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="fields of TrainingConfig or SamplingConfig that all arms change")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/leave_studies_out.json"))
    parser.add_argument("--features", type=Path, help="write embeddings of the first arm and seed here, for calibrate_bundled_model.py")  # fmt: skip
    args = parser.parse_args()

    torch.set_num_threads(1)  # results do not depend on the machine's number of cores
    ontology = CellOntology.load()
    cells, profiles = read_sources(args.data, ontology, twin=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    common = {k: v for k, v in PRESETS[args.preset].items() if k != "steps"}
    common |= {name: json.loads(value) for name, value in (item.split("=", 1) for item in args.set)}
    preset = [] if args.preset == "sccello-small" else [f"preset={args.preset}"]
    changed = "".join(f"|{item}" for item in (*preset, *sorted(args.set)))
    keys: dict[tuple[str, int], list[str]] = {}
    for name in [list(FOLDS)[i] for i in args.folds]:
        fold = None  # prepared once, and only if a run of it is missing
        for seed, arm in itertools.product(args.seeds, args.arms):
            key = f"{arm}|{name}|{seed}|{args.steps}{changed}"
            keys.setdefault((arm, seed), []).append(key)
            if key in results:
                continue
            if fold is None:
                train, test, kept = split(cells, profiles, name)
                fold = Fold(name, prepare(train, kept, ontology, twin=True), test)
            features = args.features if (arm, seed) == (args.arms[0], args.seeds[0]) else None
            results[key] = run(common | ARMS[arm], fold, seed, ontology, args.steps, args.out.parent, features, args.device)  # fmt: skip
            gc.collect()  # the trainer and its sampler, gigabytes, are parts of a reference cycle
            args.out.write_text(json.dumps(results, indent=1))
            means = {prior: np.round(np.mean(list(s.values()), axis=0), 3).tolist() for prior, s in results[key]["scores"].items()}  # fmt: skip
            print(key, f"{results[key]['seconds']:.0f} s", means, flush=True)
    for (arm, seed), of_folds in keys.items():
        for prior, values in summary([results[key] for key in of_folds]).items():
            print(f"{arm}, seed {seed}, {prior}: recall and F1 in new organs {values[0]:.3f} {values[1]:.3f}, in others {values[2]:.3f} {values[3]:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
