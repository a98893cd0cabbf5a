"""The demo: real cells of a study that the bundled model never saw, embedded, annotated, drawn and scored."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys, datasets, tl
from sccello_tools._logging import logger
from sccello_tools.metrics import clustering_score, ontology_score, open_set_auroc
from sccello_tools.models import ANNOTATION_FILE, load
from sccello_tools.ontology import CellOntology

from .demo_figures import draw_annotation, draw_embeddings

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sccello_tools.metrics import ClusteringScore

_PP_CELL = "CL:0002275"


class DemoResult(NamedTuple):
    """What the demo found."""

    scores: dict[str, ClusteringScore]
    """Scores by embedding."""

    seconds: dict[str, float]
    """Time of each step."""

    annotation: dict[str, float]
    """How right the annotation is; empty if the model has no annotation statistics."""

    pictures: tuple[Path, ...]
    """What was drawn."""

    n_cells: int
    """Cells that were embedded, drawn and scored."""


def run_demo(out: Path, *, model: str = "sccello-small", as_json: bool = False) -> DemoResult:
    """Embed and annotate the shipped pancreas cells, draw them, print scores and seconds.

    Parameters
    ----------
    out
        Folder for the pictures; made if missing.
    model
        Name of a model, or a folder that holds one.
    as_json
        Print JSON rather than a table.

    Returns
    -------
    Scores, seconds and the paths of the pictures.
    """
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[step], clock = now - clock, now

    out.mkdir(parents=True, exist_ok=True)
    adata = datasets.pancreas_tritschler()
    lap(f"read {adata.n_obs} cells")
    loaded = load(model)
    tl.embed(adata, model=loaded)
    name = str(adata.uns["X_sccello"]["model"])
    names = {"X_sccello": name, "X_pca": "PCA-50"}
    lap(f"load {name} and embed")
    annotation: dict[str, float] = {}
    if (loaded.folder / ANNOTATION_FILE).is_file():
        tl.annotate_novel(adata, model=loaded)
        annotation = _judge(adata)
        lap("annotate")
    else:
        logger.warning("demo: %s has no %s, so nothing is annotated", name, ANNOTATION_FILE)
    adata.obsm["X_pca"] = _pca(adata)
    lap("PCA of log1p(CP10k)")
    cell_types = np.array(adata.obs["cell_type"].astype(str), dtype=str)
    scores = {
        name: clustering_score(np.asarray(adata.obsm[key]), cell_types)
        for key, name in names.items()
    }
    lap("score both")
    pictures = draw_embeddings(adata, names, scores, out)
    lap("UMAP and draw both")
    if annotation:
        pictures += draw_annotation(adata, out, unseen=_PP_CELL)
        lap("draw the annotation")
    result = DemoResult(scores, seconds, annotation, tuple(pictures), adata.n_obs)
    _print(result, as_json=as_json)
    return result


def _judge(adata: AnnData) -> dict[str, float]:
    """Score the annotation; PP cells are of a type that no training cell had."""
    truth, given = (
        np.array(adata.obs[f"{key}_ontology_term_id"].astype(str), dtype=str)
        for key in ("cell_type", "sccello_cell_type")
    )
    unseen = truth == _PP_CELL
    score = ontology_score(truth[~unseen], given[~unseen], CellOntology.load())
    novelty = np.asarray(adata.obs["sccello_novelty"])
    called_novel = (
        adata.obs["sccello_cell_type_status"]
        .isin([_keys.STATUS_NOVEL_SUBTYPE, _keys.STATUS_UNKNOWN])
        .to_numpy()
    )
    return {
        "accuracy on known types": score.accuracy,
        "hierarchical F1 on known types": score.hierarchical_f1,
        "AUROC of novelty, PP cells against known": open_set_auroc(novelty, unseen),
        "share of PP cells called novel": float(called_novel[unseen].mean()),
        "share of the other cells called novel": float(called_novel[~unseen].mean()),
    }


def _pca(adata: AnnData) -> np.ndarray:
    """Scanpy's usual start, for comparison: 2,000 variable genes, 50 components."""
    import scanpy as sc

    plain = adata.copy()
    sc.pp.normalize_total(plain, target_sum=1e4)
    sc.pp.log1p(plain)
    sc.pp.highly_variable_genes(plain, n_top_genes=2_000)
    sc.pp.pca(plain, n_comps=50, random_state=0)
    return np.asarray(plain.obsm["X_pca"])


def _print(result: DemoResult, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if as_json:
        scores = {name: score._asdict() for name, score in result.scores.items()}
        console.print_json(
            json.dumps(
                {
                    "scores": scores,
                    "seconds": result.seconds,
                    "annotation": result.annotation,
                    "pictures": [str(path) for path in result.pictures],
                    "n_cells": result.n_cells,
                }
            )
        )
        return
    table = Table(title=f"{result.n_cells} pancreas cells: how well are the cell types told apart?")
    table.add_column("embedding")
    for column in ("NMI", "ARI", "ASW", "AvgBio"):
        table.add_column(column, justify="right")
    for name, score in result.scores.items():
        table.add_row(
            name, *(f"{value:.3f}" for value in (score.nmi, score.ari, score.asw, score.avg_bio))
        )
    console.print(table)
    for what, value in result.annotation.items():
        console.print(f"{value:6.3f}  {what}")
    for step, time_taken in result.seconds.items():
        console.print(f"{time_taken:6.1f} s  {step}")
    console.print(f"{sum(result.seconds.values()):6.1f} s  in all")
    for path in result.pictures:
        console.print(f"Picture: {path}")
