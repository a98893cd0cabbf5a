"""Train `sccello-small`, the model that ships inside the package, and score it on every evaluation file.

    python scripts/train_bundled_model.py --data ../shared/data
    python scripts/train_bundled_model.py --corpus runs/ablation/train    # made by `scripts/ablation.py pack`: on a machine without the data

Trains on `cells/train/` (and, unless --synthetic-each is 0, on synthetic cells drawn from `tissue_profiles.h5ad`); never reads
`cells/eval/` before training is over. Types that the evaluation holds out are kept out of the synthetic cells too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.models.registry import update_entry
from sccello_tools.training.pretrain import PretrainConfig

RESOURCES = Path(sccello.__file__).parent / "resources"
# dendritic cell, PP cell and regulatory T cell: what heldout_types_*.h5ad are there to test
HELD_OUT = ("CL:0000451", "CL:0002275", "CL:0000815")
SYNTHETIC = "synthetic cells of tissue_profiles"
# Share of each source in a batch. By size alone, blood of one study would be more than half of what the model sees.
SHARES = {
    "kang_pbmc_6donors": 0.25,
    "zheng_facs": 0.15,
    "pancreas": 0.20,
    "ovarian_tumour_3donors": 0.20,
    SYNTHETIC: 0.20,
}


def draw_cells(profiles: ad.AnnData, *, n_each: int, seed: int) -> ad.AnnData:
    """Draw synthetic counts from mean expression profiles: gene-wise noise, then a multinomial of a cell's depth."""
    rng = np.random.default_rng(seed)
    means = profiles.X.toarray()
    rows, labels = [], []
    for mean, label in zip(means, profiles.obs["cell_type_ontology_term_id"]):
        share = mean / mean.sum()
        for _ in range(n_each):
            noisy = share * rng.lognormal(0, 0.5, share.size)
            depth = int(rng.lognormal(np.log(2_500), 0.6))
            rows.append(
                sparse.csr_array(rng.multinomial(depth, noisy / noisy.sum()).astype(np.float32))
            )
            labels.append(label)
    cells = ad.AnnData(sparse.csr_matrix(sparse.vstack(rows)), var=profiles.var)
    cells.obs["cell_type_ontology_term_id"] = pd.Categorical(labels)
    return cells


def training_cells(data: Path, *, synthetic_each: int, seed: int) -> dict[str, ad.AnnData]:
    """Read what may train."""
    sources = {
        path.stem: ad.read_h5ad(path) for path in sorted((data / "cells" / "train").glob("*.h5ad"))
    }
    if synthetic_each:
        ontology = sccello.ontology.CellOntology.load()
        barred = set(HELD_OUT).union(*(ontology.descendants(term) for term in HELD_OUT))
        profiles = ad.read_h5ad(data / "tissue_profiles.h5ad")
        ids = profiles.obs["cell_type_ontology_term_id"].astype(str)
        usable = profiles[(ids != "").to_numpy() & ~ids.isin(barred).to_numpy()].copy()
        sources[SYNTHETIC] = draw_cells(usable, n_each=synthetic_each, seed=seed)
    return sources


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--data", type=Path, help="folder with cells/train and tissue_profiles.h5ad")
    given.add_argument("--corpus", type=Path, help="corpus of these cells")
    parser.add_argument("--out", type=Path, default=RESOURCES / "models" / "sccello-small")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/sccello-small"),
        help="checkpoints and the loss curve",
    )
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument(
        "--synthetic-each",
        type=int,
        default=20,
        help="synthetic cells drawn from each profile; 0 for none",
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="other fields of PretrainConfig"
    )
    parser.add_argument("--start-from", help="name or folder of a model to train further")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    sccello.settings.verbosity = "info"
    if args.corpus is not None:
        sources, names = args.corpus, set(SHARES)
    else:
        sources = training_cells(args.data, synthetic_each=args.synthetic_each, seed=args.seed)
        names = set(sources)
    total = sum(SHARES[name] for name in names)
    shares = {name: SHARES[name] / total for name in sorted(names)}
    config = PretrainConfig(
        max_steps=args.steps, seed=args.seed, source_weights=shares, warmup_steps=50, crop=0.75
    )
    config = config.replace(
        **{k: json.loads(v) for k, v in (item.split("=", 1) for item in args.set)}
    )
    started = time.monotonic()
    sccello.tl.pretrain(
        sources,
        out=args.out,
        overwrite=True,
        config=config,
        start_from=args.start_from,
        checkpoint_dir=args.work,
        name=args.out.name,
        weights_dtype="float16",
    )
    minutes = (time.monotonic() - started) / 60
    if args.out.parent == RESOURCES / "models":
        update_entry(args.out.name, args.out)
    print(
        f"trained in {minutes:.1f} min. Score it: python benchmarks/embedding.py --data DATA --model {args.out}"
    )


if __name__ == "__main__":
    main()
