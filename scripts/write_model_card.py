"""Write the card of a trained model from its own files and from measured scores; no figure in it is typed by hand.

python benchmarks/embedding.py --data ../shared/data --json scores.json
python scripts/write_model_card.py --scores scores.json
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

import sccello_tools as sccello
from sccello_tools.models.manifest import update_entry

FOLDER = Path(sccello.__file__).parent / "resources" / "models" / "sccello-small"

CARD = """\
# Model card: {name}

A small scCello ([arXiv 2408.12373](https://arxiv.org/abs/2408.12373)) that this project trained itself, so that everything in
sccello-tools works offline, on a laptop, on the first try. It is a demonstration of the method at a small size, not the published
model of 10.7 million parameters and 22 million cells.

| | |
|---|---|
| size | {n_layers} layers, {n_heads} heads, hidden {hidden_size}, feed-forward {intermediate_size}; {n_parameters:,} parameters; float16 on disk, {megabytes:.1f} MB |
| context | the first {max_positions} tokens of a cell |
| vocabulary | 25,424 human genes (sha256 `{vocabulary:.12}…`) |
| label space | {n_labels} Cell Ontology terms, release {ontology_release} |
| licence | BSD-3-Clause (the weights; the training data keep their own) |
| weights | sha256 `{sha256}` |

## Use

```python
sccello.tl.embed(adata)  # hidden state at <cls>, in obsm["X_sccello"]
sccello.tl.embed(adata, representation="cell", key_added="X_cell")  # unit vector of the cell head
```

Human cells, raw counts. For a first look, for label transfer with your own reference, as a start for teaching and tests.
Not for diagnosis, and not for cells of tissues far from those below without checking against known cells.

## Training data

{training_data}

Real cells: pancreas of three studies (CELLxGENE, CC BY 4.0), blood of lupus patients, control and interferon-beta (GSE96583),
sorted blood cells (10x Genomics, Zheng et al. 2017), ovarian tumours (Qian et al. 2020).
The **synthetic cells** are no measurements: multinomial draws, with log-normal noise (sigma 0.5) on each gene, twenty from each mean
expression profile of adult and fetal human tissues that carries a Cell Ontology id (CellProfileLibrary, CC BY 4.0). Profiles of dendritic cells, pancreatic PP
cells and regulatory T cells, and of their subtypes, were left out, because the evaluation holds these types out.

No cell of an evaluation file was in training. `pbmc3k` and the Zheng cells come from the same laboratory and chemistry, other donors;
`kang_pbmc_2donors` and `ovarian_tumour_1donor` are donors of studies that are in training; `pancreas_tritschler` is a study that is not.

## Recipe

{n_cells_seen:,} cells seen ({steps:,} steps of {batch_cells}), {minutes:.0f} minutes on {hardware}, which other work shared; seed {seed}.
Losses as published (masked genes, ontology alignment, cell-type coherence, regulariser; weight 1 each), temperature {tau}.
Unlike the published recipe: {n_negatives:,} sampled wrong genes a step instead of the whole vocabulary; the alignment of a cell with itself
without a second dropout pass; no dropout of attention; AdamW at {learning_rate} with {warmup_steps} steps of warm-up and cosine decay; sources drawn at
fixed shares and types by the square root of their count; fresh embeddings drawn so that a token is first of all its gene.
`metadata.json` holds every setting, `training_curve.csv` every step; `scripts/train_bundled_model.py` repeats the
run, but for the draws of dropout: they have been made to depend on the step alone since.

| step | loss | masked gene | alignment | coherence | regulariser | type accuracy |
|---|---|---|---|---|---|---|
{curve}

(Means over the twenty steps up to each.)

## Figures

Accuracy / mean recall over types that training could teach (a subtype of the truth counts as right), all methods on the same cells,
trained or looked up on the same training files (real cells only). Printed by `benchmarks/embedding.py`; {scored_on}.

{scores}

Types that no training cell had cannot be right in this vote and are left out here.

## Limits

{limits}
"""


def score_table(scores: dict[str, dict[str, list[float]]]) -> str:
    methods = list(next(iter(scores.values())))
    lines = ["| file | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for name, row in scores.items():
        cells = [f"{row[method][0]:.3f} / {row[method][1]:.3f}" for method in methods]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    means = [np.mean([row[method] for row in scores.values()], axis=0) for method in methods]
    lines.append("| mean | " + " | ".join(f"{a:.3f} / {r:.3f}" for a, r in means) + " |")
    return "\n".join(lines)


def curve_table(curve: pd.DataFrame, n_rows: int = 8) -> str:
    columns = ["loss", "masked_gene", "alignment", "coherence", "regularization", "type_accuracy"]
    smooth = curve[columns].rolling(20, min_periods=1).mean()
    lines = []
    for at in np.unique(np.linspace(19, len(curve) - 1, n_rows).astype(int)):
        values = " | ".join(f"{value:.3f}" for value in smooth.iloc[at])
        lines.append(f"| {int(curve['step'].iloc[at]):,} | {values} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument(
        "--scores", type=Path, required=True, help="what benchmarks/embedding.py --json wrote"
    )
    parser.add_argument(
        "--limits", type=Path, required=True, help="a text of what was found wanting, in Markdown"
    )
    parser.add_argument("--hardware", default="2 cores of an AMD EPYC (Zen 3, AVX2)")
    parser.add_argument("--scored-on", default="one run, seed 0")
    args = parser.parse_args()

    model = sccello.models.load(args.model, device="cpu")
    metadata = json.loads((args.model / "metadata.json").read_text())
    recipe = metadata["pretrain_config"]
    curve = pd.read_csv(args.model / "training_curve.csv")
    sources = re.findall(
        r"(?:^|, )(.+?) \(([\d,]+ cells)\)", metadata["training_data"]["description"]
    )
    text = CARD.format(
        name=model.name,
        n_layers=model.config.n_layers,
        n_heads=model.config.n_heads,
        hidden_size=model.config.hidden_size,
        intermediate_size=model.config.intermediate_size,
        max_positions=model.config.max_positions,
        n_parameters=model.n_parameters,
        megabytes=(args.model / "model.safetensors").stat().st_size / 1e6,
        vocabulary=metadata["vocabulary"]["sha256"],
        n_labels=len(model.labels),
        ontology_release=model.ontology_release,
        sha256=model.sha256,
        training_data="\n".join(f"- {source}: {n_cells}" for source, n_cells in sources),
        n_cells_seen=len(curve) * recipe["batch_cells"],
        steps=len(curve),
        batch_cells=recipe["batch_cells"],
        minutes=curve["seconds"].iloc[-1] / 60,
        hardware=args.hardware,
        seed=recipe["seed"],
        tau=recipe["tau"],
        n_negatives=recipe["n_negatives"],
        learning_rate=recipe["learning_rate"],
        warmup_steps=recipe["warmup_steps"],
        curve=curve_table(curve),
        scores=score_table(json.loads(args.scores.read_text())),
        scored_on=args.scored_on,
        limits=args.limits.read_text().strip(),
    )
    (args.model / "README.md").write_text(text)
    if args.model == FOLDER:
        update_entry(model.name, args.model)


if __name__ == "__main__":
    main()
