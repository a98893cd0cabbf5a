"""tl.finetune and tl.predict: from labelled AnnData to a model folder, and back to labels."""

from __future__ import annotations

import json
import logging

import anndata
import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools.errors import (
    ConfigError,
    GeneMatchError,
    GroupError,
    LabelError,
    NotCountsError,
    OutputExistsError,
    WeightsError,
)
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.training.finetune import FinetuneConfig, classifier_of

QUICK = FinetuneConfig(max_epochs=30, batch_cells=8, learning_rate=0.05)


@pytest.fixture
def labelled(gene_ids) -> anndata.AnnData:
    """Counts of 60 cells from four donors; each of two labels has genes of its own."""
    rng = np.random.default_rng(0)
    state = np.arange(60) % 2
    mean = np.where((np.arange(len(gene_ids)) % 2)[None] == state[:, None], 3.0, 0.3)
    obs = pd.DataFrame(
        {
            "state": pd.Categorical(np.array(["well", "ill, β"])[state]),
            "donor": pd.Categorical(np.repeat(["a", "b", "c", "d"], 15)),
        },
        index=[f"cell{i}" for i in range(60)],
    )
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=gene_ids))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model whose rows tell the two labels apart: deep networks drawn at random forget their input."""
    config = EncoderConfig(
        hidden_size=16,
        n_layers=2,
        n_heads=2,
        intermediate_size=24,
        max_positions=128,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ScCelloModel(config)
        torch.nn.init.normal_(network.encoder.word_embeddings.weight)
        torch.nn.init.constant_(network.encoder.layers[-1].feed_forward_norm.weight, 5.0)
    types = pd.DataFrame({"cell_type_ontology_term_id": ["CL:0000084"], "cell_type": ["T cell"]})
    folder = tmp_path_factory.mktemp("base") / "tiny"
    models.save(network, folder, labels=types, metadata={"name": "tiny"})
    return models.load(folder, device="cpu")


@pytest.fixture
def finetune(base, tmp_path):
    def run(adata, label_key="state", **options):
        defaults = {"out": tmp_path / "mine", "model": base, "config": QUICK}
        return sccello.tl.finetune(adata, label_key, **defaults | options)

    return run


def right(adata, key="sccello_prediction") -> float:
    return float((adata.obs[key].astype(str) == adata.obs["state"].astype(str)).mean())


@pytest.mark.parametrize("mode", ["linear", "lora", "full"])
def test_fine_tunes_loads_and_predicts(labelled, finetune, base, tmp_path, mode):
    before, weights = labelled.copy(), {n: v.clone() for n, v in base.network.state_dict().items()}
    model = finetune(labelled, mode=mode, batch_key="donor")
    pd.testing.assert_frame_equal(labelled.obs, before.obs)
    assert (list(labelled.obsm), dict(labelled.uns)) == ([], {})
    assert all(torch.equal(v, weights[n]) for n, v in base.network.state_dict().items())

    assert model.name == "mine"
    assert model.labels == base.labels
    assert (model.sha256 == base.sha256) == (mode == "linear")
    classifier = classifier_of(models.load(tmp_path / "mine", keep=False))
    assert classifier.labels == ("ill, β", "well")
    assert (classifier.label_key, classifier.mode) == ("state", mode)
    assert len(classifier.validation_groups) == 1
    assert classifier.scores["n_cells"] == 15
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    files = {"config.json", "model.safetensors", "labels.tsv", "metadata.json"}
    assert names == files | {"classifier.safetensors", "finetuning_curve.csv"}
    run = json.loads((tmp_path / "mine" / "metadata.json").read_text("utf-8"))["finetune_config"]
    assert (run["mode"], run["base_model"], run["base_sha256"]) == (mode, "tiny", base.sha256)
    assert run["learning_rate"] == 0.05

    sccello.tl.predict(labelled, tmp_path / "mine")  # the one line that follows
    assert right(labelled) >= 0.85
    assert labelled.obs["sccello_prediction"].cat.categories.tolist() == ["ill, β", "well"]
    confidence = labelled.obs["sccello_prediction_confidence"]
    assert confidence.dtype == np.float32
    assert confidence.between(0.5, 1).all()
    assert labelled.uns["sccello_prediction"]["weights_sha256"] == model.sha256


def test_linear_model_reuses_embeddings_of_its_base(labelled, finetune, base, monkeypatch):
    model = finetune(labelled)
    sccello.tl.embed(labelled, model=base)
    monkeypatch.setattr("sccello_tools.tl._hidden_states.embed", None)
    sccello.tl.predict(labelled, model)
    assert labelled.uns["sccello_prediction"]["use_rep"] == "X_sccello"


def test_embedding_of_another_model_is_kept(labelled, finetune, base):
    model = finetune(labelled, mode="full")
    sccello.tl.embed(labelled, model=base)
    before = labelled.obsm["X_sccello"].copy()
    sccello.tl.predict(labelled, model)
    assert np.array_equal(labelled.obsm["X_sccello"], before)
    assert labelled.uns["sccello_prediction"]["use_rep"] == "X_sccello_prediction"
    assert labelled.uns["X_sccello_prediction"]["weights_sha256"] == model.sha256
    with pytest.raises(ConfigError, match="'tiny'"):
        sccello.tl.predict(labelled, model, use_rep="X_sccello")


def test_cells_without_label_or_tokens_are_excluded_and_counted(labelled, finetune, caplog):
    labels = labelled.obs["state"].astype(object)
    labels.iloc[[0, 1]] = [np.nan, " "]
    labelled.obs["state"] = labels
    x = labelled.X.tolil()
    x[5] = 0
    labelled.X = x.tocsr()
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        model = finetune(labelled)
    said = [r.getMessage() for r in caplog.records]
    assert ["2 have no label" in said[0], "excluded 1 labelled" in said[1]] == [True, True]
    assert classifier_of(model).labels == ("ill, β", "well")
    assert classifier_of(model) is classifier_of(model)
    with pytest.warns(UserWarning, match="1 of 60 cells have no count"):
        sccello.tl.predict(labelled, model, return_scores=True)
    assert labelled.obs["sccello_prediction"].isna().tolist() == [i == 5 for i in range(60)]
    assert np.isnan(labelled.obs["sccello_prediction_confidence"].iloc[5])
    scores = labelled.obsm["sccello_prediction_scores"]
    assert scores.columns.tolist() == ["ill, β", "well"]
    assert np.allclose(scores.drop(index="cell5").sum(axis=1), 1, atol=1e-5)


def test_uninformative_labels_are_excluded_and_counted(labelled, finetune, caplog):
    labels = labelled.obs["state"].astype(object)
    labels.iloc[:12] = ["Unknown", "nan", "NA", "doublet"] * 3
    labelled.obs["state"] = pd.Categorical(labels)
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        model = finetune(labelled)
    assert classifier_of(model).labels == ("ill, β", "well")
    assert "12 of 60 cells" in caplog.text
    assert "'doublet' (3)" in caplog.text


def test_a_model_is_replaced_on_request_only(labelled, finetune, base, tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(OutputExistsError, match="file"):
        finetune(labelled, out=path, overwrite=True)
    finetune(labelled, mode="linear")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        finetune(labelled)
    labelled.obs["sex"] = np.where(np.arange(60) % 2, "f", "m")
    model = finetune(labelled, "sex", overwrite=True)
    assert classifier_of(model).labels == ("f", "m")


def test_labels_that_no_file_can_hold_as_columns(labelled, finetune, tmp_path):
    labelled.obs["state"] = np.where(labelled.obs["state"] == "well", "T/NK", "B")
    model = finetune(labelled)
    with pytest.warns(UserWarning, match="T/NK"):
        sccello.tl.predict(labelled, model, return_scores=True)
    assert set(labelled.obs["sccello_prediction"].cat.categories) == {"B", "T/NK"}
    labelled.write_h5ad(tmp_path / "cells.h5ad")
    assert "sccello_prediction_scores" in anndata.read_h5ad(tmp_path / "cells.h5ad").obsm


def test_a_second_prediction_removes_the_scores_of_the_first(labelled, finetune):
    model = finetune(labelled)
    sccello.tl.predict(labelled, model, return_scores=True)
    sccello.tl.predict(labelled, model)
    assert "sccello_prediction_scores" not in labelled.obsm


def test_the_spare_embedding_is_computed_again_for_other_counts(labelled, finetune, base):
    model = finetune(labelled, mode="full")
    sccello.tl.embed(labelled, model=base)
    sccello.tl.predict(labelled, model)
    first = labelled.obsm["X_sccello_prediction"].copy()
    labelled.layers["half"] = labelled.X.copy()
    labelled.layers["half"].data //= 2
    sccello.tl.predict(labelled, model, layer="half")
    assert not np.allclose(labelled.obsm["X_sccello_prediction"], first, atol=1e-3)


def test_rare_labels_are_reported_and_trained_on(labelled, finetune, caplog):
    labelled.obs["state"] = ["only one", *labelled.obs["state"].astype(str)[1:]]
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        model = finetune(labelled)
    assert "1 labels of 'state' have fewer than 5 usable cells" in caplog.text
    assert "only one" in classifier_of(model).labels


def test_true_and_false_are_labels(labelled, finetune):
    labelled.obs["ill"] = (labelled.obs["state"] != "well").to_numpy()
    assert classifier_of(finetune(labelled, "ill")).labels == ("False", "True")


def test_layer_and_gene_ids(labelled, finetune):
    labelled.layers["counts"] = labelled.X
    labelled.X = labelled.X.log1p()
    labelled.var["ensembl"] = labelled.var_names
    labelled.var_names = [f"g{i}" for i in range(labelled.n_vars)]
    model = finetune(labelled, layer="counts", gene_ids="ensembl", name="other")
    assert model.name == "other"
    sccello.tl.predict(labelled, model, layer="counts", gene_ids="ensembl")
    assert right(labelled) > 0.8


def test_a_fine_tuned_model_can_be_fine_tuned_again(labelled, finetune, tmp_path):
    first = finetune(labelled, mode="lora", out=tmp_path / "1")
    second = finetune(labelled, mode="linear", out=tmp_path / "2", model=first)
    assert second.sha256 == first.sha256
    assert second.labels == first.labels


def test_published_checkpoint_is_copied(labelled, finetune, golden_dir, tmp_path):
    published = models.load(golden_dir / "checkpoint", device="cpu")
    model = finetune(labelled, model=published)
    assert model.sha256 == published.sha256
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert "pytorch_model.bin" in names
    assert "model.safetensors" not in names
    sccello.tl.predict(labelled, model)
    assert labelled.obs["sccello_prediction"].notna().all()


def test_callbacks_and_loggers_go_to_the_trainer(labelled, finetune):
    seen = []

    class Seeing(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(trainer.current_epoch)

    finetune(labelled, trainer_kwargs={"callbacks": Seeing()})
    assert seen[0] == 0
    assert len(seen) > 1


def test_an_annotated_model_keeps_its_statistics_with_mode_linear(pancreas, tmp_path):
    model = sccello.tl.finetune(pancreas, "cell_type", out=tmp_path / "mine", config=QUICK)
    sccello.tl.annotate_novel(pancreas, model=model)
    assert pancreas.obs["sccello_cell_type"].notna().all()


def test_predictions_survive_files_subsets_and_copies(labelled, finetune, tmp_path, write_zarr):
    model = finetune(labelled)
    copied = sccello.tl.predict(labelled, model, return_scores=True, key_added="p", copy=True)
    assert "p" not in labelled.obs
    copied.write_h5ad(tmp_path / "cells.h5ad")
    write_zarr(copied, tmp_path / "cells.zarr")
    for found in (
        anndata.read_h5ad(tmp_path / "cells.h5ad"),
        anndata.read_zarr(tmp_path / "cells.zarr"),
    ):
        assert found.obs["p"].astype(str).tolist() == copied.obs["p"].astype(str).tolist()
        assert np.array_equal(found.obsm["p_scores"], copied.obsm["p_scores"])
        assert found.uns["p"]["mode"] == "linear"
    part = copied[10:20].copy()
    assert part.obs["p"].tolist() == copied.obs["p"].tolist()[10:20]


def numbers(adata):
    adata.obs["state"] = np.arange(60) / 7


def one_label(adata):
    adata.obs["state"] = "well"


def no_label(adata):
    adata.obs["state"] = np.nan


def names_of_cells(adata):
    adata.obs["state"] = adata.obs_names.to_numpy()


def no_column(adata):
    del adata.obs["state"]


def donor_missing(adata):
    adata.obs["donor"] = [np.nan, *adata.obs["donor"].astype(str)[1:]]


def one_donor(adata):
    adata.obs["donor"] = "a"


def no_counts(adata):
    adata.X = adata.X.log1p()


def other_genes(adata):
    adata.var_names = [str(i) for i in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (numbers, LabelError, r"'state'.*60 distinct.*astype\('category'\)"),
        (one_label, LabelError, r"at least two labels; adata\.obs\['state'\] has \['well'\] in 60"),
        (no_label, LabelError, "is empty: no cell has a label"),
        (names_of_cells, LabelError, "60 labels for 60 usable cells"),
        (no_column, LabelError, r"'state' \(columns: 'donor'\).*label_key"),
        (donor_missing, GroupError, r"\['donor'\] is missing for 1 of 60 labelled cells"),
        (one_donor, GroupError, r"one batch \('a'\).*batch_key"),
        (no_counts, NotCountsError, r"adata\.X does not hold raw counts"),
        (other_genes, GeneMatchError, "0 of 900 genes match"),
    ],
)
def test_invalid_labels_and_data(labelled, finetune, tmp_path, spoil, error, says):
    spoil(labelled)
    with pytest.raises(error, match=says):
        finetune(labelled, batch_key="donor")
    assert not (tmp_path / "mine").exists()


def test_invalid_options(labelled, finetune, base, tmp_path):
    with pytest.raises(ConfigError, match=r"mode.*'probing'"):
        finetune(labelled, mode="probing")
    with pytest.raises(GroupError, match="has no column 'patient'"):
        finetune(labelled, batch_key="patient")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(FileExistsError, match="is not empty"):
        finetune(labelled)
    with pytest.raises(WeightsError, match=r"'tiny' has no classifier\.safetensors"):
        sccello.tl.predict(labelled, base)
    assert "sccello_prediction" not in labelled.obs
