"""Every public function with models in the published format: the golden checkpoint, and random weights of the published size."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools import cli
from sccello_tools.ontology import published_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # all together
LABEL = "cell_type_ontology_term_id"
TYPE = "sccello_cell_type"
N_GENES = 600  # more than `min_matched`, few enough for short sequences
INS, GCG = "ENSG00000254647", "ENSG00000115263"


@pytest.fixture(scope="module", params=["golden checkpoint", "published size"])
def folder(request) -> Path:
    fixtures = {
        "golden checkpoint": "golden_model_folder",
        "published size": "published_size_model_folder",
    }
    return request.getfixturevalue(fixtures[request.param])


@pytest.fixture(scope="module")
def model(folder) -> sccello.models.LoadedModel:
    return sccello.models.load(folder, device="cpu")


@pytest.fixture(scope="module")
def _cells() -> anndata.AnnData:
    """24 real cells of three types and three batches, and 600 genes that not all cells express."""
    adata = sccello.datasets.pancreas_tritschler()
    largest = adata.obs[LABEL].value_counts().index[:3]
    rows = np.concatenate([np.flatnonzero(adata.obs[LABEL] == kind)[:8] for kind in largest])
    matched = sccello.pp.match_genes(adata).tokens >= 0
    genes = np.random.default_rng(0).permutation(np.flatnonzero(matched))[: N_GENES - 2]
    columns = np.union1d(genes, adata.var_names.get_indexer([INS, GCG]))
    adata = adata[rows, columns].copy()
    adata.obs = adata.obs[[LABEL, "cell_type"]]
    adata.obs["batch"] = pd.Categorical(np.resize(["a", "b", "c"], adata.n_obs))
    adata.var = adata.var[[]]
    return adata


@pytest.fixture
def cells(_cells) -> anndata.AnnData:
    return _cells.copy()


@pytest.fixture
def path(cells, tmp_path) -> Path:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture(scope="module")
def calibrated(_cells, folder, tmp_path_factory) -> Path:
    """The model with calibration statistics of the cells."""
    out = tmp_path_factory.mktemp("calibrated") / "model"
    sccello.tl.calibrate(_cells.copy(), LABEL, model=folder, out=out, batch_key="batch")
    return out


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[str, str]]:
    """Call the command line; returns what it prints to standard output and standard error."""

    def call(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["sccello", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        return captured.out, captured.err

    return call


def check_annotation(obs: pd.DataFrame, *, confidence: bool = True) -> None:
    """Every cell has a term of the ontology and, where the method has one, a confidence in [0, 1]."""
    ontology = sccello.ontology.CellOntology.load()
    assert set(obs[f"{TYPE}_ontology_term_id"].astype(str)) <= set(ontology.terms)
    if confidence:
        assert obs[f"{TYPE}_confidence"].between(0, 1).all()


# --- embedding


@pytest.mark.parametrize("representation", ["cls", "cell"])
def test_embed(cells, model, representation) -> None:
    sccello.tl.embed(cells, model=model, representation=representation)
    x = cells.obsm["X_sccello"]
    assert model.labels == tuple(published_labels())
    assert x.shape == (cells.n_obs, model.config.hidden_size)
    assert np.isfinite(x).all()
    assert np.linalg.matrix_rank(x - x.mean(axis=0)) > 5  # cells differ


def test_gene_embeddings(model) -> None:
    genes = sccello.tl.gene_embeddings(model)
    assert genes.X.shape == (25_424, model.config.hidden_size)


def test_embed_files(path, model, folder, tmp_path) -> None:
    found = sccello.embed_files(path, tmp_path / "embedded", model=folder, cells_per_block=20)
    adata = anndata.read_h5ad(path)
    sccello.tl.embed(adata, model=model)
    np.testing.assert_allclose(np.asarray(found), adata.obsm["X_sccello"], atol=1e-5)


# --- annotation


@pytest.mark.parametrize("method", ["combined", "published"])
def test_annotate_novel_by_prototypes(cells, model, method) -> None:
    with pytest.warns(UserWarning, match=r"tl\.calibrate"):
        sccello.tl.annotate_novel(cells, model=model, method=method)
    check_annotation(cells.obs, confidence=method == "combined")
    assert not cells.uns[TYPE]["calibrated"]


def test_annotate_files_by_prototypes(cells, path, folder, model, tmp_path) -> None:
    with pytest.warns(UserWarning, match=r"tl\.calibrate"):
        found = sccello.annotate_files(path, tmp_path / "out", model=folder, cells_per_block=20)
    with pytest.warns(UserWarning, match=r"tl\.calibrate"):
        sccello.tl.annotate_novel(cells, model=model)
    assert found.read("cells")[TYPE].astype(str).tolist() == cells.obs[TYPE].astype(str).tolist()


def test_annotate_from_a_reference(cells, model, tmp_path) -> None:
    reference, query = cells[::2].copy(), cells[1::2].copy()
    sccello.tl.annotate(query, reference, label_key=LABEL, model=model)
    assert set(query.obs[f"{TYPE}_ontology_term_id"].astype(str)) <= set(reference.obs[LABEL])
    check_annotation(query.obs)

    built = sccello.tl.build_reference(reference, LABEL, model=model, n_neighbors=5)
    again = query.copy()
    sccello.tl.annotate(again, built)
    check_annotation(again.obs)


@pytest.mark.parametrize("level", ["auto", "type"])
def test_annotation_by_calibrated_statistics(cells, calibrated, level) -> None:
    sccello.tl.annotate_novel(cells, model=calibrated, level=level)
    check_annotation(cells.obs)


def test_add_types(cells, calibrated, tmp_path) -> None:
    cells.obs["mine"] = pd.Categorical(np.where(cells.obs["batch"] == "a", "my type", "my other"))
    parents = {"my type": "CL:0000164", "my other": "CL:0000164"}
    extended = sccello.tl.add_types(
        cells, "mine", model=calibrated, out=tmp_path / "more", parents=parents
    )
    sccello.tl.annotate_novel(cells, model=extended, level="type", return_scores=True)
    assert {"my type", "my other"} <= set(cells.obsm[f"{TYPE}_scores"].columns)


def test_consensus_and_tables(cells, calibrated) -> None:
    sccello.tl.annotate_novel(cells, model=calibrated)
    sccello.tl.consensus(cells, [TYPE, "cell_type"])
    assert cells.obs["sccello_consensus"].notna().all()
    assert len(sccello.get.annotation_df(cells)) == cells.n_obs


# --- genes


@pytest.mark.parametrize("method", ["perturb", "fast", "screen"])
def test_marker_genes(cells, model, method) -> None:
    cells = cells[[0, 8]].copy()
    sccello.tl.marker_genes(cells, model=model, method=method, max_length=24)
    table = sccello.get.marker_genes_df(cells)
    assert np.isfinite(table["scores"]).any()


@pytest.mark.parametrize("mode", ["mask", "delete", "overexpress"])
def test_perturb(cells, model, mode) -> None:
    cells = cells[(cells[:, [INS, GCG]].X > 0).toarray().all(axis=1)][:2].copy()
    sccello.tl.perturb(cells, [INS, GCG], mode=mode, model=model, n_controls=2)
    assert (sccello.get.perturbation_df(cells)["shift"] > 0).any()


# --- training


@pytest.mark.parametrize("mode", ["linear", "lora"])
def test_finetune_and_predict(request, cells, model, tmp_path, mode) -> None:
    if mode == "lora" and "published" in request.node.callspec.id:
        pytest.skip("takes 20 s; the same code as for the golden checkpoint")
    config = sccello.training.FinetuneConfig(max_epochs=1, batch_cells=12)
    sccello.tl.finetune(
        cells, "cell_type", out=tmp_path / "tuned", mode=mode, model=model, config=config
    )
    sccello.tl.predict(cells, tmp_path / "tuned", return_scores=True)
    np.testing.assert_allclose(cells.obsm["sccello_prediction_scores"].sum(axis=1), 1, atol=1e-5)


def test_pretraining_continues(cells, model, tmp_path) -> None:
    size = {
        name: getattr(model.config, name)
        for name in ("hidden_size", "n_layers", "n_heads", "intermediate_size")
    }
    config = sccello.training.PretrainConfig(
        **size, max_steps=1, batch_cells=4, max_length=2048, warmup_steps=1, n_negatives=16
    )
    trained = sccello.tl.pretrain(
        cells, out=tmp_path / "more", start_from=model, config=config, devices=1,
        trainer_kwargs={"accelerator": "cpu"},
    )  # fmt: skip
    assert set(cells.obs[LABEL]) <= set(trained.labels)


def test_drug_response(cells, model, tmp_path) -> None:
    cells = sccello.datasets.pancreas_tritschler()[:4].copy()  # all genes
    data = sccello.datasets.gdsc()
    data = dataclasses.replace(
        data, expression=data.expression[:12], ln_ic50=data.ln_ic50[:12], report=None
    )
    config = sccello.drug.DrugResponseConfig(
        max_epochs=1, hidden_size=8, graph_size=8, n_graph_layers=1, n_components=5
    )
    trained = sccello.tl.train_drug_response(
        data,
        model=model,
        n_members=1,
        config=config,
        out=tmp_path / "drugs",
    )
    sccello.tl.drug_response(cells, model=trained)
    assert np.isfinite(cells.obsm["sccello_drug_response"].to_numpy()).all()


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_interface_of_scvi_tools(cells, model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within scvi-tools' dependencies
        pytest.importorskip("scvi")
        interface = sccello.scvi.ScCello
    interface.setup_anndata(cells, labels_key="cell_type", batch_key="batch")
    wrapped = interface(cells, model=model)
    latent = wrapped.get_latent_representation()
    sccello.tl.embed(cells, model=model)
    np.testing.assert_allclose(latent, cells.obsm["X_sccello"], atol=1e-5)
    wrapped.train(max_epochs=1, batch_size=16, enable_progress_bar=False, accelerator="cpu")
    assert set(wrapped.predict()) <= set(cells.obs["cell_type"])


# --- command line


def test_command_embed(path, folder, tmp_path, run) -> None:
    run("embed", path, "-o", tmp_path / "out.h5ad", "--model", folder)
    assert "X_sccello" in anndata.read_h5ad(tmp_path / "out.h5ad").obsm


def test_command_models_info(folder, model, run) -> None:
    printed, _ = run("models", "info", folder, "--json")
    assert json.loads(printed)["config"]["hidden_size"] == model.config.hidden_size
    printed, _ = run("models", "info", folder)
    assert "398" in printed
    assert str(folder) in printed.replace("\n", "")


def test_command_perturb(path, folder, tmp_path, run) -> None:
    run(
        "perturb", path, "-o", tmp_path / "out.csv", "--gene", INS, "--model", folder, "--cells", 2,
        "--controls", 0, "--groupby", "cell_type",
    )  # fmt: skip
    assert len(pd.read_csv(tmp_path / "out.csv")) == 3


def test_commands_with_a_calibrated_model(path, calibrated, tmp_path, run) -> None:
    out = tmp_path / "out.h5ad"
    run("annotate", path, "-o", out, "--model", calibrated)
    check_annotation(anndata.read_h5ad(out).obs)
    run("report", out, "-o", tmp_path / "report.html", "--model", calibrated, "--cells", 2)
    assert "<title>" in (tmp_path / "report.html").read_text("utf-8")


def test_annotate_files_with_a_calibrated_model(path, calibrated, tmp_path) -> None:
    found = sccello.annotate_files(path, tmp_path / "out", model=calibrated, cells_per_block=20)
    check_annotation(found.read("cells"))
