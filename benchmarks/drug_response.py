"""Drug response on GDSC2: random pairs, unseen lines, unseen drugs, both unseen; and single cells of lung cancer lines.

    python benchmarks/drug_response.py --data ../shared/data [--part pairs|unseen|ensemble|cells] [--json out.json]

All methods learn from the same pairs and answer for the same pairs; five seeds. "unseen": one training, without a fifth of the lines and a fifth
of the drugs, is tested three times: unseen lines with known drugs, known lines with unseen drugs, both unseen. Drugs without SMILES take no part.
The networks are single ones (n_members=1), whose scores an ensemble exceeds; "ensemble" measures that, and what its standard deviation is worth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from drug_baselines import BASELINES
from scipy.stats import spearmanr, wilcoxon

import sccello_tools as sccello
from sccello_tools.drug import DrugResponseConfig, split_responses
from sccello_tools.drug.profiles import embed_profiles, match_line_genes
from sccello_tools.drug.training import fit_ensemble
from sccello_tools.metrics import drug_correlations, response_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sccello_tools.drug import DrugResponseData

NETWORKS = {
    "network, expression + sccello": ("sccello", "expression"),
    "network, expression": ("expression",),
    "network, sccello": ("sccello",),
    "network, no cell features": (),
}
OURS, WITHOUT = "network, expression + sccello", "network, expression"
SEEDS = range(5)


class Lines:
    """The data as arrays, with the embedding of every line, made once."""

    def __init__(self, data: DrugResponseData, encoder, cache: Path | None) -> None:
        with_smiles = data.smiles.index[data.smiles != ""].tolist()
        self.data = data.select(drugs=with_smiles)
        self.encoder = encoder
        self.y = self.data.ln_ic50.to_numpy(dtype=np.float64)
        columns, self.genes = match_line_genes(list(data.expression.columns))
        self.profiles = data.expression.to_numpy(dtype=np.float32)[:, columns]
        self.smiles = self.data.smiles.tolist()
        if cache is not None and cache.is_file():
            self.embedding = np.load(cache)
        else:
            self.embedding = embed_profiles(self.profiles, self.genes, encoder)
            if cache is not None:
                np.save(cache, self.embedding)

    def network(
        self, train: NDArray, features: tuple[str, ...], seed: int, **options
    ) -> tuple[NDArray, NDArray]:
        """Mean and standard deviation of what a network, or several, answer for all pairs."""
        config = DrugResponseConfig(
            cell_features=features, seed=seed, **({"n_members": 1} | options)
        )
        fitted = fit_ensemble(
            self.data, train, config=config, encoder=self.encoder, embedding=self.embedding
        )
        mean, std = np.full(self.y.shape, np.nan), np.full(self.y.shape, np.nan)
        place = {name: i for i, name in enumerate(self.data.drugs)}
        new = {n: s for n, s in zip(self.data.drugs, self.smiles) if n not in set(fitted.drugs)}
        for drugs in (None, new):
            if drugs is None or drugs:
                found = fitted.predict(self.profiles, self.embedding, drugs)
                columns = [place[name] for name in found.drugs]
                mean[:, columns], std[:, columns] = found.mean, found.std
        return mean, std


def answers(lines: Lines, train: NDArray, seed: int) -> dict[str, NDArray]:
    """What each method answers for all pairs."""
    shared = {"expression": lines.profiles, "smiles": lines.smiles, "seed": seed}
    found = {name: method(lines.y, train, **shared) for name, method in BASELINES.items()}
    return found | {name: lines.network(train, f, seed)[0] for name, f in NETWORKS.items()}


def test_sets(kind: str, test: NDArray, measured: NDArray) -> dict[str, NDArray]:
    if kind == "pairs":
        return {"random pairs": test}
    held_lines, held_drugs = test.any(axis=1), test.any(axis=0)
    return {
        "unseen lines": measured & held_lines[:, None] & ~held_drugs,
        "unseen drugs": measured & ~held_lines[:, None] & held_drugs,
        "both unseen": test,
    }


def run(lines: Lines, kind: str, seed: int) -> dict[str, dict[str, dict[str, object]]]:
    measured = np.isfinite(lines.y)
    validation = 0.1 if kind == "pairs" else 0.2
    split = split_responses(measured, kind, validation=validation, rng=seed)
    found = answers(lines, split.train, seed)
    out = {}
    for name, chosen in test_sets(kind, split.validation, measured).items():
        truth = np.where(chosen, lines.y, np.nan)
        out[name] = {}
        for method, predicted in found.items():
            if not np.isfinite(predicted[chosen]).all():
                continue  # ridge knows nothing of unseen drugs
            score = response_score(truth, predicted)._asdict()
            by_drug = drug_correlations(truth, predicted)
            out[name][method] = score | {
                "by_drug": {
                    d: round(float(r), 5)
                    for d, r in zip(lines.data.drugs, by_drug)
                    if np.isfinite(r)
                }
            }
    return out


def print_scores(seeds: list[dict[str, dict[str, dict]]]) -> None:
    for name in seeds[0]:
        print(f"\n### {name}: mean ± standard deviation over {len(seeds)} seeds\n")
        columns = (
            "pearson",
            "spearman",
            "rmse",
            "pearson_by_drug",
            "spearman_by_drug",
            "pearson_by_line",
        )
        print("| method | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
        for method in seeds[0][name]:
            values = np.array([[s[name][method][c] for c in columns] for s in seeds])
            cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(values.mean(0), values.std(0))]
            print(f"| {method} | " + " | ".join(cells) + " |")
        for with_it, without in (
            (OURS, WITHOUT),
            ("network, sccello", "network, no cell features"),
            (OURS, "ridge on expression, per drug"),
        ):
            if with_it in seeds[0][name] and without in seeds[0][name]:
                print(paired(seeds, name, with_it, without))


def paired(seeds: list[dict], name: str, with_it: str, without: str) -> str:
    """Compare correlations by drug, each drug's mean over the seeds in which both could be scored."""
    differences: dict[str, list[float]] = {}
    for seed in seeds:
        a, b = (seed[name][method]["by_drug"] for method in (with_it, without))
        for drug in a.keys() & b.keys():
            differences.setdefault(drug, []).append(a[drug] - b[drug])
    values = np.array([np.mean(of_drug) for of_drug in differences.values()])
    p = wilcoxon(values).pvalue if np.abs(values).max() > 0 else 1.0
    return (
        f"\n{with_it} less {without}, Pearson by drug: {values.mean():+.4f} over {len(values)} drugs, "
        f"better for {np.mean(values > 0):.0%} of them, Wilcoxon p = {p:.2g}"
    )


def ensemble(lines: Lines, seed: int = 0) -> dict[str, float]:
    """What five networks gain over one on unseen lines, and whether they disagree where they are wrong."""
    measured = np.isfinite(lines.y)
    split = split_responses(measured, "cell_lines", validation=0.2, rng=seed)
    truth = np.where(split.validation, lines.y, np.nan)
    one, _ = lines.network(split.train, NETWORKS[OURS], seed)
    mean, std = lines.network(split.train, NETWORKS[OURS], seed, n_members=5)
    regression = BASELINES["ridge on expression, per drug"](
        lines.y, split.train, expression=lines.profiles, seed=seed
    )
    by_drug = drug_correlations(truth, mean) - drug_correlations(truth, regression)
    by_drug = by_drug[np.isfinite(by_drug)]
    wrong, unsure = np.abs(mean - lines.y)[split.validation], std[split.validation]
    found = {
        "one, pearson by drug": response_score(truth, one).pearson_by_drug,
        "five, pearson by drug": response_score(truth, mean).pearson_by_drug,
        "ridge on expression, pearson by drug": response_score(truth, regression).pearson_by_drug,
        "share of drugs for which five are better than ridge": float((by_drug > 0).mean()),
        "Wilcoxon p of five against ridge": float(wilcoxon(by_drug).pvalue),
        "one, rmse": response_score(truth, one).rmse,
        "five, rmse": response_score(truth, mean).rmse,
        "ridge on expression, rmse": response_score(truth, regression).rmse,
        "spearman of standard deviation and error": float(spearmanr(unsure, wrong)[0]),
        "error over standard deviation (root mean square)": float(
            np.sqrt((wrong**2).mean() / (unsure**2).mean())
        ),
    }
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("pairs", "unseen", "ensemble", "cells"), action="append")
    parser.add_argument("--model", default="gdsc-small", help="for the part 'cells'")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, help="where to keep the embedding of the lines")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = args.part or ["pairs", "unseen", "ensemble", "cells"]
    out: dict[str, object] = {}
    if set(parts) - {"cells"}:
        data = sccello.datasets.gdsc(args.data / "drug_response")
        print(data.report)
        lines = Lines(data, sccello.models.load("sccello-small", device="cpu"), args.cache)
    for part in parts:
        if part in {"pairs", "unseen"}:
            seeds = []
            for seed in SEEDS:
                seeds.append(run(lines, "pairs" if part == "pairs" else "both", seed))
                print(f"{part}: seed {seed} done", flush=True)
                out[part] = seeds
                if args.json:
                    args.json.write_text(json.dumps(out))
            print_scores(seeds)
        elif part == "ensemble":
            out[part] = ensemble(lines)
        else:
            from drug_cells import score_cells

            out[part] = score_cells(args.data, args.model)
        if args.json:
            args.json.write_text(json.dumps(out))


if __name__ == "__main__":
    main()
