"""Sixty mistakes: what somebody does, and which error says so. ``scripts/write_mistakes.py`` makes docs/mistakes.md of it."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import metrics, models

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


class Mistake(NamedTuple):
    """What is done, and the name of the error."""

    what: str
    code: str
    error: str


COUNTS, GENES, LABEL, MODEL = "NotCountsError", "GeneMatchError", "LabelError", "ModelNotFoundError"
ARGUMENT, CONFIG, GROUP, MISSING = "ArgumentError", "ConfigError", "GroupError", "NotFoundError"
FILE, CORPUS, BACKED, BACKEND = "FileFormatError", "CorpusError", "BackedDataError", "BackendError"
EMBEDDED, WEIGHTS, MANIFEST = "EmbeddingFilesError", "WeightsError", "ManifestError"

MISTAKES = [
    Mistake("Log-normalised values", "sccello.tl.embed(logged)", COUNTS),
    Mistake("Log-normalised values, counts in a layer", "sccello.tl.embed(with_layer)", COUNTS),
    Mistake("Log-normalised values, counts in .raw", "sccello.tl.embed(with_raw)", COUNTS),
    Mistake("Scaled values", "sccello.pp.tokenize(scaled)", COUNTS),
    Mistake("A NaN among the counts", "sccello.pp.tokenize(with_nan)", COUNTS),
    Mistake("A matrix of true and false", "sccello.pp.tokenize(boolean)", COUNTS),
    Mistake("No count at all", "sccello.pp.tokenize(zeros)", COUNTS),
    Mistake("X is None", "sccello.pp.tokenize(no_x)", COUNTS),
    Mistake("A layer that is not there", "sccello.tl.embed(adata, layer='raw_counts')", COUNTS),
    Mistake("Fractions that even trust refuses", "sccello.tl.embed(scaled, counts='trust')", COUNTS),
    Mistake("Mouse genes", "sccello.pp.match_genes(mouse)", GENES),
    Mistake("Entrez numbers", "sccello.pp.match_genes(entrez)", GENES),
    Mistake("Rows are numbered", "sccello.pp.match_genes(numbered)", GENES),
    Mistake("Another organism", "sccello.pp.match_genes(adata, organism='mouse')", GENES),
    Mistake("A column of var that is not there", "sccello.tl.embed(adata, gene_ids='ensembl')", GENES),
    Mistake("Few genes left after selecting variable ones", "sccello.tl.embed(adata[:, :300].copy())", GENES),
    Mistake("Genes and cells swapped", "sccello.tl.embed(adata.T.copy())", GENES),
    Mistake("A misspelt model", "sccello.models.load('sccello-smal')", MODEL),
    Mistake("A folder that is no model", "sccello.models.load(folder)", WEIGHTS),
    Mistake("Weights that were cut off", "sccello.models.load(cut_model)", WEIGHTS),
    Mistake("Weights with NaN", "sccello.tl.embed(adata, nan_model)", WEIGHTS),
    Mistake("A model offline that was never fetched", "offline(lambda: sccello.models.load('sccello-zeroshot'))", "DownloadError"),
    Mistake("A GPU that is not there", "sccello.tl.embed(adata, device='cuda:7')", BACKEND),
    Mistake("A device that does not exist", "sccello.tl.embed(adata, device='gpu')", BACKEND),
    Mistake("Flash attention on a CPU", "sccello.tl.embed(adata, device='cpu', attention='torch_varlen')", BACKEND),
    Mistake("An attention backend that does not exist", "sccello.tl.embed(adata, device='cpu', attention='fast')", BACKEND),
    Mistake("A precision that does not exist", "sccello.tl.embed(adata, precision='float64')", BACKEND),
    Mistake("More tokens than the model has positions", "sccello.tl.embed(adata, max_length=4096)", ARGUMENT),
    Mistake("One token a cell", "sccello.pp.tokenize(adata, max_length=1)", ARGUMENT),
    Mistake("No token a batch", "sccello.tl.embed(adata, batch_tokens=0)", ARGUMENT),
    Mistake("An unknown policy", "sccello.pp.tokenize(adata, counts='ignore')", ARGUMENT),
    Mistake("An unknown representation", "sccello.tl.embed(adata, representation='mean')", CONFIG),
    Mistake("A copy of a backed AnnData", "sccello.tl.embed(backed, copy=True)", BACKED),
    Mistake("A view of a backed AnnData", "sccello.tl.embed(backed[:5])", BACKED),
    Mistake("An embedding that is not there", "sccello.tl.annotate_novel(adata, use_rep='X_pca')", CONFIG),
    Mistake("An embedding of another method", "sccello.tl.annotate_novel(with_pca, use_rep='X_pca')", CONFIG),
    Mistake("An impossible error rate", "sccello.tl.annotate_novel(embedded, alpha=10)", CONFIG),
    Mistake("A candidate that is no term", "sccello.tl.annotate_novel(embedded, candidates=['tee cell'])", LABEL),
    Mistake("A term that does not exist", "sccello.tl.annotate_novel(embedded, candidates=['CL:9999999'])", LABEL),
    Mistake("Clusters that are not there", "sccello.tl.annotate_novel(embedded, groupby='leiden')", GROUP),
    Mistake("Clusters that are numbers", "sccello.tl.annotate_novel(embedded, groupby='n_genes')", GROUP),
    Mistake("Groups with gaps", "sccello.tl.marker_genes(embedded, groupby='gaps')", GROUP),
    Mistake("Groups of one cell", "sccello.tl.marker_genes(embedded, groupby='barcode')", GROUP),
    Mistake("Labels that are not there", "sccello.pp.map_cell_types(adata, 'celltype')", LABEL),
    Mistake("Labels that are no cell types", "sccello.pp.map_cell_types(adata, 'barcode')", LABEL),
    Mistake("A reference without its labels", "sccello.tl.annotate(embedded, reference=embedded)", CONFIG),
    Mistake("A reference of one label", "sccello.tl.build_reference(embedded, label_key='same')", LABEL),
    Mistake("Fine-tuning to a number", "sccello.tl.finetune(adata, label_key='n_genes', out=folder / 'mine')", LABEL),
    Mistake("Fine-tuning to one label", "sccello.tl.finetune(adata, label_key='same', out=folder / 'mine')", LABEL),
    Mistake("Pretraining on labels that are no terms", "sccello.tl.pretrain(adata, out=folder / 'mine', label_key='cell_type')", LABEL),
    Mistake("Marker genes before they were computed", "sccello.get.marker_genes_df(adata)", MISSING),
    Mistake("An embedding to draw that is not there", "sccello.pl.compare_embeddings(adata, keys=['X_pca'], color='cell_type')", MISSING),
    Mistake("A file that is not there", "sccello.pp.build_corpus(folder / 'none.h5ad', folder / 'corpus')", FILE),
    Mistake("A file that was cut off", "sccello.pp.build_corpus(cut_file, folder / 'corpus')", FILE),
    Mistake("An AnnData instead of its file", "sccello.pp.build_corpus(adata, folder / 'corpus')", CORPUS),
    Mistake("Two files of one name", "sccello.embed_files([file, file], folder / 'out')", CORPUS),
    Mistake("A folder without embeddings", "sccello.open_embedded(folder)", EMBEDDED),
    Mistake("Two machines that do not know who they are", "sccello.embed_files(file, folder / 'out', num_nodes=2)", CONFIG),
    Mistake("Scores of unequal length", "sccello.metrics.annotation_score(['a', 'b'], ['a'], [['a']])", ARGUMENT),
    Mistake("Embedding and labels of unequal length", "sccello.metrics.clustering_score(embedded.obsm['X_sccello'], ['a', 'b'])", ARGUMENT),
    Mistake("A manifest that reaches out of the cache", "models.registry.read_manifest(evil_manifest)", MANIFEST),
]  # fmt: skip


def scene(folder: Path, tiny: Path) -> dict[str, Any]:
    """Everything that the mistakes are made with."""
    import shutil

    warnings.simplefilter("ignore")
    adata = sccello.datasets.pancreas_tritschler()[:20].copy()
    adata.obs["n_genes"] = np.asarray((adata.X > 0).sum(axis=1)).ravel()
    adata.obs["gaps"] = pd.Categorical(["a", None] * 10)
    adata.obs["barcode"] = [f"AAAC{i}" for i in range(20)]
    adata.obs["same"] = "pancreatic A cell"
    logged = adata.copy()
    logged.X = sparse.csr_matrix(logged.X).log1p()
    found = {"adata": adata, "logged": logged, "folder": folder / "here"}
    found["folder"].mkdir()
    found["with_layer"] = logged.copy()
    found["with_layer"].layers["counts"] = adata.X.copy()
    found["with_raw"] = logged.copy()
    found["with_raw"].raw = adata
    dense = sparse.csr_matrix(adata.X).toarray().astype(np.float32)
    spoilt = {
        "scaled": dense - dense.mean(axis=0),
        "boolean": dense > 0,
        "zeros": dense * 0,
        "with_nan": dense.copy(),
    }
    spoilt["with_nan"][3, 5] = np.nan
    for name, x in spoilt.items():
        found[name] = adata.copy()
        found[name].X = x
    found["no_x"] = anndata.AnnData(obs=adata.obs, var=adata.var)
    for name, ids in {"mouse": "ENSMUSG{:011d}", "entrez": "{}", "numbered": "{}"}.items():
        found[name] = adata.copy()
        start = 7157 if name == "entrez" else 0
        found[name].var_names = [ids.format(start + i) for i in range(adata.n_vars)]
    found["embedded"] = adata.copy()
    sccello.tl.embed(found["embedded"], device="cpu", max_length=64)
    found["with_pca"] = adata.copy()
    found["with_pca"].obsm["X_pca"] = dense[:, :128]
    found["file"] = folder / "cells.h5ad"
    adata.write_h5ad(found["file"])
    found["cut_file"] = folder / "cut.h5ad"
    found["cut_file"].write_bytes(found["file"].read_bytes()[:50_000])
    found["backed"] = anndata.read_h5ad(found["file"], backed="r")
    found["cut_model"] = folder / "cut_model"
    shutil.copytree(tiny, found["cut_model"])
    weights = found["cut_model"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    found["nan_model"] = models.load(tiny, device="cpu", keep=False)
    found["nan_model"].network.affine_projection.weight.data.fill_(0)
    found["nan_model"].network.encoder.norm.weight.data.fill_(float("nan"))
    found["evil_manifest"] = folder / "manifest.json"
    entry = next(
        e
        for e in json.loads((_resources() / "weights_manifest.json").read_text())["models"]
        if e["source"] == "huggingface"
    )
    entry["files"][0]["path"] = "../../.bashrc"
    found["evil_manifest"].write_text(json.dumps({"schema_version": 1, "models": [entry]}))
    found |= {"sccello": sccello, "models": models, "metrics": metrics, "offline": offline}
    return found


def _resources() -> Path:
    from importlib.resources import files

    return files("sccello_tools") / "resources"


def offline(call: Any) -> Any:
    before = sccello.settings.offline
    sccello.settings.offline = True
    try:
        return call()
    finally:
        sccello.settings.offline = before


def told(mistake: Mistake, names: dict[str, Any]) -> tuple[str, str]:
    """Make the mistake; name of the error, and its message with places that differ from machine to machine left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(mistake.code, dict(names))
    except Exception as error:  # noqa: BLE001 - what is no ScCelloError shows in the comparison
        text = (
            str(error)
            .replace(str(names["folder"].parent), "…")
            .replace(str(sccello.settings.cache_dir), "…")
        )
        return type(error).__name__, text
    return "", "nothing was said"


def render(rows: list[tuple[Mistake, str, str]]) -> str:
    """docs/mistakes.md."""
    text = [
        "# Sixty mistakes",
        "",
        "What the package says when something cannot work. A test makes each of these mistakes and compares; `scripts/write_mistakes.py` writes this page.",
    ]
    for mistake, error, message in rows:
        text += [
            "",
            f"**{mistake.what}** — `{mistake.code}`",
            "",
            "```text",
            f"{error}: {message}",
            "```",
        ]
    return "\n".join(text) + "\n"
