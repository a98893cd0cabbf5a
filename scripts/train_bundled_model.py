"""Train `sccello-small`, the model that ships inside the package, or its evaluation twin.

    python scripts/train_bundled_model.py --data ../shared/data --out runs/sccello-small-eval --twin
    python scripts/train_bundled_model.py --data ../shared/data
    python scripts/train_bundled_model.py --data ../shared/data --preset sccello-base --device cuda --out runs/sccello-base

Both models have the same recipe. The twin does not know the types that the evaluation holds out (dendritic, PP and regulatory T cells
with their subtypes); the shipped model is also trained on them (`cells/release_only/`). `cells/eval/` is never read.

Half of the cells of a batch are measured, half are synthetic: drawn from profiles of the Human Cell Landscape, CellProfileLibrary,
Tabula Sapiens, sorted immune cells and brain atlases. `bank_measured.npz` in `--work` holds embeddings of all measured training
cells, for the calibration of annotation. An interrupted run is resumed from its checkpoint in `--work`.

`sccello-base` has the same recipe, the published size and 2,048 tokens; **it has not been run**, because no GPU was available. Its
annotation needs fold models of the same preset: `leave_studies_out.py --preset sccello-base --device cuda --features runs/base-folds`,
then `calibrate_bundled_model.py --model runs/sccello-base --folds runs/base-folds --device cuda`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from recipe.sampling import SamplingConfig, rank_cells
from recipe.setup import prepare, read_sources
from recipe.training import PRESETS, Trainer, TrainingConfig, embed, new_network

import sccello_tools as sccello
from sccello_tools.models.registry import update_entry
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from recipe.setup import TrainingData

    from sccello_tools.nn import ScCelloModel

RESOURCES = Path(sccello.__file__).parent / "resources"


def write_bank(
    folder: Path, network: ScCelloModel, data: TrainingData, config: TrainingConfig
) -> None:
    """Write embeddings of all measured training cells, rounded, with their labels."""
    cells, labels = data.cells, np.array(data.targets.labels)
    measured = rank_cells(cells, config.max_length)
    hidden, cell = embed(network, measured)
    obs = cells.obs.astype(str)
    columns = ("study", "donor", "tissue", "assay", "original_label")
    np.savez_compressed(
        folder / "bank_measured.npz",
        hidden=hidden.astype(np.float16),
        cell=cell.astype(np.float16),
        n_tokens=measured.lengths,
        label=labels[data.cell_labels],
        source=obs.file.to_numpy().astype(str),  # "file" is an argument of np.savez
        **{name: obs[name].to_numpy().astype(str) for name in columns},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder with cells/, profiles/ and tissue_profiles.h5ad")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESOURCES / "models" / "sccello-small")
    parser.add_argument("--work", type=Path, help="checkpoint and bank; default: OUT with the suffix .work")  # fmt: skip
    parser.add_argument("--twin", action="store_true", help="leave out the types that the evaluation holds out")  # fmt: skip
    parser.add_argument("--preset", choices=PRESETS, default="sccello-small")
    parser.add_argument("--steps", type=int, help="default: those of the preset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="for training; embeddings are computed there as well")  # fmt: skip
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other fields of TrainingConfig or SamplingConfig")  # fmt: skip
    args = parser.parse_args()

    work = args.work or args.out.with_suffix(".work")
    changes = {name: json.loads(value) for name, value in (item.split("=", 1) for item in args.set)}
    config = TrainingConfig(**{"seed": args.seed, **PRESETS[args.preset]})
    if args.steps is not None:
        config = replace(config, steps=args.steps)
    config = replace(config, **{k: v for k, v in changes.items() if hasattr(config, k)})
    sampling = replace(SamplingConfig(), **{k: v for k, v in changes.items() if not hasattr(config, k)})  # fmt: skip

    work.mkdir(parents=True, exist_ok=True)
    ontology = CellOntology.load()
    data = prepare(*read_sources(args.data, ontology, twin=args.twin), ontology, twin=args.twin)
    cells, targets = data.cells, data.targets
    print(f"{cells.counts.shape[0]:,} cells, {data.profiles.expected.shape[0]:,} profiles, {len(targets.types)} types")  # fmt: skip
    sampler = data.sampler(sampling, max_length=config.max_length, seed=config.seed)
    trainer = Trainer(new_network(config, sampler, args.device), sampler, targets, ontology, config)
    curve = trainer.train(checkpoint=work / "checkpoint.pt")

    names = pd.DataFrame({
        "cell_type_ontology_term_id": targets.types,
        "cell_type": [ontology.name(term) for term in targets.types],
    })  # fmt: skip
    trained_on = {f"{study} ({n:,} cells)" for study, n in cells.obs.study.value_counts().items()}
    n_sources = data.profiles.obs.source.value_counts()
    synthetic = ", ".join(f"{source} ({n} profiles)" for source, n in n_sources.items())
    sccello.models.save(
        trainer.network.cpu(),
        args.out,
        labels=names,
        metadata={
            "name": args.out.name,
            "ontology_release": ontology.release,
            "training_data": {
                "description": f"measured cells: {', '.join(sorted(trained_on))}; synthetic cells drawn from {synthetic}",
                "n_cells": cells.counts.shape[0],
            },
            "pretrain_config": {**asdict(config), "sampling": asdict(sampling), "twin": args.twin},
            "vocabulary_sha256": GeneVocabulary.load().sha256,
        },
        dtype="float16",
    )
    curve.to_csv(args.out / "training_curve.csv", index=False, float_format="%.5g")
    if args.out.parent == RESOURCES / "models":
        update_entry(args.out.name, args.out)

    # with the saved weights, which are rounded
    write_bank(work, sccello.models.load(args.out, device=args.device).network, data, config)
    print(f"{args.out}: {trainer.step} steps in {trainer.seconds / 60:.1f} min")


if __name__ == "__main__":
    main()
