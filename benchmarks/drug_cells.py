"""Drug response of single cells: five lung cancer lines, five batches, two platforms, that the model was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

import sccello_tools as sccello

if TYPE_CHECKING:
    from pathlib import Path

# as the cells and as GDSC2 write them
LINES = {
    "A549": "A549",
    "H838": "NCIH838",
    "H1975": "NCIH1975",
    "H2228": "NCIH2228",
    "HCC827": "HCC827",
}
EGFR_INHIBITORS = (
    "Erlotinib",
    "Gefitinib",
    "Afatinib",
    "Osimertinib",
    "AZD3759",
    "Lapatinib",
    "Sapitinib",
)
FEWEST = 4  # measured lines of a drug; all three of Drop-seq, which holds no more
EVERY = 3  # single cells are answered for one in three, for time; sums are of all


def order_score(predicted: pd.DataFrame, measured: pd.DataFrame) -> dict[str, float]:
    """Mean over drugs of the rank correlation over the five lines, and the share of pairs of lines in the right order."""
    ranks, right, n = [], 0, 0
    for drug in measured.columns.intersection(predicted.columns):
        truth = measured[drug].dropna()
        if len(truth) < min(FEWEST, len(measured)):
            continue
        answer = predicted.loc[truth.index, drug]
        ranks.append(spearmanr(truth, answer)[0])
        differences = np.subtract.outer(truth.to_numpy(), truth.to_numpy())
        predicted_differences = np.subtract.outer(answer.to_numpy(), answer.to_numpy())
        above = differences > 0
        right += int((predicted_differences[above] > 0).sum())
        n += int(above.sum())
    rho = np.array(ranks)
    return {
        "drugs": len(rho),
        "mean spearman": float(np.nanmean(rho)),
        "standard error": float(np.nanstd(rho) / np.sqrt(len(rho))),
        "pairs of lines in the right order": right / n,
    }


def by_line(adata: ad.AnnData, model, groupby: str, *, center: bool = False) -> pd.DataFrame:
    sccello.tl.drug_response(adata, model=model, groupby=groupby, center=center, key_added="groups")
    return sccello.get.drug_response_df(adata, key="groups")


def score_cells(data: Path, model_name: str) -> dict[str, object]:
    model = sccello.drug.load(model_name)
    if leaked := set(LINES.values()) & set(model.cell_lines):
        msg = f"{sorted(leaked)} were in the model's training"
        raise SystemExit(msg)
    adata = ad.read_h5ad(data / "cells" / "eval" / "lung_lines_mixology.h5ad")
    adata.obs["line"] = pd.Categorical(adata.obs["donor"].astype(str).map(LINES))
    whole = sccello.datasets.gdsc(data / "drug_response")
    measured = whole.ln_ic50.loc[list(LINES.values())]
    out: dict[str, object] = {}

    # the same lines from their bulk expression: what the model could know at best
    bulk = model.predict(whole.expression.loc[list(LINES.values())]).ln_ic50
    groups = by_line(adata, model, "line")
    centred = by_line(adata, model, "line", center=True)
    single = adata[::EVERY].copy()
    sccello.tl.drug_response(single, model=model)
    cells = single.obsm["sccello_drug_response"]
    cell_means = cells.groupby(single.obs["line"].to_numpy()).mean()
    order = {
        "bulk expression of the lines": order_score(bulk, measured),
        "all cells of a line, summed": order_score(groups, measured),
        "the same, center=True": order_score(centred, measured),
        "single cells, mean of their predictions": order_score(cell_means, measured),
    }
    # of each platform alone
    for name, part in _parts(adata):
        found = by_line(part, model, "line")
        order[f"{name}, summed"] = order_score(found, measured.loc[found.index])
        found = by_line(part, model, "line", center=True)
        order[f"{name}, center=True"] = order_score(found, measured.loc[found.index])
    out["order"] = order
    print(
        "\nOrder of five unseen lines, over drugs measured on at least four of them (0 is chance; right order .5 is chance)\n"
    )
    print("| predicted from | drugs | mean Spearman | right order |\n|---|---|---|---|")
    for name, s in order.items():
        print(
            f"| {name} | {s['drugs']} | {s['mean spearman']:+.3f} ± {s['standard error']:.3f} | {s['pairs of lines in the right order']:.3f} |"
        )

    known = {}
    for drug in EGFR_INHIBITORS:
        if drug in groups:
            truth = measured.loc["HCC827", drug] - measured.loc["A549", drug]
            answers = [
                t.loc["HCC827", drug] - t.loc["A549", drug]
                for t in (bulk, groups, centred, cell_means)
            ]
            lower = _auroc(
                cells[drug][single.obs["line"] == "A549"],
                cells[drug][single.obs["line"] == "HCC827"],
            )
            known[drug] = [float(truth), *map(float, answers), lower]
    out["egfr"] = known
    print("\nHCC827 less A549, ln IC50 (below 0: HCC827 is more sensitive)\n")
    print(
        "| drug | measured | bulk | summed cells | center=True | single cells | AUROC of the cells |\n|---|---|---|---|---|---|---|"
    )
    for drug, row in known.items():
        print(f"| {drug} | " + " | ".join(f"{v:+.2f}" for v in row[:-1]) + f" | {row[-1]:.3f} |")

    out["consistency"] = consistency(adata, model)
    print("\nA line across its batches\n")
    for name, value in out["consistency"].items():
        print(f"{name}: {value:.3f}")
    return out


def consistency(adata: ad.AnnData, model) -> dict[str, float]:
    """Whether two batches agree on what sets a line apart: predictions of a batch's lines, less the mean line of the batch."""
    adata.obs["pair"] = adata.obs["line"].astype(str) + "|" + adata.obs["batch"].astype(str)
    found = by_line(adata, model, "pair")
    found.index = pd.MultiIndex.from_tuples([name.split("|") for name in found.index])
    raw, apart = [], []
    platform = adata.obs.groupby("batch", observed=True)["assay"].first().astype(str)
    between = {"same platform": [], "other platform": []}
    for line in LINES.values():
        batches = found.loc[line].index
        for i, a in enumerate(batches):
            for b in batches[i + 1 :]:
                one, two = found.loc[(line, a)], found.loc[(line, b)]
                raw.append(pearsonr(one, two)[0])
                # of the lines that both batches hold
                shared = found.xs(a, level=1).index.intersection(found.xs(b, level=1).index)
                if len(shared) < 3:
                    continue
                r = pearsonr(
                    one - found.loc[[(s, a) for s in shared]].mean(),
                    two - found.loc[[(s, b) for s in shared]].mean(),
                )[0]
                apart.append(r)
                between["same platform" if platform[a] == platform[b] else "other platform"].append(
                    r
                )
    # is a line more like itself in another batch than like the other lines there?
    nearest = []
    centred = found - found.groupby(level=1).transform("mean")
    for (line, batch), row in centred.iterrows():
        for other in found.index.levels[1]:
            there = centred[centred.index.get_level_values(1) == other].droplevel(1)
            if other != batch and line in there.index:
                r = there.T.corrwith(row)
                nearest.append(r.idxmax() == line)
    return {
        "pearson over drugs between batches of a line": float(np.mean(raw)),
        "the same, less the batch's mean line": float(np.mean(apart)),
        "of these, same platform": float(np.mean(between["same platform"])),
        "of these, other platform": float(np.mean(between["other platform"])),
        "share of lines nearest to themselves in another batch": float(np.mean(nearest)),
    }


def _parts(adata: ad.AnnData):
    for assay in sorted(adata.obs["assay"].astype(str).unique()):
        yield assay, adata[adata.obs["assay"].astype(str) == assay].copy()


def _auroc(higher: pd.Series, lower: pd.Series) -> float:
    """Chance that a cell of the first has a higher value than one of the second."""
    return float((higher.to_numpy()[:, None] > lower.to_numpy()[None]).mean())
