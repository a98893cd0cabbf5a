"""``sccello demo``: the main functions on shipped cells of a study that the bundled model was not trained on."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import Device, Json, Model, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the figures.")] = Path("demo"),
    model: Model = "sccello-small",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Embed and annotate 583 pancreas cells of a study that the model was not trained on; show the evidence, draw and score the results.

    [bold]Examples[/bold]

    sccello demo

    sccello demo -o figures --json
    """
    import numpy as np

    from sccello_tools import datasets, tl
    from sccello_tools._io import check_output
    from sccello_tools._logging import logger
    from sccello_tools.metrics import clustering_score
    from sccello_tools.models import ANNOTATION_FILE, load

    check_output(out)
    seconds: dict[str, float] = {}
    with _timed(seconds, "read cells"):
        adata = datasets.pancreas_tritschler()
    with _timed(seconds, "load model and embed"):
        loaded = load(model, device=device)
        tl.embed(adata, model=loaded)
    name = str(adata.uns["X_sccello"]["model"])
    annotation: dict[str, float] = {}
    evidence: list[dict[str, Any]] = []
    if loaded.labels or (loaded.folder / ANNOTATION_FILE).is_file():
        with _timed(seconds, "annotate"):
            tl.annotate_novel(adata, model=loaded)
            annotation = _annotation_scores(adata)
            evidence = _evidence(adata)
    else:
        logger.warning("%s has no labels: the annotation is skipped", name)
    with _timed(seconds, "principal components"):
        adata.obsm["X_pca"] = _pca(adata)
    with _timed(seconds, "score both embeddings"):
        labels = np.array(adata.obs["cell_type"].astype(str), dtype=str)
        scores = {
            title: clustering_score(np.asarray(adata.obsm[key]), labels)._asdict()
            for key, title in {"X_sccello": name, "X_pca": "PCA-50"}.items()
        }
    with _timed(seconds, "draw"):
        figures = _draw(adata, scores, out, annotated=bool(annotation))
    summary = {
        "cells": adata.n_obs,
        "scores": scores,
        "annotation": annotation,
        "evidence": evidence,
        "seconds": seconds,
        "figures": [str(path) for path in figures],
    }
    if as_json:
        print_json(summary)
    else:
        _print(summary)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def _annotation_scores(adata: AnnData) -> dict[str, float]:
    """Score the annotation against the published labels."""
    import numpy as np

    from sccello_tools import _keys
    from sccello_tools.metrics import ontology_score
    from sccello_tools.ontology import CellOntology

    truth, predicted = (
        np.array(adata.obs[f"{key}_ontology_term_id"].astype(str), dtype=str)
        for key in ("cell_type", "sccello_cell_type")
    )
    score = ontology_score(truth, predicted, CellOntology.load())
    novel = adata.obs["sccello_cell_type_status"] != _keys.STATUS_KNOWN
    return {
        "accuracy": score.accuracy,
        "hierarchical F1": score.hierarchical_f1,
        "mean confidence": float(adata.obs["sccello_cell_type_confidence"].mean()),
        "fraction of cells that are novel or unknown": float(novel.mean()),
    }


def _evidence(adata: AnnData) -> list[dict[str, Any]]:
    """Summarise each predicted type with the markers that support it and those that are missing."""
    from sccello_tools import get

    table = get.annotation_df(adata, "sccello_cell_type", n_markers=4)
    table = table.sort_values("n_cells", ascending=False)
    rows: Any = table.to_dict("records")
    return [
        {
            "term": str(row["cell_type"]),
            "cells": int(row["n_cells"]),
            "confidence": float(row["confidence"]),
            "supporting_markers": str(row["supporting_markers"] or ""),
            "missing_markers": str(row["missing_markers"] or ""),
        }
        for row in rows
    ]


def _pca(adata: AnnData) -> NDArray[Any]:
    """Principal components as in scanpy's tutorial, for comparison."""
    import numpy as np
    import scanpy as sc

    plain = adata.copy()
    sc.pp.normalize_total(plain, target_sum=1e4)
    sc.pp.log1p(plain)
    sc.pp.highly_variable_genes(plain, n_top_genes=2_000)
    sc.pp.pca(plain, n_comps=50, random_state=0)
    return np.asarray(plain.obsm["X_pca"])


def _draw(
    adata: AnnData, scores: dict[str, dict[str, Any]], out: Path, *, annotated: bool
) -> list[Path]:
    """Draw the figures without a screen and return their paths."""
    import matplotlib as mpl
    import pandas as pd

    from sccello_tools import pl

    titles = {
        key: f"{name}\nNMI {score['nmi']:.2f}   ARI {score['ari']:.2f}   ASW {score['asw']:.2f}"
        for key, (name, score) in zip(("X_sccello", "X_pca"), scores.items())
    }
    names = ["umap", "quality", *(("ontology_umap", "evidence", "confusion") if annotated else ())]
    paths = [out / f"pancreas_{name}.png" for name in names]
    table = pd.DataFrame.from_dict(scores, orient="index")
    with mpl.rc_context({"backend": "agg"}):
        pl.compare_embeddings(adata, titles, color="cell_type", save=paths[0], show=False)
        pl.embedding_quality(table, save=paths[1], show=False)
        if annotated:
            title = f"Predicted cell types of {adata.n_obs} pancreas cells"
            pl.ontology_umap(adata, legend_loc="tree", title=title, save=paths[2], show=False)
            pl.evidence(adata, "cell_type", save=paths[3], show=False)
            pl.confusion(adata, "cell_type", save=paths[4], show=False)
    return paths


def _print(summary: Mapping[str, Any]) -> None:
    keys = {"NMI": "nmi", "ARI": "ari", "ASW": "asw", "AvgBio": "avg_bio"}
    print_table(
        f"Separation of cell types of {summary['cells']} pancreas cells",
        ["embedding", *keys],
        ([n, *(f"{s[key]:.3f}" for key in keys.values())] for n, s in summary["scores"].items()),
        right=list(keys),
    )
    if summary["evidence"]:
        print_table(
            "Annotation and its evidence",
            ["cell type", "cells", "confidence", "supporting markers", "missing markers"],
            (
                [
                    row["term"],
                    f"{row['cells']:,}",
                    f"{row['confidence']:.2f}",
                    row["supporting_markers"],
                    row["missing_markers"],
                ]
                for row in summary["evidence"]
            ),
            right=["cells", "confidence"],
        )
    for what, value in summary["annotation"].items():
        typer.echo(f"{value:6.3f}  {what}")
    for step, time_taken in summary["seconds"].items():
        typer.echo(f"{time_taken:6.1f} s  {step}")
    typer.echo(f"{sum(summary['seconds'].values()):6.1f} s  in total")
    for path in summary["figures"]:
        typer.echo(f"Figure: {path}")
