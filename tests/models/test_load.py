from __future__ import annotations

import dataclasses
import io
import json
import logging
import shutil
import subprocess
import sys
from importlib import import_module

import pandas as pd
import pytest
import torch

import sccello_tools as sccello
from sccello_tools.errors import (
    BackendError,
    DownloadError,
    HashMismatchError,
    ManifestError,
    ModelNotFoundError,
    WeightsError,
)
from sccello_tools.models import LoadedModel, load, save
from sccello_tools.models.hub import model_folder
from sccello_tools.models.manifest import find_entry, update_entry
from sccello_tools.nn.checkpoint import to_published
from sccello_tools.tokens import GeneVocabulary

LABELS = pd.DataFrame(
    {
        "cell_type_ontology_term_id": ["CL:0000084", "CL:0000236"],
        "cell_type": ["T cell", "B cell"],
    }
)


@pytest.fixture
def folder(tmp_path, tiny_network):
    metadata = {
        "name": "tiny",
        "ontology_release": "2026-03-26",
        "vocabulary_sha256": GeneVocabulary.load().sha256,
        "training_data": {"one.h5ad": 3, "two.h5ad": 4},
    }
    return save(tiny_network, tmp_path / "model", labels=LABELS, metadata=metadata)


@pytest.fixture(autouse=True)
def forget():
    import_module("sccello_tools.models.load")._loaded.clear()


def test_a_folder_gives_the_network_and_all_that_is_known(folder, tiny_network):
    model = load(folder, device="cpu")
    assert isinstance(model, LoadedModel)
    assert model.name == "tiny"
    assert model.labels == ("CL:0000084", "CL:0000236")
    assert model.label_names == ("T cell", "B cell")
    assert model.ontology_release == "2026-03-26"
    assert model.config == tiny_network.config
    assert model.device == torch.device("cpu")
    assert model.entry.training_data.n_cells == 7
    assert model.entry.training_data.description == "one.h5ad (3 cells), two.h5ad (4 cells)"
    assert len(model.sha256) == 64
    assert not model.network.training
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, tiny_network.state_dict()[name], rtol=0, atol=0)
    assert repr(model).startswith(
        f"LoadedModel('tiny', {model.n_parameters:,} parameters, 2 cell types, device 'cpu'"
    )


def test_a_text_is_taken_for_a_folder_when_no_model_is_called_so(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load(str(folder), device="cpu").name == "tiny"
    assert load("model", device="cpu").name == "tiny"


def test_a_bare_folder_has_no_labels_and_its_own_name(folder):
    (folder / "labels.tsv").unlink()
    (folder / "metadata.json").unlink()
    model = load(folder, device="cpu")
    assert (model.name, model.labels, model.ontology_release) == ("model", (), None)


def test_neither_name_nor_folder(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"known: sccello-small, .*models\.list\(\)"):
        load("nothing")
    with pytest.raises(ModelNotFoundError, match="There is no folder"):
        load(tmp_path / "nothing")


def test_the_same_call_gives_the_same_model_until_a_file_changes(folder, tiny_network):
    model = load(folder, device="cpu")
    model.network.train()
    assert load(folder, device="cpu") is model
    assert not model.network.training
    assert load(folder, device="cpu", keep=False) is not model
    save(tiny_network, folder, labels=LABELS.iloc[:1])
    again = load(folder, device="cpu")
    assert again is not model
    assert again.labels == ("CL:0000084",)


def test_two_models_are_kept_at_most(folder, tmp_path):
    first = load(folder, device="cpu")
    others = [shutil.copytree(folder, tmp_path / name) for name in "ab"]
    for other in others:
        load(other, device="cpu")
    assert load(others[0], device="cpu") is load(others[0], device="cpu")
    assert load(folder, device="cpu") is not first


def test_auto_is_said_once(folder, caplog, monkeypatch):
    monkeypatch.setattr(import_module("sccello_tools.models.load"), "_said", set())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        assert load(folder).device == torch.device("cpu")
        load(folder)
    assert caplog.text.count("models run on cpu") == 1


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "xpu"])
def test_a_device_that_is_not_here(folder, device):
    with pytest.raises(
        BackendError, match=rf"Device '{device}' is not available here .*cpu.*or 'auto'"
    ):
        load(folder, device=device)


@pytest.mark.gpu
def test_auto_takes_the_gpu(folder):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = load(folder)
    assert model.device.type == "cuda"
    assert next(model.network.parameters()).is_cuda


def test_another_vocabulary_is_refused(folder):
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["vocabulary"]["sha256"] = "0" * 64
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(
        WeightsError, match=r"was trained with gene vocabulary .* would name other genes"
    ):
        load(folder, device="cpu")


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"No weights in .*expected model\.safetensors or"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"has columns \[\]"),
        ("index\tid\tname\n", "expected an index, cell_type_ontology_term_id and cell_type"),
        ("index\tcell_type_ontology_term_id\tcell_type\n1\tCL:0000084\tT\n", "line 2 is .*expected index 0"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tT cell\tT\n", "a Cell Ontology id"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tCL:0000084\n", "line 2"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tCL:0000084\tT\n1\tCL:0000084\tT\n", "names cell types twice"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tCL:0000084\tT\n", "names 1 cell types, but 2 are stated"),
        (b"\xff\xfe", "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_table_of_labels(folder, table, message):
    (folder / "labels.tsv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(WeightsError, match=message):
        load(folder, device="cpu")


def test_more_labels_than_prototypes(folder):
    ids = [f"CL:{i:07d}" for i in range(601)]
    rows = "".join(f"{i}\t{cl}\tcell\n" for i, cl in enumerate(ids))
    (folder / "labels.tsv").write_text("index\tcell_type_ontology_term_id\tcell_type\n" + rows)
    (folder / "metadata.json").unlink()
    with pytest.raises(WeightsError, match="has 601 labels but 600 prototypes"):
        load(folder, device="cpu")


@pytest.fixture
def own_manifest(tmp_path, folder):
    path = tmp_path / "own.json"
    path.write_text('{"schema_version": 1, "models": []}')
    fields = {"licence": "MIT", "citation": "x", "description": "d", "representation": "cell"}
    update_entry("own", folder, path=path, **fields)
    return path


def test_a_model_of_an_own_manifest(own_manifest):
    model = load("own", manifest=own_manifest, device="cpu")
    assert (model.name, model.entry.representation, model.labels[0]) == (
        "own",
        "cell",
        "CL:0000084",
    )


def test_weights_that_are_not_those_of_the_manifest(own_manifest, folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(HashMismatchError, match=r"model\.safetensors has sha256"):
        load("own", manifest=own_manifest, device="cpu")


def published_form(network):
    """The files of a network under the names that the authors gave them."""
    config = {
        "vocab_size": network.config.vocab_size,
        "hidden_size": network.config.hidden_size,
        "num_hidden_layers": network.config.n_layers,
        "num_attention_heads": network.config.n_heads,
        "intermediate_size": network.config.intermediate_size,
        "model_type": "bert",
    }
    weights = io.BytesIO()
    torch.save(to_published(network.state_dict(), network.config), weights)
    return {"config.json": json.dumps(config).encode(), "pytorch_model.bin": weights.getvalue()}


def test_the_published_form_comes_from_the_hub_with_the_packaged_labels(
    server, cache, monkeypatch, tiny_network
):
    for name, content in published_form(tiny_network).items():
        server.files[f"/katarinayuan/scCello-zeroshot/resolve/e59304e/{name}"] = content
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    model = load("sccello-zeroshot", device="cpu")
    assert model.config.hidden_size == 8
    assert len(model.labels) == 398
    assert model.labels[:2] == ("CL:0002320", "CL:0000782")
    assert model.label_names[0] == "connective tissue cell"
    assert (cache / "sccello-zeroshot" / "e59304e" / "pytorch_model.bin.sha256").exists()
    n_requests = len(server.requests)
    assert load("katarinayuan/scCello-zeroshot", device="cpu", offline=True) is model
    assert len(server.requests) == n_requests


def test_the_published_model_offline_is_an_error():
    with pytest.raises(
        DownloadError, match=r"config\.json of model 'sccello-zeroshot' is not in the cache"
    ):
        load("sccello-zeroshot", offline=True)


def test_the_bundled_model_loads_offline_when_it_is_there():
    entry = find_entry("sccello-small")
    if not entry.files:
        with pytest.raises(WeightsError, match="lists no files for model 'sccello-small'"):
            load(offline=True)
        return
    model = load(offline=True, device="cpu")
    assert sum(file.n_bytes for file in entry.files) <= 25_000_000
    assert model.n_parameters == entry.n_parameters
    assert model.labels
    assert (model_folder(entry) / "README.md").is_file()


class TestSave:
    def test_labels_without_their_columns(self, tiny_network, tmp_path):
        with pytest.raises(WeightsError, match=r"labels lack the columns \['cell_type'\]"):
            save(tiny_network, tmp_path / "m", labels=LABELS.drop(columns="cell_type"))
        assert not (tmp_path / "m").exists()

    def test_labels_that_are_no_ids(self, tiny_network, tmp_path):
        labels = LABELS.assign(cell_type_ontology_term_id=["T", "B"])
        with pytest.raises(WeightsError, match=r"labels, line 2 is \['0', 'T', 'T cell'\]"):
            save(tiny_network, tmp_path / "m", labels=labels)

    def test_more_labels_than_prototypes(self, tiny_network, tmp_path):
        labels = pd.concat([LABELS] * 301)
        with pytest.raises(WeightsError, match="602 labels for 600 prototypes"):
            save(tiny_network, tmp_path / "m", labels=labels)

    def test_unknown_metadata(self, tiny_network, tmp_path):
        with pytest.raises(ManifestError, match=r"metadata has unknown fields \['licens'\]"):
            save(tiny_network, tmp_path / "m", metadata={"licens": "MIT"})
        assert not (tmp_path / "m").exists()

    def test_half_precision_is_read_back(self, tiny_network, tmp_path):
        whole = save(tiny_network, tmp_path / "whole")
        half = save(tiny_network, tmp_path / "half", dtype="float16")
        sizes = [(f / "model.safetensors").stat().st_size for f in (half, whole)]
        assert sizes[0] < 0.51 * sizes[1]
        torch.testing.assert_close(
            load(half, device="cpu").network.word_embeddings,
            tiny_network.word_embeddings,
            rtol=1e-3,
            atol=1e-6,
        )

    def test_saving_without_labels_removes_old_ones(self, tiny_network, folder):
        save(tiny_network, folder)
        assert load(folder, device="cpu").labels == ()


def test_list_shows_every_model(own_manifest):
    table = sccello.models.list(own_manifest)
    assert table["name"].tolist() == ["sccello-small", "sccello-zeroshot", "gdsc-small", "own"]
    row = table.set_index("name").loc["own"]
    assert (row["source"], row["available"], row["hidden_size"]) == ("local", True, 8)
    assert (row["n_training_cells"], row["licence"]) == (7, "MIT")
    assert row["size_mb"] == pytest.approx(0.9, abs=0.2)
    published = table.set_index("name").loc["sccello-zeroshot"]
    assert (published["available"], published["n_parameters"]) == (False, 10_681_094)


def test_info_prints_what_is_known(own_manifest, folder):
    (folder / "README.md").write_text("# A card")
    info = sccello.models.info("own", manifest=own_manifest)
    assert info.card == folder / "README.md"
    assert info.is_available
    text = repr(info)
    for expected in (
        "own\n", "local, on this machine", str(folder), "2 (own)", "one.h5ad (3 cells)", "MIT",
        f"model.safetensors: {dataclasses.asdict(info.entry.files[-1])['sha256']}",
    ):  # fmt: skip
        assert expected in text
    assert "paper           unknown" in text


def test_info_of_a_published_model_points_to_its_page():
    info = sccello.models.info("sccello-zeroshot")
    assert info.card is None
    assert not info.is_available
    assert "https://huggingface.co/katarinayuan/scCello-zeroshot" in repr(info)
    assert "unverified" in repr(info)


def test_looking_at_models_needs_no_torch_and_no_network_library():
    code = (
        "import sys, sccello_tools as s; s.models.list(); s.models.info('sccello-zeroshot');"
        "print([m for m in ('torch', 'pooch', 'requests', 'anndata', 'scanpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
