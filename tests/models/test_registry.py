from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sccello_tools
from sccello_tools.errors import ManifestError, ModelNotFoundError, WeightsError
from sccello_tools.models.registry import (
    ModelFile,
    check_contents,
    entry_from_folder,
    find_entry,
    packaged_manifest,
    parse_manifest,
    read_manifest,
    update_entry,
)
from sccello_tools.tokens import GeneVocabulary

FILE = {
    "path": "model.safetensors",
    "sha256": "a" * 64,
    "bytes": 1000,
    "url": "https://example.org/m",
}
ENTRY = {
    "name": "mine",
    "source": "url",
    "description": "A model.",
    "files": [FILE],
    "config": {"hidden_size": 8},
    "vocabulary": {"name": "v", "sha256": "b" * 64},
    "label_space": {"name": "l", "n_labels": 3},
    "ontology_release": "2026-03-26",
    "licence": "MIT",
    "citation": "Somebody",
    "training_data": {"description": "some cells", "n_cells": 10},
    "representation": "cls",
}


def parse(entry, base=Path()):
    text = json.dumps({"schema_version": 1, "models": [entry]})
    return parse_manifest(text, base=base, where="test.json")


def changed(**fields):
    return copy.deepcopy(ENTRY) | fields


def test_the_packaged_manifest_names_the_published_model():
    entry = find_entry("sccello-zeroshot")
    assert entry.repo == "katarinayuan/scCello-zeroshot"
    assert entry.revision == "e59304e"
    assert [file.path for file in entry.files] == ["config.json", "pytorch_model.bin"]
    assert not any(file.is_verified for file in entry.files)
    assert entry.label_space.n_labels == 398
    assert find_entry("KatarinaYuan/sccello-zeroshot") is entry


def test_every_packaged_model_uses_the_packaged_vocabulary():
    expected = GeneVocabulary.load().sha256
    assert {entry.vocabulary.sha256 for entry in read_manifest().values()} == {expected}


def test_the_manifest_at_the_top_of_the_repository_is_the_packaged_one():
    top = Path(sccello_tools.__file__).parents[2] / "weights_manifest.json"
    if not top.parent.joinpath("pyproject.toml").exists():
        pytest.skip("not a checkout")
    assert top.resolve() == packaged_manifest().resolve()


def test_all_fields_of_an_entry_are_read():
    entry = parse(changed(licence_note="n", paper="p", n_parameters=5))["mine"]
    assert (entry.source, entry.n_bytes, entry.hidden_size) == ("url", 1000, 8)
    assert (entry.files[0].url, entry.files[0].is_verified) == (FILE["url"], True)
    assert (entry.training_data.n_cells, entry.label_space.n_labels) == (10, 3)
    assert (entry.licence_note, entry.paper, entry.n_parameters) == ("n", "p", 5)


def test_a_folder_is_relative_to_the_manifest(tmp_path):
    entry = parse(changed(source="local", folder="models/mine"), tmp_path)["mine"]
    assert entry.folder == tmp_path / "models" / "mine"


def test_what_is_not_known_is_null():
    nothing = dict.fromkeys(
        ("vocabulary", "label_space", "ontology_release", "licence", "citation", "training_data")
    )
    entry = parse(changed(**nothing))["mine"]
    assert [getattr(entry, key) for key in nothing] == [None] * 6


@pytest.mark.parametrize("field", ["name", "source", "files"])
def test_a_missing_field_is_named(field):
    entry = {key: value for key, value in ENTRY.items() if key != field}
    with pytest.raises(ManifestError, match=rf"test\.json, model .*'{field}' is missing"):
        parse(entry)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"licence ": "MIT"}, r"unknown field 'licence '.*\blicence\b"),
        ({"name": "../up"}, r"name is '\.\./up'"),
        ({"name": ""}, "name is ''"),
        ({"source": "ftp"}, r"source is 'ftp'.*bundled.*huggingface.*url.*local"),
        ({"representation": "mean"}, r"representation is 'mean'.*cls.*cell"),
        ({"files": {}}, r"files is \{\}.*array"),
        ({"files": [FILE, FILE | {"path": "Model.safetensors"}]}, r"model\.safetensors.*more than once"),
        ({"files": [{"path": "a", "bytes": 1}]}, r"'files\[0\]\.sha256' is missing"),
        ({"files": [FILE | {"size": 3}]}, r"unknown field 'files\[0\]\.size'"),
        ({"config": None}, "config is None"),
        ({"config": {"a": [1]}}, r"config\.a"),
        ({"vocabulary": {"name": "v", "sha256": "unverified"}}, r"vocabulary\.sha256 is 'unverified'"),
        ({"vocabulary": {"name": "v"}}, r"'vocabulary\.sha256' is missing"),
        ({"label_space": {"name": "l", "n_labels": "3"}}, r"label_space\.n_labels is '3'.*integer"),
        ({"label_space": {"name": "l", "n_labels": 3, "resource": "../x"}}, r"label_space\.resource is '\.\./x'"),
        ({"training_data": "cells"}, "training_data is 'cells'"),
        ({"n_parameters": -1}, r"n_parameters is -1.*greater than or equal to 0"),
        ({"source": "huggingface"}, "source 'huggingface' requires repo and revision"),
        ({"source": "huggingface", "repo": "a/../b", "revision": "a" * 7}, "repo is 'a/../b'"),
        ({"source": "huggingface", "repo": "a/b", "revision": "main"}, "revision is 'main'"),
        ({"source": "local"}, "source 'local' requires folder"),
        ({"files": [{k: v for k, v in FILE.items() if k != "url"}]}, r"requires the url .*model\.safetensors"),
    ],
)  # fmt: skip
def test_invalid_fields_are_refused(fields, message):
    with pytest.raises(ManifestError, match=message):
        parse(changed(**fields))


@pytest.mark.parametrize(
    "path", ["../m", "/m", "a/../m", "./m", "a//m", "a\\m", "C:m", ".m", "a/.m", "m\n", ""]
)
def test_paths_that_leave_the_folder_are_refused(path):
    with pytest.raises(ManifestError, match=r"files\[0\]\.path"):
        parse(changed(files=[FILE | {"path": path}]))


@given(
    st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "b.c", "~", ":", "\n", " "])).map("".join)
)
def test_a_valid_path_stays_in_the_folder(path):
    try:
        ModelFile(path=path, sha256="unverified")
    except ValueError:
        return
    assert Path("/models/mine", path).resolve().is_relative_to("/models/mine")
    assert set(path) <= set("ab.c/")


@pytest.mark.parametrize("sha256", ["", "A" * 64, "a" * 63, "a" * 64 + "\n", "unknown", None])
def test_invalid_hashes_are_refused(sha256):
    with pytest.raises(ManifestError, match="sha256"):
        parse(changed(files=[FILE | {"sha256": sha256}]))


@pytest.mark.parametrize("size", [0, 10**13, -1, 1.5, True, "1000"])
def test_invalid_sizes_are_refused(size):
    with pytest.raises(ManifestError, match=r"files\[0\]\.bytes is"):
        parse(changed(files=[FILE | {"bytes": size}]))


@pytest.mark.parametrize(
    "url", ["http://example.org/m", "ftp://example.org/m", "m", "https:///m", "file:///m"]
)
def test_insecure_urls_are_refused(url):
    with pytest.raises(ManifestError, match=r"URL .* is refused.*https"):
        parse(changed(files=[FILE | {"url": url}]))


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/m", "http://localhost/m", "http://[::1]/m"])
def test_urls_of_this_machine_are_accepted(url):
    assert parse(changed(files=[FILE | {"url": url}]))["mine"].files[0].url == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "test.json is not valid JSON"),
        ("[]", "contains a list"),
        ('{"schema_version": 2, "models": []}', "has schema_version 2; .* reads 1. Upgrade"),
        ('{"schema_version": 1}', "not a weights manifest.*'models'"),
        ('{"schema_version": 1, "models": {}}', "not a weights manifest.*'models'"),
        ('{"schema_version": 1, "models": [3]}', "model 3: .* is 3"),
    ],
)
def test_a_manifest_of_another_form_is_refused(text, message):
    with pytest.raises(ManifestError, match=message):
        parse_manifest(text, base=Path(), where="test.json")


def test_two_models_of_one_name_are_refused():
    text = json.dumps({"schema_version": 1, "models": [ENTRY, ENTRY]})
    with pytest.raises(ManifestError, match="two models named 'mine'"):
        parse_manifest(text, base=Path(), where="test.json")


@pytest.fixture
def own_manifest(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"schema_version": 1, "models": [ENTRY, changed(name="sccello-small")]})
    )
    return path


def test_an_own_manifest_comes_on_top(own_manifest):
    entries = read_manifest(own_manifest)
    assert list(entries) == ["sccello-small", "sccello-zeroshot", "gdsc-small", "mine"]
    assert entries["sccello-small"].source == "url"
    assert list(read_manifest()) == ["sccello-small", "sccello-zeroshot", "gdsc-small"]


def test_an_own_manifest_that_is_missing(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "missing.json")


def test_an_unknown_name_gets_the_known_ones_and_the_closest():
    with pytest.raises(
        ModelNotFoundError,
        match=r"sccello-small, sccello-zeroshot, gdsc-small\. Did you mean 'sccello-small'\?.*hf://",
    ):
        find_entry("sccello-smal")


@pytest.fixture
def folder(tmp_path, tiny_network):
    from sccello_tools.models import save

    return save(
        tiny_network,
        tmp_path / "tiny",
        metadata={"description": "Tiny.", "pretrain_config": {"seed": 1}},
    )


def test_a_folder_describes_itself(folder):
    (folder / "epoch=1.ckpt").write_text("not part of the model")
    entry = entry_from_folder(folder)
    assert (entry.name, entry.source, entry.description) == ("tiny", "local", "Tiny.")
    assert {file.path for file in entry.files} == {
        "config.json",
        "model.safetensors",
        "metadata.json",
    }
    assert entry.pretrain_config == {"seed": 1}
    assert entry.hidden_size == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"license": "MIT"}', r"unknown field 'license'.*licence"),
    ],
)
def test_a_folder_with_bad_metadata(folder, text, message):
    (folder / "metadata.json").write_text(text)
    with pytest.raises(ManifestError, match=message):
        entry_from_folder(folder)


def test_update_entry_takes_hashes_sizes_and_description_from_the_folder(
    own_manifest, folder, tiny_network
):
    link = own_manifest.with_name("link.json")
    link.symlink_to(own_manifest)
    entry = update_entry(
        "mine", folder, path=link, source="local", folder=str(folder), licence="CC0-1.0"
    )
    assert link.is_symlink()
    assert read_manifest(link)["mine"] == entry
    assert {file.path: file.n_bytes for file in entry.files} == {
        p.name: p.stat().st_size for p in folder.iterdir()
    }
    assert all(file.is_verified for file in entry.files)
    assert (entry.description, entry.licence, entry.citation) == ("Tiny.", "CC0-1.0", "Somebody")
    assert entry.n_parameters == sum(p.numel() for p in tiny_network.parameters())
    assert entry.config["hidden_size"] == 8
    # the other entry is as it was
    assert (
        parse(changed(name="sccello-small"), own_manifest.parent)["sccello-small"]
        == read_manifest(link)["sccello-small"]
    )


def test_update_entry_leaves_the_manifest_alone_when_it_would_be_wrong(own_manifest, folder):
    before = own_manifest.read_text()
    with pytest.raises(ManifestError, match="licence"):
        update_entry("new", folder, path=own_manifest, licence=3)
    with pytest.raises(ManifestError, match="has no weights"):
        update_entry("mine", folder.parent, path=own_manifest)
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ManifestError, match="not a safetensors file"):
        update_entry("mine", folder, path=own_manifest)
    assert own_manifest.read_text() == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no files"),
        (["README.md", "model.gguf"], r"README\.md, model\.gguf"),
        (["args.json", "best_model.pt", "vocab.json"], "scGPT, not scCello"),
        (["config.json", "model.pkl"], r"only pickled files \(model\.pkl\).*not read"),
        (["config.json", "epoch=1.ckpt"], r"pickled files \(epoch=1\.ckpt\)"),
        (["pytorch_model.bin"], r"found: pytorch_model\.bin.*config\.json"),
        (["config.json", "labels.tsv"], r"found: config\.json, labels\.tsv.*model\.safetensors"),
    ],
)  # fmt: skip
def test_folders_without_a_model_are_described(names, message):
    with pytest.raises(WeightsError, match=message):
        check_contents(names, "hf://a/b")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_folders_with_a_model_are_accepted(weights):
    check_contents(["config.json", weights, "optimizer.pt"], "x")


@pytest.mark.parametrize("name", ["my model", "_x", "Übung", "a" * 200, "ok-1.0"])
def test_any_folder_name_gives_a_valid_model_name(tiny_network, tmp_path, name):
    from sccello_tools.models import save

    entry = entry_from_folder(save(tiny_network, tmp_path / name))
    assert entry.name
    assert entry.name == name or name != "ok-1.0"
