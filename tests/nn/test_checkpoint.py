from __future__ import annotations

import json
import os
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from sccello_tools.errors import ConfigError, WeightsError
from sccello_tools.nn import ScCelloModel, load_checkpoint, sdpa_attention
from sccello_tools.nn import save_checkpoint as save
from sccello_tools.nn.checkpoint import _NOT_WEIGHTS, _TIED, to_published


@pytest.fixture
def folder(small_model, tmp_path):
    save(small_model, tmp_path)
    return tmp_path


@pytest.fixture
def published(golden_folder, tmp_path):
    """A copy of the published files that a test may break."""
    return shutil.copytree(golden_folder, tmp_path / "published")


def published_tensors(folder):
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def assert_same(a, b):
    assert a.config == b.config
    state, other = a.state_dict(), b.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_round_trip(small_model, folder):
    generator = torch.get_rng_state()
    loaded = load_checkpoint(folder)
    assert_same(loaded, small_model)
    assert not loaded.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_files_can_be_read_by_others(folder):
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644


def test_float16_halves_the_file(small_model, folder, tmp_path):
    save(small_model, tmp_path / "half", dtype="float16")
    sizes = [(f / "model.safetensors").stat().st_size for f in (tmp_path / "half", folder)]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_checkpoint(tmp_path / "half").state_dict()
    for name, tensor in small_model.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float())


def test_published_form_becomes_ours(golden_model, published, tmp_path):
    save(golden_model, tmp_path / "ours")
    assert_same(load_checkpoint(tmp_path / "ours"), golden_model)
    # and every published tensor is found again, unchanged
    original = published_tensors(published)
    again = to_published(golden_model.state_dict(), golden_model.config)
    assert set(again) == set(original) - _NOT_WEIGHTS
    assert all(torch.equal(again[name], original[name]) for name in again)


@pytest.mark.parametrize("without", [_NOT_WEIGHTS, set(_TIED), set()])
def test_published_safetensors(golden_model, published, without):
    tensors = {n: t.clone() for n, t in published_tensors(published).items() if n not in without}
    save_file(tensors, published / "model.safetensors")
    (published / "pytorch_model.bin").unlink()
    assert_same(load_checkpoint(published), golden_model)


def test_every_tensor_counts(small_model, folder):
    """A change of any one weight changes what is loaded: nothing is quietly left at its start."""
    # copies: some releases map the file, which is written again below
    state = {name: t.clone() for name, t in load_file(folder / "model.safetensors").items()}
    assert set(state) == set(dict(small_model.named_parameters()))
    save_file({name: tensor + 1 for name, tensor in state.items()}, folder / "model.safetensors")
    loaded = load_checkpoint(folder).state_dict()
    assert all(torch.equal(loaded[name], state[name] + 1) for name in state)


def test_loaded_model_runs_and_trains(folder):
    model = load_checkpoint(folder).train()
    ids, cu_seqlens = torch.tensor([59, 3, 4]), torch.tensor([0, 3], dtype=torch.int32)
    model.encode(ids, cu_seqlens, 3, attention=sdpa_attention).sum().backward()
    assert model.word_embeddings.grad[3].any()


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_missing_surplus_and_misshaped_are_listed(folder):
    def change(tensors):
        del tensors["encoder.norm.bias"], tensors["cls.out.weight"]
        tensors["decoder.weight"] = torch.zeros(2)
        tensors["learned_centroid.weight"] = torch.zeros(3, 24)

    rewrite(folder, change)
    with pytest.raises(WeightsError, match=r"does not match its config\.json") as found:
        load_checkpoint(folder)
    message = str(found.value)
    assert "missing: encoder.norm.bias, cls.out.weight" in message
    assert "unexpected: decoder.weight" in message
    assert "of the wrong shape: learned_centroid.weight (3, 24) instead of (7, 24)" in message


def test_long_lists_are_cut(folder):
    rewrite(folder, dict.clear)
    with pytest.raises(WeightsError, match=r"missing: .* and \d+ more"):
        load_checkpoint(folder)


def test_published_names_are_listed(published):
    tensors = published_tensors(published)
    del tensors["bert.encoder.layer.1.attention.self.key.weight"]
    torch.save(tensors | {"pooler.weight": torch.zeros(1)}, published / "pytorch_model.bin")
    with pytest.raises(
        WeightsError,
        match=r"missing: bert\.encoder\.layer\.1\.attention\.self\.key\.weight; unexpected: pooler",
    ):
        load_checkpoint(published)


def test_copies_of_a_bias_that_differ(published):
    tensors = published_tensors(published)
    tensors["cls.predictions.bias"] = tensors["cls.predictions.bias"] + 1
    torch.save(tensors, published / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"cls\.predictions\.bias differs from cls\.pred"):
        load_checkpoint(published)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(folder, small_config, value):
    rewrite(folder, lambda tensors: tensors["encoder.norm.bias"].fill_(value))
    with pytest.raises(WeightsError, match=r"are not finite: encoder\.norm\.bias"):
        load_checkpoint(folder)
    model = ScCelloModel(small_config)
    with torch.no_grad():
        model.affine_projection.bias[0] = value
    with pytest.raises(WeightsError, match=r"not finite: affine_projection\.bias"):
        save(model, folder / "new")
    assert not (folder / "new").exists()


def test_too_large_for_float16(small_config, tmp_path):
    model = ScCelloModel(small_config)
    with torch.no_grad():
        model.affine_projection.bias[0] = 1e6
    with pytest.raises(WeightsError, match=r"as float16\) are not finite"):
        save(model, tmp_path, dtype="float16")


def test_damaged_safetensors(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 100, 500_000])
def test_damaged_pickle(published, keep):
    path = published / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is damaged"):
        load_checkpoint(published)


def test_text_in_place_of_weights(published):
    (published / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is damaged"):
        load_checkpoint(published)


class Code:
    def __reduce__(self):
        return os.mkdir, ("code_has_run",)


def test_pickle_with_code_is_not_run(published, monkeypatch):
    monkeypatch.chdir(published)
    torch.save({"a": Code()}, "pytorch_model.bin")
    with pytest.raises(WeightsError, match="contains code, which is never run"):
        load_checkpoint(published)
    assert not (published / "code_has_run").exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}}])
def test_pickle_of_something_else(published, content):
    torch.save(content, published / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="not a state dict of named tensors"):
        load_checkpoint(published)


def test_missing_files(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"No config\.json in"):
        load_checkpoint(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "", "\x00"])
def test_damaged_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json is damaged"):
        load_checkpoint(folder)


def test_config_of_another_kind(folder):
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="contains a list"):
        load_checkpoint(folder)


def test_config_that_leaves_the_model_open(folder):
    """n_heads shows in no tensor's shape: a default in its place would give wrong numbers."""
    values = json.loads((folder / "config.json").read_text())
    del values["n_heads"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"lacks \['n_heads'\]"):
        load_checkpoint(folder)


def test_broken_write_leaves_the_old_file(small_model, folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        save(small_model, folder, dtype="float16")
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
