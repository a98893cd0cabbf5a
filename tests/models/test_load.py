from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch

import sccello_tools as sccello
from sccello_tools.errors import (
    ArgumentError,
    BackendError,
    ConfigError,
    DownloadError,
    HashMismatchError,
    ManifestError,
    ModelNotFoundError,
    WeightsError,
)
from sccello_tools.models import LoadedModel, load, save
from sccello_tools.models.hub import model_folder
from sccello_tools.models.labels import make_prototypes
from sccello_tools.models.registry import find_entry, update_entry
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.tokens import GeneVocabulary

LABELS = pd.DataFrame(
    {
        "cell_type_ontology_term_id": ["CL:0000084", "CL:0000236"],
        "cell_type": ["T cell", "B cell"],
    }
)


LABEL_IDS = ("CL:0000084", "CL:0000236")
GENEFORMER = json.dumps(
    {
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 25426, "hidden_size": 256,
        "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512, "hidden_act": "relu",
    }
).encode()  # fmt: skip
GPT2 = json.dumps({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}).encode()


class Code:
    def __reduce__(self):
        import os

        return os.mkdir, ("code_has_run",)


@pytest.fixture
def folder(tmp_path, tiny_network):
    metadata = {
        "name": "tiny",
        "ontology_release": "2026-03-26",
        "vocabulary_sha256": GeneVocabulary.load().sha256,
        "training_data": {"one.h5ad": 3, "two.h5ad": 4},
    }
    return save(tiny_network, tmp_path / "model", labels=LABELS, metadata=metadata)


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
    with pytest.raises(ModelNotFoundError, match=r"models: sccello-small, .*hf://"):
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


def test_auto_is_logged_once(folder, caplog, monkeypatch):
    monkeypatch.setattr(import_module("sccello_tools.models.load"), "_logged", set())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        assert load(folder).device == torch.device("cpu")
        load(folder)
    assert caplog.text.count("models run on cpu") == 1


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "xpu"])
def test_a_device_that_is_not_here(folder, device):
    with pytest.raises(BackendError, match=rf"Device '{device}' is not available .*cpu.*or 'auto'"):
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
        WeightsError, match=r"was trained with gene vocabulary .*0{12}.*Use the version"
    ):
        load(folder, device="cpu")


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"config\.json.*Required are .*model\.safetensors"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"has columns \[\]"),
        ("index\tid\tname\n", "index, cell_type_ontology_term_id and cell_type"),
        ("index\tcell_type_ontology_term_id\tcell_type\n1\tCL:0000084\tT\n", "line 2 is .*required are index 0"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tT cell\tT\n", "a Cell Ontology id"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tCL:0000084\n", "line 2"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tCL:0000084\tT\n1\tCL:0000084\tT\n", r"more than once: \['CL:0000084'\]"),
        ("index\tcell_type_ontology_term_id\tcell_type\n0\tCL:0000084\tT\n", "has 1 cell types, but 2 are stated"),
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
    with pytest.raises(WeightsError, match="has 601 labels but only 600 prototypes"):
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


def test_the_published_model_comes_from_the_hub_with_the_packaged_labels(
    hub, published_files, cache
):
    hub.add("katarinayuan/scCello-zeroshot", published_files, commit_id="e59304e" + "1" * 33)
    model = load("sccello-zeroshot", device="cpu")
    assert model.config.hidden_size == 8
    assert len(model.labels) == 398
    assert model.labels[:2] == ("CL:0002320", "CL:0000782")
    assert model.label_names[0] == "connective tissue cell"
    assert (cache / "pins/katarinayuan/scCello-zeroshot/e59304e/pytorch_model.bin.sha256").exists()
    n_requests = len(hub.requests)
    assert load("katarinayuan/scCello-zeroshot", device="cpu", offline=True) is model
    assert load("hf://katarinayuan/scCello-zeroshot", device="cpu", offline=True) is model
    assert len(hub.requests) == n_requests


def test_a_folder_of_the_published_weights_has_the_packaged_labels(published_files, tmp_path):
    config = json.loads(published_files["config.json"])
    for branch, n_labels in ((None, 0), ("frac100", 398)):
        folder = tmp_path / str(branch)
        folder.mkdir()
        (folder / "pytorch_model.bin").write_bytes(published_files["pytorch_model.bin"])
        (folder / "config.json").write_text(json.dumps(config | {"data_branch": branch}))
        assert len(load(folder, device="cpu").labels) == n_labels


class TestHubRepositories:
    def test_any_model_is_loaded_from_its_repository(self, hub, tiny_files, tiny_network):
        first = hub.add("me/mine", tiny_files)
        hub.add("me/mine", {"metadata.json": b'{"name": "newer", "licence": "MIT"}'})
        model = load("hf://me/mine", device="cpu")
        assert (model.name, model.labels, model.entry.source) == ("newer", LABEL_IDS, "huggingface")
        torch.testing.assert_close(model.network.word_embeddings, tiny_network.word_embeddings)
        assert load("hf://me/mine", device="cpu") is model
        older = load(f"hf://me/mine@{first}", device="cpu")
        assert (older.name, older.entry.revision, older.entry.licence) == ("tiny", first, "MIT")
        assert sccello.models.info("hf://me/mine").entry.licence == "MIT"

    def test_it_is_used_offline_afterwards(self, hub, tiny_files, monkeypatch):
        hub.add("me/mine", tiny_files)
        model = load("hf://me/mine", device="cpu")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        n_requests = len(hub.requests)
        assert load("hf://me/mine", device="cpu").sha256 == model.sha256
        assert len(hub.requests) == n_requests
        with pytest.raises(DownloadError, match=r"hf://me/other@main.*offline"):
            load("hf://me/other")

    @pytest.mark.parametrize(
        ("files", "error", "message"),
        [
            ({"README.md": b"# Data"}, WeightsError, r"hf://me/x@main contains no scCello model \(found: README\.md\)"),
            ({"config.json": b"{}", "model.pkl": b"x"}, WeightsError, r"model\.pkl\), which may run code"),
            ({"args.json": b"{}", "best_model.pt": b"x", "vocab.json": b"{}"}, WeightsError, "scGPT, not scCello"),
            ({"config.json": GENEFORMER, "model.safetensors": b"x"}, ConfigError, "Geneformer, not scCello"),
            ({"config.json": GPT2, "model.safetensors": b"x"}, ConfigError, r"GPT2LMHeadModel.*not scCello"),
        ],
    )  # fmt: skip
    def test_a_repository_of_something_else(self, hub, files, error, message):
        hub.add("me/x", files)
        with pytest.raises(error, match=message):
            load("hf://me/x")
        assert not [path for _, path, _ in hub.requests if path.startswith("/lfs/")]

    def test_a_pickle_with_code_is_not_run(self, hub, published_files, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"a": Code()}, tmp_path / "code.bin")
        hub.add(
            "me/x", published_files | {"pytorch_model.bin": (tmp_path / "code.bin").read_bytes()}
        )
        with pytest.raises(WeightsError, match="contains code, which is never run"):
            load("hf://me/x", device="cpu")
        assert not (tmp_path / "code_has_run").exists()

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"model.safetensors": b"not weights"}, r"model\.safetensors is damaged"),
            ({"labels.tsv": b"x"}, r"labels\.tsv has columns"),
            ({"metadata.json": b'{"vocabulary": {"name": "mouse", "sha256": "%s"}}' % (b"0" * 64)}, "gene vocabulary 'mouse'"),
        ],
    )  # fmt: skip
    def test_a_repository_with_invalid_files(self, hub, tiny_files, files, message):
        hub.add("me/x", tiny_files | files)
        with pytest.raises(WeightsError, match=message):
            load("hf://me/x", device="cpu")


def test_the_published_model_offline_is_an_error():
    with pytest.raises(DownloadError, match=r"sccello-zeroshot.*not in the cache.*offline"):
        load("sccello-zeroshot", offline=True)


def test_the_bundled_model_loads_offline_when_it_is_there():
    entry = find_entry("sccello-small")
    model = load(offline=True, device="cpu")
    assert sum(file.n_bytes for file in entry.files) <= 25_000_000
    assert model.n_parameters == entry.n_parameters
    assert model.labels
    assert (model_folder(entry) / "README.md").is_file()


class TestSave:
    def test_labels_without_their_columns(self, tiny_network, tmp_path):
        with pytest.raises(WeightsError, match=r"labels lacks the columns \['cell_type'\]"):
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
        with pytest.raises(ManifestError, match=r"metadata: unknown field 'licens'.*licence"):
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
    assert (row["n_training_cells"], row["licence"], row["n_cell_types"]) == (7, "MIT", 2)
    assert row["size_mb"] == pytest.approx(0.9, abs=0.2)
    published = table.set_index("name").loc["sccello-zeroshot"]
    assert (published["available"], published["n_parameters"]) == (False, 10_681_094)
    assert (published["n_cell_types"], published["licence"]) == (398, "MIT")
    assert table.loc[:2, "tissue"].notna().all()


def test_info_prints_what_is_known(own_manifest, folder):
    (folder / "README.md").write_text("# A card")
    info = sccello.models.info("own", manifest=own_manifest)
    assert info.card == folder / "README.md"
    assert info.is_available
    text = repr(info)
    for expected in (
        "own\n", "local, available", str(folder), "  cell types      2\n", "one.h5ad (3 cells)", "MIT",
        f"model.safetensors: {next(f for f in info.entry.files if f.path == 'model.safetensors').sha256}",
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
        "print([m for m in ('torch', 'pooch', 'requests', 'httpx', 'httpx2', 'anndata', 'scanpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_argument_that_is_no_model():
    with pytest.raises(ArgumentError, match="list"):
        load(["sccello-small"])


def test_a_drug_response_model_is_refused_with_the_function_that_loads_it():
    with pytest.raises(WeightsError, match=r"gdsc-small.*drug\.load"):
        load("gdsc-small")
    model = sccello.drug.load("gdsc-small")
    assert isinstance(model, sccello.drug.DrugResponseModel)
    assert sccello.drug.load("gdsc-small") is model
    with pytest.raises(WeightsError, match=r"'sccello-small' is not a drug response model"):
        sccello.drug.load("sccello-small")


def test_another_number_of_tokens_is_refused(tmp_path):
    config = EncoderConfig(vocab_size=60, cls_token_id=59, hidden_size=8, n_layers=1, n_heads=1)
    folder = save(ScCelloModel(config), tmp_path / "small")
    with pytest.raises(WeightsError, match=r"has 60 tokens.*25,427"):
        load(folder, device="cpu")


def test_the_weights_of_another_model_without_a_cell_head(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    kept = {n: t.clone() for n, t in load_file(path).items() if not n.startswith("cell_cls")}
    save_file(kept, path)
    with pytest.raises(WeightsError, match=r"missing: cell_cls.*not a scCello model"):
        load(folder, device="cpu")


class TestResource:
    def test_it_is_read_once(self, folder):
        model, calls = load(folder, device="cpu"), []

        def read(model):
            calls.append(model.name)
            return len(calls)

        assert [model.resource(read) for _ in range(3)] == [1, 1, 1]
        assert calls == ["tiny"]
        assert load(folder, device="cpu", keep=False).resource(read) == 2

    def test_it_is_read_again_when_its_file_changes(self, folder):
        model = load(folder, device="cpu")

        def read(model):
            path = model.folder / "extra.txt"
            return path.read_text() if path.is_file() else None

        assert model.resource(read, file="extra.txt") is None
        (folder / "extra.txt").write_text("one")
        assert model.resource(read, file="extra.txt") == "one"
        (folder / "extra.txt").write_text("three")
        assert model.resource(read, file="extra.txt") == "three"

    def test_an_error_is_not_kept(self, folder):
        model, fail = load(folder, device="cpu"), [True]

        def read(model):
            if fail:
                raise WeightsError(fail.pop())
            return "found"

        with pytest.raises(WeightsError):
            model.resource(read)
        assert model.resource(read) == "found"


class TestPrototypes:
    def test_they_are_unit_vectors_of_the_labelled_rows(self, folder, tiny_network):
        model = load(folder, device="cpu")
        found = model.prototypes
        assert found is model.prototypes
        assert (found.ids, found.names, found.tau) == (LABEL_IDS, ("T cell", "B cell"), 0.01)
        rows = tiny_network.learned_centroid.weight[:2].detach().numpy()
        np.testing.assert_allclose(
            found.vectors, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6
        )
        assert found.vectors.dtype == np.float32
        assert found.row_of_label.tolist() == [0, 1]
        assert (dict(found.replaced), dict(found.merged), found.omitted) == ({}, {}, ())

    def test_a_model_without_labels_has_none(self, tiny_network, tmp_path):
        model = load(save(tiny_network, tmp_path / "m"), device="cpu")
        with pytest.raises(WeightsError, match=r"no label table.*labels\.tsv.*tl\.calibrate"):
            _ = model.prototypes

    def test_obsolete_labels_are_replaced_and_merged(self, caplog):
        """CL:4023070 is obsolete; its successor is CL:4023064."""
        labels = ["CL:0000084", "CL:4023070", "CL:4023064", "CL:9999999"]
        vectors = np.array([[2, 0], [0, 3], [3, 0], [1, 1]], dtype=np.float32)
        with caplog.at_level(logging.INFO, logger="sccello_tools"):
            found = make_prototypes(labels, vectors, 0.05)
        assert found.ids == ("CL:0000084", "CL:4023064")
        assert dict(found.replaced) == {"CL:4023070": "CL:4023064"}
        assert dict(found.merged) == {"CL:4023064": ("CL:4023070", "CL:4023064")}
        assert found.omitted == ("CL:9999999",)
        assert found.row_of_label.tolist() == [0, 1, 1, -1]
        np.testing.assert_allclose(found.vectors, [[1, 0], [0.5**0.5, 0.5**0.5]], atol=1e-6)
        assert "2 of 4 are current, 1 are replaced" in caplog.text
        assert "CL:9999999" in caplog.text
        assert "2 types from 4 labels" in repr(found)

    def test_the_published_labels_are_counted(self):
        from sccello_tools.ontology import CellOntology, published_labels

        ontology, labels = CellOntology.load(), published_labels()
        vectors = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
        found = make_prototypes(labels, vectors, 0.01)
        # "native cell", "animal cell" and "somatic cell", which are all "cell" today
        assert found.omitted == tuple(t for t in labels if ontology.current(t) == "CL:0000000")
        assert len(found.omitted) == 3
        assert len(found) == len(set(found.ids)) == 395
        assert all(term in ontology for term in found.ids)
        obsolete = [label for label in labels if ontology.is_obsolete(label)]
        assert set(found.replaced) == set(obsolete) - set(found.omitted)
        assert (found.row_of_label == -1).sum() == 3
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


def test_the_golden_checkpoint_and_a_model_of_the_published_size(
    golden_model_folder, published_size_model_folder
):
    golden = load(golden_model_folder, device="cpu")
    assert (len(golden.labels), len(golden.prototypes), golden.prototypes.vectors.shape[1]) == (
        398,
        395,
        32,
    )
    large = load(published_size_model_folder, device="cpu")
    assert (large.n_parameters, len(large.prototypes)) == (10_681_094, 395)
    assert large.prototypes.ids == golden.prototypes.ids


def test_a_model_is_found_again_by_its_address(golden_model_folder, tmp_path, monkeypatch):
    assert load(device="cpu").address == "sccello-small"
    monkeypatch.chdir(golden_model_folder.parent)
    model = load("checkpoint", device="cpu")
    monkeypatch.chdir(tmp_path)
    assert load(model.address, device="cpu").sha256 == model.sha256
    # a folder that happens to be named like a model of the manifest is another model
    other = shutil.copytree(golden_model_folder, tmp_path / "sccello-small")
    assert load(other, device="cpu").address == str(other)
