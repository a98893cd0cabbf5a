"""Uploads to a stand-in for the Hugging Face Hub, and model cards."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.errors import ArgumentError, DownloadError, ModelNotFoundError, WeightsError
from sccello_tools.models import load, model_card, push_to_hub
from sccello_tools.models.registry import entry_from_folder

# huggingface_hub's upload without Xet, towards its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(tiny_files, tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    for name, content in tiny_files.items():
        (path / name).write_bytes(content)
    return path


def describe(folder, **fields):
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub


def header_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_an_uploaded_model_is_loaded_by_others(logged_in, folder, monkeypatch):
    (folder / "epoch=3.ckpt").write_text("a checkpoint of the training")
    url = push_to_hub(folder, "me/mine")
    (commit,) = logged_in.repos["me/mine"].commits
    assert url == f"{logged_in.url}/me/mine/commit/{commit[0]}"
    assert sorted(commit[1]) == [
        "README.md", "config.json", "labels.tsv", "metadata.json", "model.safetensors",
    ]  # fmt: skip
    assert not logged_in.repos["me/mine"].private
    monkeypatch.delenv("HF_TOKEN")
    model = load("hf://me/mine", device="cpu")
    assert model.sha256 == load(folder, device="cpu").sha256
    assert (model.name, model.entry.licence) == ("tiny", "MIT")
    assert model.entry.revision == commit[0]


def test_a_second_upload_is_a_second_commit(logged_in, folder):
    push_to_hub(folder, "hf://me/mine", private=True)
    describe(folder, description="Better.")
    push_to_hub(folder, "me/mine", message="Second")
    repo = logged_in.repos["me/mine"]
    assert len(repo.commits) == 2
    assert repo.private
    assert b"Better." in repo.commits[-1][1]["README.md"]


def test_the_licence_is_required_and_can_be_given(logged_in, folder):
    describe(folder, licence=None)
    with pytest.raises(ArgumentError, match=r"metadata\.json.*licence="):
        push_to_hub(folder, "me/mine")
    assert logged_in.requests == []
    push_to_hub(folder, "me/mine", licence="CC-BY-4.0")
    files = logged_in.repos["me/mine"].commits[-1][1]
    assert json.loads(files["metadata.json"])["licence"] == "CC-BY-4.0"
    assert header_of(files["README.md"].decode())["license"] == "cc-by-4.0"
    assert json.loads((folder / "metadata.json").read_text())["licence"] is None  # not changed


def test_without_access(hub, folder, monkeypatch):
    with pytest.raises((DownloadError, ModelNotFoundError), match="hf auth login"):
        push_to_hub(folder, "me/mine")
    hub.add("me/mine", {"README.md": b""})
    monkeypatch.setenv("HF_TOKEN", "of-somebody-else")
    with pytest.raises((DownloadError, ModelNotFoundError), match="HF_TOKEN"):
        push_to_hub(folder, "me/mine")
    hub.fail_all = 503
    with pytest.raises(DownloadError, match="503"):
        push_to_hub(folder, "me/mine")


def test_no_network_and_offline(folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="Check the network"):
        push_to_hub(folder, "me/mine")
    monkeypatch.setattr(sccello.settings, "offline", True)
    with pytest.raises(DownloadError, match="offline mode is on"):
        push_to_hub(folder, "me/mine")


def test_folders_that_are_not_uploaded(logged_in, folder, published_files, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no folder"):
        push_to_hub(tmp_path / "nothing", "me/mine")
    with pytest.raises(ModelNotFoundError, match="hf://owner/name"):
        push_to_hub(folder, "mine")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name, content in published_files.items():
        (pickled / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        push_to_hub(pickled, "me/mine", licence="MIT")
    assert logged_in.requests == []


def test_a_card_states_what_is_known(folder):
    describe(
        folder,
        description="Cells of the liver.",
        tissue="liver",
        training_data={"description": "Two atlases", "n_cells": 12_345},
        results={"mean recall": 0.81},
        limitations="Adult donors only.",
        citation="Somebody 2026",
    )
    card = model_card(entry_from_folder(folder), repo="me/mine")
    header = header_of(card)
    assert header["license"] == "mit"
    assert header["library_name"] == "sccello-tools"
    assert {"single-cell", "cell-ontology"} <= set(header["tags"])
    for expected in (
        "# tiny", "Cells of the liver.", 'model="hf://me/mine"', "tissue: liver", "cell types: 2", "Two atlases", "12,345",
        "| mean recall | 0.81 |", "Adult donors only.", "MIT", "Somebody 2026", "parameters: 225,638",
    ):  # fmt: skip
        assert expected in card


def test_a_card_says_what_is_not_stated(folder):
    card = model_card(entry_from_folder(folder))
    for section in ("Training data", "Results", "Limitations"):
        assert f"## {section}\n\nNot stated." in card


def test_an_existing_card_keeps_its_text_and_gets_a_header(folder):
    (folder / "README.md").write_text("# My model\n\nText.\n")
    card = model_card(entry_from_folder(folder))
    assert header_of(card)["license"] == "mit"
    assert card.endswith("# My model\n\nText.\n")
    (folder / "README.md").write_text("---\nlicense: other\n---\n\nText.\n")
    assert model_card(entry_from_folder(folder)) == "---\nlicense: other\n---\n\nText.\n"


def test_the_bundled_models_have_a_card_with_a_header():
    for name in ("sccello-small", "gdsc-small"):
        info = sccello.models.info(name)
        card = model_card(info.entry.model_copy(update={"folder": info.folder}))
        assert header_of(card)["license"] == "bsd-3-clause"


def test_the_command_uploads(logged_in, folder):
    from sccello_tools.cli import app

    result = CliRunner().invoke(app, ["models", "push", str(folder), "me/mine", "--private"])
    assert result.exit_code == 0, result.output
    assert "hf://me/mine" in result.output
    assert logged_in.repos["me/mine"].private
    listed = CliRunner().invoke(app, ["models", "--json"])
    assert [m["name"] for m in json.loads(listed.output)] == sccello.models.list()["name"].tolist()
