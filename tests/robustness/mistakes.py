"""Sixty mistakes of users, with the exception type, the offending value and the remedy that each message must contain."""

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
    """A call that must fail."""

    what: str
    code: str
    error: str
    """Name of the exception type."""
    value: str
    """Regular expression of the offending value in the message."""
    remedy: str
    """Regular expression of the remedy in the message."""


COUNTS, GENES, LABEL, MODEL = "NotCountsError", "GeneMatchError", "LabelError", "ModelNotFoundError"
ARGUMENT, CONFIG, GROUP, MISSING = "ArgumentError", "ConfigError", "GroupError", "NotFoundError"
FILE, CORPUS, BACKED, BACKEND = "FileFormatError", "CorpusError", "BackedDataError", "BackendError"
EMBEDDED, WEIGHTS, MANIFEST = "FilesError", "WeightsError", "ManifestError"

MISTAKES = [
    Mistake("Log-normalised values", "sccello.tl.embed(logged)", COUNTS, r"adata.X.*fractions", r"counts='trust'"),
    Mistake("Log-normalised values, counts in a layer", "sccello.tl.embed(with_layer)", COUNTS, r"adata.X.*fractions", r"layer='counts'"),
    Mistake("Log-normalised values, counts in .raw", "sccello.tl.embed(with_raw)", COUNTS, r"adata.X.*fractions", r"layer='raw.X'"),
    Mistake("Scaled values", "sccello.pp.tokenize(scaled)", COUNTS, r"negative", r"unnormalised counts"),
    Mistake("A NaN among the counts", "sccello.pp.tokenize(with_nan)", COUNTS, r"1 values are NaN", r"fill_value=0"),
    Mistake("A boolean matrix", "sccello.pp.tokenize(boolean)", COUNTS, r"boolean", r"counts='trust'"),
    Mistake("No counts", "sccello.pp.tokenize(zeros)", COUNTS, r"zero", r"unnormalised counts"),
    Mistake("X is None", "sccello.pp.tokenize(no_x)", COUNTS, r"adata.X is empty", r"unnormalised counts"),
    Mistake("A missing layer", "sccello.tl.embed(adata, layer='raw_counts')", COUNTS, r"'raw_counts'", r"layer=None"),
    Mistake("Fractions that even trust refuses", "sccello.tl.embed(scaled, counts='trust')", COUNTS, r"negative", r"unnormalised counts"),
    Mistake("Rat genes", "sccello.pp.match_genes(rat)", GENES, r"ENSRNOG00000000000", r"orthologs"),
    Mistake("Entrez numbers", "sccello.pp.match_genes(entrez)", GENES, r"'7157'", r"gene_ids="),
    Mistake("Row numbers instead of names", "sccello.pp.match_genes(numbered)", GENES, r"row numbers", r"gene_ids="),
    Mistake("Another organism", "sccello.pp.match_genes(adata, organism='rat')", GENES, r"'rat'", r"orthologs"),
    Mistake("A column of var that is not there", "sccello.tl.embed(adata, gene_ids='ensembl')", GENES, r"'ensembl'", r"gene_ids="),
    Mistake("Few genes left after selecting variable ones", "sccello.tl.embed(adata[:, :300].copy())", GENES, r"Only 123 of 300", r"min_matched"),
    Mistake("Genes and cells swapped", "sccello.tl.embed(adata.T.copy())", GENES, r"'pancreas_tritschler-0'", r"adata\.T"),
    Mistake("A misspelt model", "sccello.models.load('sccello-smal')", MODEL, r"'sccello-smal'", r"'sccello-small'"),
    Mistake("A folder that is no model", "sccello.models.load(folder)", WEIGHTS, r"here", r"models.list|models.save|tl.pretrain"),
    Mistake("Weights that were cut off", "sccello.models.load(cut_model)", WEIGHTS, r"model.safetensors", r"again"),
    Mistake("Weights with NaN", "sccello.tl.embed(adata, model=nan_model)", WEIGHTS, r"NaN.*20 cells", r"float32"),
    Mistake("A model offline that was never fetched", "offline(lambda: sccello.models.load('sccello-zeroshot'))", "DownloadError", r"'sccello-zeroshot'", r"settings.offline"),
    Mistake("A missing GPU", "sccello.tl.embed(adata, device='cuda:7')", BACKEND, r"'cuda:7'", r"cpu"),
    Mistake("A device that does not exist", "sccello.tl.embed(adata, device='gpu')", BACKEND, r"'gpu'", r"cpu"),
    Mistake("Flash attention on a CPU", "sccello.tl.embed(adata, device='cpu', attention='torch_varlen')", BACKEND, r"'torch_varlen'", r"'sdpa'"),
    Mistake("An attention backend that does not exist", "sccello.tl.embed(adata, device='cpu', attention='fast')", BACKEND, r"'fast'", r"'sdpa'"),
    Mistake("A precision that does not exist", "sccello.tl.embed(adata, precision='float64')", BACKEND, r"'float64'", r"'float32'"),
    Mistake("More tokens than the model has positions", "sccello.tl.embed(adata, max_length=4096)", ARGUMENT, r"4096", r"512"),
    Mistake("One token per cell", "sccello.pp.tokenize(adata, max_length=1)", ARGUMENT, r"got 1", r"at least 2"),
    Mistake("No tokens per batch", "sccello.tl.embed(adata, batch_tokens=0)", ARGUMENT, r"got 0", r"positive integer"),
    Mistake("An unknown policy", "sccello.pp.tokenize(adata, counts='ignore')", ARGUMENT, r"'ignore'", r"'check', 'trust'"),
    Mistake("An unknown representation", "sccello.tl.embed(adata, representation='mean')", CONFIG, r"'mean'", r"'cls'"),
    Mistake("A copy of a backed AnnData", "sccello.tl.embed(backed, copy=True)", BACKED, r"cells.h5ad", r"to_memory"),
    Mistake("A view of a backed AnnData", "sccello.tl.embed(backed[:5])", BACKED, r"cells.h5ad", r"to_memory"),
    Mistake("An embedding that is not there", "sccello.tl.annotate_novel(adata, use_rep='X_pca')", CONFIG, r"'X_pca'", r"tl.embed"),
    Mistake("An embedding of another method", "sccello.tl.annotate_novel(with_pca, use_rep='X_pca')", CONFIG, r"'X_pca'", r"tl.embed"),
    Mistake("An impossible error rate", "sccello.tl.annotate_novel(embedded, alpha=10)", CONFIG, r"10", r"0.*1"),
    Mistake("A candidate that is no term", "sccello.tl.annotate_novel(embedded, candidates=['tee cell'])", LABEL, r"'tee cell'", r"CL:0000084|match_label"),
    Mistake("A term that does not exist", "sccello.tl.annotate_novel(embedded, candidates=['CL:9999999'])", LABEL, r"'CL:9999999'", r"CellOntology.load"),
    Mistake("Clusters that are not there", "sccello.tl.annotate_novel(embedded, groupby='leiden')", GROUP, r"'leiden'", r"groupby="),
    Mistake("Clusters that are numbers", "sccello.tl.annotate_novel(embedded, groupby='n_genes')", GROUP, r"'n_genes'", r"astype\('category'\)"),
    Mistake("Groups with gaps", "sccello.tl.marker_genes(embedded, groupby='gaps')", GROUP, r"10 of 20", r"notna"),
    Mistake("Groups of one cell", "sccello.tl.marker_genes(embedded, groupby='barcode')", GROUP, r"'AAAC0' .1.", r"[Mm]erge"),
    Mistake("Labels that are not there", "sccello.pp.map_cell_types(adata, 'celltype')", LABEL, r"'celltype'", r"key="),
    Mistake("Labels that are no cell types", "sccello.pp.map_cell_types(adata, 'barcode')", LABEL, r"'barcode'", r"overrides="),
    Mistake("A reference without its labels", "sccello.tl.annotate(embedded, reference=embedded)", CONFIG, r"AnnData", r"label_key="),
    Mistake("A reference of one label", "sccello.tl.build_reference(embedded, label_key='same')", LABEL, r"'pancreatic A cell'", r"label_key"),
    Mistake("Fine-tuning to a number", "sccello.tl.finetune(adata, label_key='n_genes', out=folder / 'mine')", LABEL, r"'n_genes'", r"astype\('category'\)"),
    Mistake("Fine-tuning to one label", "sccello.tl.finetune(adata, label_key='same', out=folder / 'mine')", LABEL, r"'same'", r"label_key"),
    Mistake("Pretraining on labels that are no terms", "sccello.tl.pretrain(adata, out=folder / 'mine', label_key='cell_type')", LABEL, r"' is not a term", r"CL:0000084|map_cell_types|match_label"),
    Mistake("Marker genes before they were computed", "sccello.get.marker_genes_df(adata)", MISSING, r"'sccello_marker_genes'", r"tl.marker_genes"),
    Mistake("An embedding to draw that is not there", "sccello.pl.compare_embeddings(adata, keys=['X_pca'], color='cell_type')", MISSING, r"'X_pca'", r"tl.embed"),
    Mistake("A file that is not there", "sccello.pp.build_corpus(folder / 'none.h5ad', folder / 'corpus')", FILE, r"none.h5ad", r"h5ad|zarr"),
    Mistake("A file that was cut off", "sccello.pp.build_corpus(cut_file, folder / 'corpus')", FILE, r"cut.h5ad", r"damaged|again|truncated"),
    Mistake("An AnnData instead of its file", "sccello.pp.build_corpus(adata, folder / 'corpus')", ARGUMENT, r"AnnData", r"write_h5ad"),
    Mistake("Two files of one name", "sccello.embed_files([file, file], folder / 'out')", ARGUMENT, r"'cells'", r"mapping|names"),
    Mistake("A folder without embeddings", "sccello.open_embedded(folder)", EMBEDDED, r"here", r"embed_files"),
    Mistake("Scores of unequal length", "sccello.metrics.annotation_score(['a', 'b'], ['a'], [['a']])", ARGUMENT, r"2.*1", r"same cells"),
    Mistake("Embedding and labels of unequal length", "sccello.metrics.clustering_score(embedded.obsm['X_sccello'], ['a', 'b'])", ARGUMENT, r"20.*2", r"same cells"),
    Mistake("A manifest with a path outside the cache", "models.registry.read_manifest(evil_manifest)", MANIFEST, r"bashrc", r"path"),
]  # fmt: skip


def scene(folder: Path, tiny: Path) -> dict[str, Any]:
    """Return the names that the code of the mistakes uses."""
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
    for name, ids in {"rat": "ENSRNOG{:011d}", "entrez": "{}", "numbered": "{}"}.items():
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


def attempt(mistake: Mistake, names: dict[str, Any]) -> tuple[str, str]:
    """Run the code of a mistake; returns the name of the exception type and the message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(mistake.code, dict(names))
    except Exception as error:  # noqa: BLE001 - the caller compares the type
        return type(error).__name__, str(error)
    return "", "no exception was raised"
