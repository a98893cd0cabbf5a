"""Write the PBMC3k cells that ship inside the package: at most ninety of each label, drawn at random.

    python scripts/make_pbmc3k_subsample.py --data ../shared/data

They belong to an evaluation file: no model that is to be judged on PBMC3k may be trained on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import h5py
import numpy as np
from scipy import sparse

CELLS_OF_A_LABEL = 90
OUT = Path(__file__).parents[1] / "src/sccello_tools/resources/cells/pbmc3k_subsample.h5ad"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="Folder with cells/eval/pbmc3k.h5ad."
    )
    adata = anndata.read_h5ad(parser.parse_args().data / "cells" / "eval" / "pbmc3k.h5ad")
    expressed = np.asarray((adata.X > 0).sum(axis=0)).ravel() > 0
    labels = adata.obs["original_label"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:CELLS_OF_A_LABEL]
        for label in np.unique(labels)
    ]
    cells = adata[np.sort(np.concatenate(drawn)), expressed].copy()
    cells.X = sparse.csr_matrix(cells.X, dtype=np.float32)
    # bytes shuffled before they are packed: a third smaller than AnnData.write_h5ad makes it
    packing = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(OUT, "w") as file:
        anndata.io.write_elem(file, "/", cells, dataset_kwargs=packing)
    print(f"{OUT.name}: {cells.n_obs} cells, {cells.n_vars} genes, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
