"""What each training loss is worth: equal steps with some of the losses left out, several seeds each.

    python scripts/ablation.py --data ../shared/data [--seeds 0 1] [--steps 150]

Trains on `cells/train/` without one donor of the blood, one donor of the ovary and one study of the pancreas. Scores by the vote of
15 cosine neighbours (`cls` row) among the training cells, on what was held out and on the evaluation files, which nothing is chosen
by. A run that is in the results already is not repeated, so an interrupted ablation goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.metrics import annotation_score, knn_vote
from sccello_tools.ontology import CellOntology
from sccello_tools.train import LabelledTokens, PretrainConfig, fit

if TYPE_CHECKING:
    from sccello_tools.nn import ScCelloModel

LABEL = "cell_type_ontology_term_id"
EVALUATION = ("kang_pbmc_2donors", "ovarian_tumour_1donor", "pancreas_tritschler", "pbmc3k")
HELD_OUT = {
    "kang_pbmc_6donors": ("donor", "1016"),
    "ovarian_tumour_3donors": ("donor", "12"),
    "pancreas": ("dataset", "pancreas_muraro"),
}
SHARES = {
    "kang_pbmc_6donors": 0.3,
    "zheng_facs": 0.2,
    "pancreas": 0.25,
    "ovarian_tumour_3donors": 0.25,
}
_CELLS = {"weight_coherence": 0.0, "weight_regularization": 0.0}
ARMS = {
    "masked gene": {"weight_alignment": 0.0, **_CELLS},
    "masked gene + coherence": {"weight_alignment": 0.0},
    "masked gene + alignment": _CELLS,
    "all": {},
}  # fmt: skip
N_REFERENCE = 1_500
N_SCORED = 400  # cells of a file at most, drawn once


def labelled(
    adata: ad.AnnData, name: str, max_length: int, *, at_most: int | None = None
) -> LabelledTokens:
    """Tokens and labels of the cells of a file, or of some of them drawn at random."""
    if at_most is not None and adata.n_obs > at_most:
        rows = np.random.default_rng(0).choice(adata.n_obs, size=at_most, replace=False)
        adata = adata[np.sort(rows)].copy()
    tokens = sccello.pp.tokenize(adata, max_length=max_length)
    return LabelledTokens(tokens, adata.obs[LABEL].astype(str).to_numpy(), name)


def read_cells(
    data: Path, max_length: int
) -> tuple[list[LabelledTokens], dict[str, LabelledTokens]]:
    """Training cells, and the cells to score on: held-out donors and studies, then evaluation files."""
    train, scored = [], {}
    for path in sorted((data / "cells" / "train").glob("*.h5ad")):
        adata = ad.read_h5ad(path)
        if path.stem in HELD_OUT:
            column, value = HELD_OUT[path.stem]
            out = (adata.obs[column].astype(str) == value).to_numpy()
            name = f"{path.stem}, {column} {value}"
            scored[name] = labelled(adata[out].copy(), name, max_length, at_most=N_SCORED)
            adata = adata[~out].copy()
        train.append(labelled(adata, path.stem, max_length))
    for name in EVALUATION:
        adata = ad.read_h5ad(data / "cells" / "eval" / f"{name}.h5ad")
        scored[name] = labelled(adata, name, max_length, at_most=N_SCORED)
    return train, scored


def score(
    network: ScCelloModel,
    train: list[LabelledTokens],
    scored: dict[str, LabelledTokens],
    accepted: dict[str, set[str]],
) -> dict[str, list[float]]:
    """Accuracy and mean recall on each file."""
    rng = np.random.default_rng(0)  # the same reference for every run
    vectors, labels = [], []
    for source in train:
        share = round(N_REFERENCE * SHARES[source.source])
        rows = np.sort(
            rng.choice(len(source.tokens), size=min(share, len(source.tokens)), replace=False)
        )
        vectors.append(encode(network, source.tokens.take(rows), precision="float32"))
        labels.append(source.cell_types[rows])
    reference, names = np.concatenate(vectors), np.concatenate(labels)
    found = {}
    for name, cells in scored.items():
        query = encode(network, cells.tokens, precision="float32")
        votes = knn_vote(reference, names, query)
        result = annotation_score(cells.cell_types, votes, accepted)
        found[name] = [round(result.accuracy, 4), round(result.mean_recall, 4)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.json"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-cells", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=160)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    base = PretrainConfig(
        max_steps=args.steps, batch_cells=args.batch_cells, max_length=args.max_length,
        warmup_steps=20, crop=0.75, source_weights=SHARES,
    )  # fmt: skip
    train, scored = read_cells(args.data, args.max_length)
    ontology = CellOntology.load()
    known = {str(t) for source in train for t in source.cell_types}
    truth = {str(t) for cells in scored.values() for t in cells.cell_types}
    accepted = {t: {t, *ontology.descendants(t)} for t in truth}
    accepted = {t: answers for t, answers in accepted.items() if answers & known}

    results = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
    results["config"] = base.to_dict()
    results["held_out"] = {name: " ".join(what) for name, what in HELD_OUT.items()}
    for seed in args.seeds:
        for arm, changes in {"not trained": None, **ARMS}.items():
            if any(run["arm"] == arm and run["seed"] == seed for run in results["runs"]):
                continue
            config = dataclasses.replace(base, seed=seed, **(changes or {}))
            if changes is None:  # one step at a rate that moves nothing: what training starts from
                config = dataclasses.replace(config, max_steps=1, learning_rate=1e-12)
            started = time.process_time()
            result = fit(train, ontology, config, trainer_kwargs={"accelerator": "cpu"})
            trained = time.process_time() - started
            results["runs"].append({
                "arm": arm, "seed": seed, "cpu_seconds": round(trained, 1),
                "scores": score(result.network, train, scored, accepted),
            })  # fmt: skip
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1) + "\n")
            print(arm, seed, f"{trained:.0f} CPU s", flush=True)
    print(table(results))


def table(results: dict) -> str:
    """Mean recall as a Markdown table: mean over the seeds, and half the range."""
    arms = ["not trained", *ARMS]
    lines = [f"| scored on | {' | '.join(arms)} |", "| --- |" + " ---: |" * len(arms)]
    runs = results["runs"]
    names = list(runs[0]["scores"])
    n_held_out = len(results["held_out"])
    rows = {name: [name] for name in names}
    rows["**mean of held-out**"] = names[:n_held_out]
    rows["**mean of evaluation files**"] = names[n_held_out:]
    for title, files in rows.items():
        cells = []
        for arm in arms:
            values = [
                np.mean([run["scores"][f][1] for f in files]) for run in runs if run["arm"] == arm
            ]
            cells.append(f"{np.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
