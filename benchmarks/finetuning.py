"""Fine-tuning to labels that pretraining never saw, scored on donors that fine-tuning never saw.

    python benchmarks/finetuning.py --data ../shared/data [--model sccello-small ...] [--modes linear lora full] [--json out.json]

Blood cells of six donors, control or stimulated with interferon-beta: two donors are set aside for the score, the other four train and
stop early. Labels: the condition alone, and the authors' cell types (9) by condition. The bundled model saw the counts of all six donors
and their Cell Ontology types in pretraining, but neither condition; the set-aside donors are new to the classifier, not to the encoder.
Logistic regression on log1p(CP10k) of the vocabulary's genes learns from the same cells.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from _common import load_models, mean_and_spread, print_table
from embedding import log_cp10k
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss

import sccello_tools as sccello
from sccello_tools.training.finetune import FinetuneConfig, classifier_of

TEST_DONORS = ("1016", "1256")


def scores(truth: np.ndarray, chances: np.ndarray, labels: list[str]) -> dict[str, float]:
    chances = chances.astype(float) / chances.sum(axis=1, keepdims=True, dtype=float)
    found = np.array(labels)[chances.argmax(axis=1)]
    return {
        "accuracy": float((found == truth).mean()),
        "macro_f1": float(f1_score(truth, found, average="macro")),
        "log_loss": float(log_loss(truth, chances, labels=labels)),
    }


def sample(adata: ad.AnnData, per_donor: int, seed: int) -> ad.AnnData:
    """At most so many cells of each donor."""
    rng = np.random.default_rng(seed)
    donors = adata.obs["donor"].astype(str).to_numpy()
    rows = [rng.permutation(np.flatnonzero(donors == d))[:per_donor] for d in np.unique(donors)]
    return adata[np.sort(np.concatenate(rows))].copy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", nargs="+", default=["sccello-small"], help="one or more")
    parser.add_argument("--modes", nargs="+", default=["linear", "lora"])
    parser.add_argument("--cells", type=int, default=600, help="most cells of a training donor")
    parser.add_argument("--epochs", type=int, default=6, help="most epochs of lora and full")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        print("Skipped: the cells do not ship. Pass their folder in --data.")
        return
    models = load_models(args.model)
    kang = ad.read_h5ad(args.data / "cells" / "train" / "kang_pbmc_6donors.h5ad")
    condition, own = (kang.obs[c].astype(str) for c in ("condition", "original_label"))
    kang.obs["type and condition"] = own + ", " + condition
    aside = kang.obs["donor"].astype(str).isin(TEST_DONORS).to_numpy()
    train = sample(kang[~aside], args.cells, 0)
    test = sample(kang[aside], args.cells, 0)
    print(
        f"{train.n_obs} cells of {train.obs['donor'].nunique()} donors train, {test.n_obs} of 2 others score"
    )

    out: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key in ("condition", "type and condition"):
        truth = test.obs[key].astype(str).to_numpy()
        found: dict[str, list[dict[str, float]]] = {}
        start = time.perf_counter()
        regression = LogisticRegression(max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(log_cp10k(train), train.obs[key].astype(str))
        chances = regression.predict_proba(log_cp10k(test))
        found["logistic regression on genes"] = [
            {
                **scores(truth, chances, list(regression.classes_)),
                "seconds": time.perf_counter() - start,
            }
        ]
        for model_name, mode in itertools.product(models, args.modes):
            model = models[model_name]
            method = mode if len(models) == 1 else f"{model_name}, {mode}"
            sccello.tl.embed(test, model=model)  # serves all linear models
            for seed in range(args.seeds):
                epochs = None if mode == "linear" else args.epochs
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    tuned = sccello.tl.finetune(
                        train,
                        key,
                        out=Path(folder) / "model",
                        mode=mode,
                        batch_key="donor",
                        model=model,
                        config=FinetuneConfig(max_epochs=epochs, seed=seed),
                    )
                    seconds = time.perf_counter() - start
                    sccello.tl.predict(test, tuned, return_scores=True)
                    held_out = classifier_of(tuned).scores
                table = test.obsm["sccello_prediction_scores"]
                row = scores(truth, table.to_numpy(), list(table.columns))
                row |= {"seconds": seconds, "held_out_macro_f1": held_out["macro_f1"]}
                found.setdefault(method, []).append(row)
                print(key, method, seed, row, flush=True)
        out[key] = found
        rows = []
        for method, runs in found.items():
            means = [
                [run.get(name, np.nan) for run in runs]
                for name in ("accuracy", "macro_f1", "log_loss", "held_out_macro_f1", "seconds")
            ]
            rows.append([method, *map(mean_and_spread, means[:4]), f"{np.mean(means[4]):.0f}"])
        columns = [
            "method",
            "accuracy",
            "macro F1",
            "log loss",
            "macro F1 of the donor for early stopping",
            "seconds",
        ]
        print_table(
            f"{key} ({len(np.unique(truth))} labels), donors not seen in fine-tuning",
            columns,
            rows,
            f"{args.seeds} seeds, ± standard deviation; logistic regression has none.",
        )
    if args.json:
        args.json.write_text(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
