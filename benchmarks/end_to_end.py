"""From an h5ad file to an annotated one: ours, beside PCA with a vote of neighbours and CellTypist on the same file.

    python benchmarks/end_to_end.py [--data ../shared/data] [--cells 2700]

Each reads the file, annotates, and writes it again. The rivals' models are trained before, on the shipped or the training cells, and not
timed, as ours was. The share that the encoder alone takes says what reading, tokenizing and writing cost beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from _common import against, print_table, time_all
from embedding import LABEL, log_cp10k
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

import sccello_tools as sccello
from sccello_tools.engine import encode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cells", type=int, default=2_700)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    shipped = sccello.datasets.pancreas_tritschler()
    if args.data is None:
        train, query = [shipped], shipped
    else:
        folder = args.data / "cells"
        train = [ad.read_h5ad(path) for path in sorted((folder / "train").glob("*.h5ad"))]
        query = ad.read_h5ad(folder / "eval" / "pbmc3k.h5ad")
    rows = np.random.default_rng(0).choice(query.n_obs, min(args.cells, query.n_obs), replace=False)
    query = query[np.sort(rows)].copy()
    labels = np.concatenate([a.obs[LABEL].astype(str).to_numpy() for a in train])
    features = sparse.vstack([log_cp10k(a) for a in train]).tocsr()
    components = PCA(50, svd_solver="arpack", random_state=0).fit(features)
    voters = KNeighborsClassifier(15).fit(components.transform(features), labels)
    network = sccello.models.load("sccello-small", device="cpu").network

    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "in.h5ad", Path(name) / "out.h5ad"
        query.write_h5ad(path)

        def ours() -> None:
            adata = ad.read_h5ad(path)
            sccello.tl.annotate_novel(adata)
            adata.write_h5ad(out)

        def neighbours() -> None:
            adata = ad.read_h5ad(path)
            adata.obs["type"] = voters.predict(components.transform(log_cp10k(adata)))
            adata.write_h5ad(out)

        tokens = sccello.pp.tokenize(query, max_length=network.config.max_positions)
        work = {
            "ours": ours,
            "ours, the encoder alone": lambda: encode(network, tokens),
            "PCA-50 + 15 neighbours": neighbours,
        }
        if importlib.util.find_spec("celltypist"):
            work["CellTypist"] = celltypist(features, labels, path, out)
        timings = time_all(work, n_runs=args.runs)
    alone = timings["ours, the encoder alone"].median
    over = timings["ours"].median / alone - 1
    print_table(
        f"{query.n_obs:,} cells of {query.n_vars:,} genes, h5ad to annotated h5ad",
        ("", "time", "cells/s (range)"),
        [[name, str(t), t.rate(query.n_obs)] for name, t in timings.items()],
        f"Annotation takes {over:.0%} longer than the encoder alone: {against(over, 0.15, at_least=False)}",
    )


def celltypist(features, labels, path: Path, out: Path):
    """Train CellTypist as its tutorial does, and return the work of applying it."""
    import celltypist as ct

    reference = ad.AnnData(features)
    reference.var_names = [f"token{i}" for i in range(features.shape[1])]
    reference.obs["label"] = labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.train(reference, "label", check_expression=False, use_SGD=True, max_iter=10)

    def apply() -> None:
        adata = ad.read_h5ad(path)
        logged = ad.AnnData(log_cp10k(adata), obs=adata.obs[[]].copy())
        logged.var_names = reference.var_names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ct.annotate(logged, model=model)
        adata.obs["type"] = found.predicted_labels["predicted_labels"].astype(str).to_numpy()
        adata.write_h5ad(out)

    return apply


if __name__ == "__main__":
    main()
