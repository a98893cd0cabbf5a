"""tl.pretrain: from AnnData to a model folder, and which cells train."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools.errors import (
    ConfigError,
    GeneMatchError,
    LabelError,
    NotCountsError,
    OutputExistsError,
)
from sccello_tools.ontology import CellOntology
from sccello_tools.training.pretrain import PretrainConfig

if TYPE_CHECKING:
    import anndata

T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"
TERM = "cell_type_ontology_term_id"


@pytest.fixture(scope="module")
def ontology() -> CellOntology:
    return CellOntology.load()


@pytest.fixture
def labelled(adata) -> anndata.AnnData:
    adata.obs[TERM] = pd.Categorical([T_CELL, B_CELL, NEURON] * 10)
    return adata


@pytest.fixture
def config() -> PretrainConfig:
    return PretrainConfig(
        hidden_size=8,
        n_layers=1,
        n_heads=2,
        intermediate_size=8,
        max_length=32,
        max_steps=2,
        batch_cells=4,
        n_negatives=32,
    )


@pytest.fixture
def pretrain(tmp_path, ontology, config):
    def run(adatas, **options):
        return sccello.tl.pretrain(
            adatas, **{"out": tmp_path / "mine", "config": config, "ontology": ontology} | options
        )

    return run


def test_writes_a_model_that_loads_and_embeds(labelled, pretrain, tmp_path, config, ontology):
    before = labelled.copy()
    model = pretrain(labelled)
    assert model.labels == (T_CELL, B_CELL, NEURON)
    assert model.label_names == ("T cell", "B cell", "neuron")
    assert model.name == "mine"
    assert model.ontology_release == ontology.release
    assert model.config.hidden_size == 8
    assert model.config.max_positions == 32
    assert model.entry.training_data.n_cells == 30
    assert not model.network.training

    files = {path.name for path in (tmp_path / "mine").iterdir()}
    assert files == {
        "config.json",
        "model.safetensors",
        "labels.tsv",
        "metadata.json",
        "training_curve.csv",
    }
    curve = pd.read_csv(tmp_path / "mine" / "training_curve.csv")
    assert curve["step"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(labelled.obs, before.obs)
    assert list(labelled.obsm) == []
    assert dict(labelled.uns) == {}

    sccello.tl.embed(labelled, model=model)
    assert labelled.obsm["X_sccello"].shape == (30, 8)
    assert labelled.uns["X_sccello"]["model"] == "mine"
    assert labelled.uns["X_sccello"]["ontology_release"] == ontology.release
    assert models.load(tmp_path / "mine", keep=False).sha256 == model.sha256


def weights(model) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def test_seed_determines_the_result(labelled, pretrain, config, tmp_path):
    one = weights(pretrain(labelled, out=tmp_path / "1"))
    two = weights(pretrain(labelled, out=tmp_path / "2"))
    other = weights(pretrain(labelled, out=tmp_path / "3", config=config.replace(seed=1)))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert not torch.allclose(
        one["encoder.word_embeddings.weight"], other["encoder.word_embeddings.weight"]
    )


def test_single_list_and_mapping(labelled, pretrain, tmp_path):
    halves = [labelled[:15].copy(), labelled[15:].copy()]
    halves[1].var_names = [
        f"{name}.3" for name in halves[1].var_names
    ]  # other names for the same genes
    described = {}
    for form, adatas in {
        "one": labelled,
        "list": halves,
        "mapping": {"a": halves[0], "b": halves[1]},
    }.items():
        model = pretrain(adatas, out=tmp_path / form)
        described[form] = model.entry.training_data.description
        assert model.entry.training_data.n_cells == 30
        assert model.labels == (T_CELL, B_CELL, NEURON)
    assert described == {
        "one": "cells (30 cells)",
        "list": "cells-0 (15 cells), cells-1 (15 cells)",
        "mapping": "a (15 cells), b (15 cells)",
    }


def test_obsolete_ids_are_replaced(labelled, pretrain):
    labelled.obs[TERM] = ["CL:0000044", B_CELL, NEURON] * 10
    assert pretrain(labelled).labels == ("CL:0000051", B_CELL, NEURON)


def test_cells_without_label_or_tokens_are_excluded_and_counted(labelled, pretrain, caplog):
    labels = labelled.obs[TERM].astype(object)
    labels.iloc[[0, 1]] = np.nan
    labels.iloc[2] = ""
    labelled.obs[TERM] = labels
    x = labelled.X.tolil()
    x[[2, 9]] = 0  # one of them has no label either
    labelled.X = x.tocsr()
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        # no warning that their embedding is NaN: nothing is embedded here
        model = pretrain({"blood": labelled})
    said = [r.getMessage() for r in caplog.records]
    assert ["3 have no label" in said[0], "excluded 1 of 30" in said[1]] == [True, True]
    assert all(line.startswith("blood: ") for line in said)
    assert model.entry.training_data.n_cells == 26


def test_layer_gene_ids_and_label_key(labelled, pretrain):
    labelled.layers["counts"] = labelled.X
    labelled.X = labelled.X.log1p()
    labelled.var["ensembl"] = labelled.var_names
    labelled.var_names = [f"g{i}" for i in range(labelled.n_vars)]
    labelled.obs["own"] = labelled.obs.pop(TERM)
    model = pretrain(labelled, layer="counts", gene_ids="ensembl", label_key="own", name="other")
    assert model.name == "other"


def test_augmented_counts_are_those_of_the_matrix(labelled, pretrain, config, monkeypatch):
    from sccello_tools.training import pretrain as package

    seen = []
    real = package.fit
    monkeypatch.setattr(package, "fit", lambda sources, *a, **k: seen.extend(sources) or real(sources, *a, **k))  # fmt: skip
    labelled.obs[TERM] = [np.nan, *labelled.obs[TERM].astype(str)[1:]]
    pretrain(labelled, config=config.replace(thinning=0.5, gene_dropout=0.5, coherence="ontology"))
    (source,) = seen
    counts = source.counts.matrix
    assert counts.shape == (29, 25424)
    assert counts.sum() == labelled.X[1:].sum()
    names = sccello.tokens.GeneVocabulary.load().gene_ids
    for cell in (0, 28):
        _, genes = counts[[cell]].nonzero()
        assert set(names[genes]) == set(labelled.var_names[labelled.X[cell + 1].nonzero()[1]])


def test_float16_halves_the_file(labelled, pretrain, tmp_path):
    pretrain(labelled, out=tmp_path / "full")
    model = pretrain(labelled, out=tmp_path / "half", weights_dtype="float16")
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("full", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


def test_start_from_another_model(labelled, pretrain, tmp_path, config):
    first = pretrain(labelled, out=tmp_path / "first")
    # a rate so small that what the second run starts from is still to be seen in what it ends with
    still = config.replace(learning_rate=1e-9, seed=5)
    second = pretrain(
        labelled, out=tmp_path / "second", config=still, start_from=tmp_path / "first"
    )
    fresh = pretrain(labelled, out=tmp_path / "fresh", config=still)
    words = [m.network.word_embeddings.detach() for m in (first, second, fresh)]
    assert torch.allclose(words[1], words[0], atol=1e-6)
    assert not torch.allclose(words[2], words[0], atol=1e-3)


def test_resumes_from_a_checkpoint(labelled, pretrain, tmp_path, config):
    options = {"checkpoint_dir": tmp_path / "runs", "out": tmp_path / "a"}
    first = weights(pretrain(labelled, config=config.replace(max_steps=200), **options))
    assert (tmp_path / "runs" / "last.ckpt").is_file()
    other = options | {"out": tmp_path / "b"}
    with pytest.raises(ConfigError, match=r"other settings.*seed: 0 instead of 5"):
        pretrain(labelled, config=config.replace(max_steps=200, seed=5), **other)
    second = weights(pretrain(labelled, config=config.replace(max_steps=200), **options))
    assert all(torch.equal(first[name], second[name]) for name in first)


def one_type(adata):
    adata.obs[TERM] = T_CELL


def unknown_term(adata):
    adata.obs[TERM] = ["CL:9999999", B_CELL, NEURON] * 10


def free_text(adata):
    adata.obs[TERM] = ["T cells", B_CELL, NEURON] * 10


def no_label(adata):
    adata.obs[TERM] = np.nan


def no_column(adata):
    del adata.obs[TERM]


def no_counts(adata):
    adata.X = adata.X.log1p()


def other_genes(adata):
    adata.var_names = [str(i) for i in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (one_type, LabelError, rf"at least two cell types, found \['{T_CELL}'\]\. Pass more data"),
        (unknown_term, LabelError, "CL:9999999"),
        (free_text, LabelError, "T cells"),
        (no_label, LabelError, r"at least two cell types, found \[\]"),
        (
            no_column,
            LabelError,
            r"blood: .*cell_type_ontology_term_id.*'donor'",
        ),
        (no_counts, NotCountsError, r"adata\.X does not hold raw counts"),
        (other_genes, GeneMatchError, "0 of 900 genes match"),
    ],
)
def test_invalid_data(labelled, pretrain, tmp_path, spoil, error, says):
    spoil(labelled)
    with pytest.raises(error, match=says):
        pretrain({"blood": labelled})
    assert not list((tmp_path / "mine").glob("*"))


def test_no_data(pretrain):
    for nothing in ([], {}):
        with pytest.raises(LabelError, match="at least two cell types"):
            pretrain(nothing)


def test_uninformative_labels_are_excluded_and_counted(labelled, pretrain, caplog):
    labels = labelled.obs[TERM].astype(object)
    labels.iloc[:6] = ["unknown", "unknown", "CL:0000000", "CL:0000003", "doublet", "None"]
    labelled.obs[TERM] = labels
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        model = pretrain({"blood": labelled})
    assert model.labels == (T_CELL, B_CELL, NEURON)
    assert model.entry.training_data.n_cells == 24
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("blood: 6 of 30 cells")
    assert "'unknown' (2)" in line


def test_errors_name_the_source(labelled, pretrain):
    other = labelled.copy()
    other.var_names = [f"gene {i}" for i in range(other.n_vars)]
    with pytest.raises(GeneMatchError, match=r"^second: "):
        pretrain({"first": labelled, "second": other})


def test_a_model_is_replaced_on_request_only(labelled, pretrain, tmp_path, config):
    pretrain(labelled)
    (tmp_path / "mine" / "classifier.safetensors").write_text("of the first model")
    before = (tmp_path / "mine" / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match=r"mine contains a model.*overwrite=True"):
        pretrain(labelled, config=config.replace(seed=1))
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before
    pretrain(labelled, config=config.replace(seed=1), overwrite=True)
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() != before
    assert not (tmp_path / "mine" / "classifier.safetensors").exists()


def test_a_checkpoint_does_not_permit_replacing_another_model(labelled, pretrain, tmp_path, config):
    longer = config.replace(max_steps=200)
    options = {"config": longer, "checkpoint_dir": tmp_path / "c"}
    pretrain(labelled, **options)
    pretrain(labelled, **options)  # the result of this run
    pretrain(labelled, out=tmp_path / "other")
    with pytest.raises(OutputExistsError, match="other contains a model"):
        pretrain(labelled, out=tmp_path / "other", **options)


def test_output_is_checked_before_training(labelled, pretrain, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sccello_tools.training.pretrain.fit", None)
    with pytest.raises(OutputExistsError, match="file"):
        pretrain(labelled, out=tmp_path / "file")
