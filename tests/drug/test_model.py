"""Training, saving and loading give the same predictions; invalid input is rejected."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.drug import DrugResponseConfig, DrugResponseModel
from sccello_tools.drug.files import save_model
from sccello_tools.errors import (
    ArgumentError,
    ConfigError,
    DrugError,
    GeneMatchError,
    HashMismatchError,
    OutputExistsError,
    ResponseError,
    WeightsError,
)

ASPIRIN = {"aspirin": "CC(=O)Oc1ccccc1C(=O)O"}


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "mine"
    save_model(trained, path)
    return path


def test_a_saved_model_is_loaded(trained, folder, gdsc):
    loaded = sccello.drug.load(folder)
    assert isinstance(loaded, DrugResponseModel)
    assert loaded.drugs == trained.drugs
    assert loaded.cell_lines == trained.cell_lines
    assert loaded.scores == pytest.approx(dict(trained.scores))
    assert sccello.models.info(folder).entry.kind == "drug-response"
    lines = gdsc.expression.iloc[:5]
    before, before_std = trained.predict(lines)
    after, after_std = loaded.predict(lines)
    np.testing.assert_allclose(after, before, atol=5e-3)
    np.testing.assert_allclose(after_std, before_std, atol=5e-3)
    np.testing.assert_allclose(
        loaded.predict(lines, ASPIRIN).ln_ic50, trained.predict(lines, ASPIRIN).ln_ic50, atol=5e-3
    )


def test_known_drugs_need_no_rdkit(folder, gdsc, monkeypatch):
    loaded = sccello.drug.load(folder, keep=False)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    assert loaded.predict(gdsc.expression.iloc[:3]).ln_ic50.shape == (3, 20)
    with pytest.raises(ImportError, match=r"sccello-tools\[drug\]"):
        loaded.predict(gdsc.expression.iloc[:3], ASPIRIN)


def test_a_line_is_answered_the_same_whatever_stands_beside_it(trained, gdsc):
    whole = trained.predict(gdsc.expression).ln_ic50
    alone = trained.predict(gdsc.expression.iloc[7:8]).ln_ic50
    np.testing.assert_allclose(alone, whole.iloc[7:8], rtol=1e-4, atol=1e-4)
    turned = trained.predict(
        gdsc.expression.iloc[:, ::-1] * 2 + 1
    ).ln_ic50  # other order of genes, other scale
    np.testing.assert_allclose(turned, whole, rtol=1e-3, atol=1e-3)


def test_drugs_are_found_by_any_way_of_writing(trained, gdsc):
    lines = gdsc.expression.iloc[:2]
    found = trained.predict(lines, ["plx4720", "ERLOTINIB"]).ln_ic50
    assert found.columns.tolist() == ["PLX-4720", "Erlotinib"]
    pd.testing.assert_frame_equal(found, trained.predict(lines).ln_ic50[found.columns.tolist()])


def test_unknown_drugs_and_bad_smiles_are_refused(trained, gdsc):
    lines = gdsc.expression.iloc[:2]
    with pytest.raises(
        DrugError,
        match=r"'Erlotinb'.*Did you mean 'Erlotinib'\?.*SMILES",
    ):
        trained.predict(lines, ["Erlotinb"])
    with pytest.raises(DrugError, match=r"'CCOO1' \(x\)"):
        trained.predict(lines, {"x": "CCOO1"})
    with pytest.raises(DrugError, match="empty"):
        trained.predict(lines, [])


def test_expression_of_few_genes_or_counts_is_refused(trained, gdsc):
    with pytest.raises(GeneMatchError, match=r"of the 1,4.. genes"):
        trained.predict(gdsc.expression.iloc[:2, :300])
    with pytest.raises(ResponseError, match="counts"):
        trained.predict((gdsc.expression * 3).abs().round())


@pytest.mark.parametrize("split", ["pairs", "drugs", "both"])
def test_held_out_pairs_were_not_in_training(gdsc, small, split):
    model = sccello.tl.train_drug_response(
        gdsc,
        split=split,
        cell_features=("expression",),
        drug_encoder="fingerprint",
        n_members=1,
        config=small,
    )
    table = model.validation
    assert np.isfinite(table[["measured", "predicted", "std"]].to_numpy()).all()
    if split in {"drugs", "both"}:
        assert not set(table["drug"]) & set(model.drugs)
    if split == "both":
        assert not set(table["cell_line"]) & set(model.cell_lines)
    assert model.scores["n_pairs"] == len(table)


def test_the_ensemble_learns_what_drugs_and_lines_are(trained):
    """59 lines and 20 drugs teach little, but which drugs are strong, and that better than nothing."""
    table = trained.validation
    truth = table["measured"].to_numpy()
    assert trained.scores["pearson"] > 0.7
    assert trained.scores["rmse"] < 0.8 * truth.std()
    assert (table["std"] > 0).all()


def test_the_seed_decides_and_the_global_generator_is_left_alone(gdsc, small):
    import torch

    state = torch.get_rng_state()
    options = {"cell_features": ("expression",), "drug_encoder": "fingerprint", "n_members": 1}
    one, same, other = (
        sccello.tl.train_drug_response(gdsc, split=None, rng=s, config=small, **options)
        .predict(gdsc.expression)
        .ln_ic50
        for s in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(one, same)
    assert np.abs(one - other).to_numpy().max() > 1e-3
    torch.testing.assert_close(torch.get_rng_state(), state)


def test_no_encoder_takes_drugs_without_smiles_but_no_new_ones(gdsc, small):
    smiles = gdsc.smiles.copy()
    smiles["Erlotinib"] = ""
    data = replace(gdsc, smiles=smiles)
    options = {"cell_features": (), "n_members": 1, "config": small}
    model = sccello.tl.train_drug_response(data, drug_encoder="none", **options)
    assert "Erlotinib" in model.drugs
    with pytest.raises(DrugError, match="new drugs"):
        model.predict(gdsc.expression, ASPIRIN)
    with pytest.raises(ConfigError, match="validation drugs"):
        sccello.tl.train_drug_response(data, drug_encoder="none", split="drugs", **options)
    without = sccello.tl.train_drug_response(data, drug_encoder="fingerprint", **options)
    assert "Erlotinib" not in without.drugs


def test_drugs_without_smiles_are_named(gdsc, small, caplog):
    smiles = gdsc.smiles.copy()
    smiles["Erlotinib"] = ""
    with caplog.at_level("WARNING", logger="sccello_tools"):
        sccello.tl.train_drug_response(
            replace(gdsc, smiles=smiles),
            drug_encoder="fingerprint",
            cell_features=(),
            n_members=1,
            config=small,
        )
    assert "1 of 20 drugs" in caplog.text
    assert "Erlotinib" in caplog.text


def test_bad_smiles_in_the_training_data_are_refused(gdsc, small):
    smiles = gdsc.smiles.copy()
    smiles["Erlotinib"] = "not a molecule"
    with pytest.raises(DrugError, match="not a molecule"):
        sccello.tl.train_drug_response(replace(gdsc, smiles=smiles), cell_features=(), config=small)


def test_what_cannot_be_trained_is_refused(gdsc, small, tmp_path):
    train = sccello.tl.train_drug_response
    with pytest.raises(ValueError, match=r"DrugResponseData.*datasets\.gdsc"):
        train(gdsc.ln_ic50)
    with pytest.raises(ResponseError, match="At least 2"):
        train(gdsc.select(lines=gdsc.lines[:1]), config=small)
    with pytest.raises(ResponseError, match="None of the 20 drugs has a SMILES"):
        train(replace(gdsc, smiles=gdsc.smiles * 0), config=small)
    with pytest.raises(ConfigError, match="max_epochs"):
        train(gdsc, cell_features=(), config=small, trainer_kwargs={"max_epochs": 3})
    (tmp_path / "something").write_text("")
    with pytest.raises(OutputExistsError, match="not empty"):
        train(gdsc, config=small, out=tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        {"drug_encoder": "transformer"},
        {"cell_features": ("expression", "expression")},
        {"cell_features": ("mutations",)},
        {"n_members": 0},
        {"dropout": 1.0},
        {"learning_rate": 0},
        {"bag": 0},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DrugResponseConfig(**bad)


def test_settings_survive_as_plain_values(small):
    assert DrugResponseConfig.from_dict(small.to_dict()) == small
    with pytest.raises(ConfigError, match="epochs"):
        DrugResponseConfig.from_dict({"epochs": 3})


def test_damaged_files_are_refused(trained, tmp_path):
    save_model(trained, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be read as a drug response model"):
        sccello.drug.load(tmp_path / "cut")
    with pytest.raises(OutputExistsError):
        save_model(trained, tmp_path / "cut")


def test_it_is_no_encoder_and_says_so(folder, adata):
    with pytest.raises(WeightsError, match=r"tl.drug_response"):
        sccello.tl.embed(adata, model=folder)
    with pytest.raises(ArgumentError, match="DrugResponseModel"):
        sccello.tl.embed(adata, model=sccello.drug.load(folder))


def test_an_encoder_that_has_changed_is_refused(trained):
    other = replace(trained, encoder_name="sccello-small", encoder_sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"weights 000000000000…"):
        _ = other.encoder


def test_the_embedding_is_read_with_the_model_given(gdsc, small, tiny_model_folder):
    model = sccello.tl.train_drug_response(
        gdsc,
        model=tiny_model_folder,
        cell_features=("sccello",),
        drug_encoder="fingerprint",
        n_members=1,
        config=small,
    )
    assert model.encoder.name == model.encoder_name == "tiny"
    assert model.ensemble.lines.n_features == 16


def test_the_bundled_model_is_whole():
    info = sccello.models.info("gdsc-small")
    assert info.entry.kind == "drug-response"
    assert info.is_available
    assert sum(file.n_bytes for file in info.entry.files) < 10e6
    model = sccello.drug.load("gdsc-small")
    assert len(model.drugs) == 228
    assert not {"A549", "NCIH838", "NCIH1975", "NCIH2228", "HCC827"} & set(model.cell_lines)
    assert model.encoder.sha256 == model.encoder_sha256
    assert info.card.is_file()


def test_a_changed_bundled_file_is_noticed(tmp_path, monkeypatch):
    import shutil

    from sccello_tools.models import hub

    info = sccello.models.info("gdsc-small")
    copy = tmp_path / "gdsc-small"
    shutil.copytree(info.folder, copy)
    (copy / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "model_folder", lambda _: copy)
    with pytest.raises(HashMismatchError):
        hub.fetch_model(info.entry)
