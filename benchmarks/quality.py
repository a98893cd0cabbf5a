"""Embeddings by the paper's scores, beside what a user would compute instead, on cells that never trained.

    python benchmarks/quality.py --data ../shared/data [--model sccello-small ...] [--json out.json]

Zero-shot: our encoder has not seen the file. PCA, Harmony and scVI are fitted on the very cells that they are scored on, as a user would do it.
"Random weights" is our encoder before its first step, with the same architecture: what training is worth. Types that are scored are the
authors', by Cell Ontology id; batches are donors, or what the file has for them. Means over seeds of clustering (and of fitting, for scVI and random
weights), with the standard deviation.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch
from _common import load_models, mean_and_spread, print_table
from embedding import EVALUATION, LABEL, log_cp10k, token_counts
from sklearn.decomposition import PCA

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.metrics import clustering_score, integration_score
from sccello_tools.nn import ScCelloModel

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = (*EVALUATION, "lung_lines_mixology")
LINES = "original_label"  # the lung lines are told by name: they share one Cell Ontology id


def pca(adata: ad.AnnData, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    return PCA(50, svd_solver="arpack", random_state=0).fit_transform(log_cp10k(adata)[:, genes])


def variable_genes(adata: ad.AnnData, n_genes: int = 2_000) -> np.ndarray:
    """Mask over the vocabulary, as scanpy chooses."""
    import scanpy as sc

    table = ad.AnnData(log_cp10k(adata))
    sc.pp.highly_variable_genes(table, n_top_genes=n_genes)
    return table.var["highly_variable"].to_numpy()


def harmony(components: np.ndarray, adata: ad.AnnData, batch_key: str) -> np.ndarray:
    import harmonypy

    logging.getLogger("harmonypy").setLevel(logging.ERROR)
    found = harmonypy.run_harmony(components, adata.obs, batch_key, random_state=0)
    corrected = np.asarray(found.Z_corr)
    return corrected if corrected.shape[0] == adata.n_obs else corrected.T


def scvi_latent(
    adata: ad.AnnData, genes: np.ndarray, batch_key: str | None, *, seed: int, epochs: int
) -> np.ndarray:
    import scvi

    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.ERROR
    cells = ad.AnnData(token_counts(adata)[:, genes], obs=adata.obs.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvi.model.SCVI.setup_anndata(cells, batch_key=batch_key)
        model = scvi.model.SCVI(cells)
        model.train(max_epochs=epochs, enable_progress_bar=False, accelerator="cpu")
    return model.get_latent_representation()


def random_weights(adata: ad.AnnData, model: sccello.models.LoadedModel, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    network = ScCelloModel(model.network.config).eval()
    tokens = sccello.pp.tokenize(adata, max_length=network.config.max_positions)
    return encode(network, tokens)


def batch_key_of(adata: ad.AnnData) -> str | None:
    """The column that tells batches, if there are two."""
    for key in ("batch", "donor"):
        if key in adata.obs and adata.obs[key].astype(str).nunique() > 1:
            return key
    return None


def score(embedding: np.ndarray, adata: ad.AnnData, label: str, seed: int) -> list[float]:
    types = adata.obs[label].astype(str).to_numpy()
    bio = clustering_score(embedding, types, rng=seed)
    key = batch_key_of(adata)
    batch = (
        integration_score(embedding, types, adata.obs[key].astype(str).to_numpy()).avg_batch
        if key
        else float("nan")
    )
    return [bio.nmi, bio.ari, bio.asw, bio.avg_bio, batch]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", nargs="+", default=["sccello-small"], help="one or more")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=1_500, help="most cells of a file")
    parser.add_argument("--scvi-epochs", type=int, default=40)
    parser.add_argument("--scvi-seeds", type=int, default=2, help="scVI is by far the slowest")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        print("Skipped: the evaluation cells do not ship. Pass their folder in --data.")
        return
    models = load_models(args.model)
    results: dict[str, dict[str, list[list[float]]]] = {}
    for name in FILES:
        adata = ad.read_h5ad(args.data / "cells" / "eval" / f"{name}.h5ad")
        label = LINES if name == "lung_lines_mixology" else LABEL
        rows = np.random.default_rng(0).permutation(adata.n_obs)[: args.cells]
        adata = adata[np.sort(rows)].copy()
        adata.obs_names_make_unique()
        key = batch_key_of(adata)
        genes = variable_genes(adata)
        components = pca(adata, genes)
        fixed = {}
        for model_name, model in models.items():
            for representation, shown in (("cls", "<cls>"), ("cell", "cell head")):
                sccello.tl.embed(adata, model=model, representation=representation)
                fixed[f"{model_name}, {shown}"] = adata.obsm["X_sccello"]
        fixed["PCA-50"] = pca(adata)
        fixed["2,000 variable genes + PCA-50"] = components
        if key:
            fixed["the same + Harmony"] = harmony(components, adata, key)
        drawn: dict[str, Callable[[int], np.ndarray]] = {
            "scVI": lambda s, a=adata, g=genes, k=key: scvi_latent(
                a, g, k, seed=s, epochs=args.scvi_epochs
            ),
        }
        # of each size of model once
        sizes = {m.config.model_dump_json(): m for m in reversed(models.values())}
        for model in sizes.values():
            shown = "" if len(sizes) == 1 else f" of the size of {model.name}"
            drawn[f"random weights{shown}, <cls>"] = lambda s, a=adata, m=model: random_weights(
                a, m, s
            )
        found = {
            method: [score(x, adata, label, seed) for seed in range(args.seeds)]
            for method, x in fixed.items()
        }
        for method, function in drawn.items():
            n = args.scvi_seeds if method == "scVI" else args.seeds
            found[method] = [score(function(s), adata, label, s) for s in range(n)]
        results[name] = found
        print_table(
            f"{name}: {adata.n_obs:,} cells, {adata.obs[label].nunique()} types, batches: {key or 'none'}",
            ["embedding", "NMI", "ARI", "ASW", "AvgBio", "AvgBatch"],
            [
                [method, *(mean_and_spread(column) for column in np.array(values).T)]
                for method, values in found.items()
            ],
        )
    methods = [m for m in results[FILES[0]] if all(m in found for found in results.values())]
    print_table(
        "Mean over the files",
        ["embedding", "NMI", "ARI", "ASW", "AvgBio", "AvgBatch (files with batches)"],
        [
            [
                m,
                *(
                    f"{v:.3f}"
                    for v in np.nanmean([np.mean(results[n][m], axis=0) for n in FILES], axis=0)
                ),
            ]
            for m in methods
        ],
        f"{args.seeds} seeds; scVI {args.scvi_seeds} fits of {args.scvi_epochs} epochs on 2,000 variable genes.",
    )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
