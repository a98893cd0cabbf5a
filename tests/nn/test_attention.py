from __future__ import annotations

import importlib.util
import logging
import math

import pytest
import torch

from sccello_tools.errors import BackendError, MissingExtraError
from sccello_tools.nn import attention as attention_module
from sccello_tools.nn import available_backends, resolve_attention, sdpa_attention
from sccello_tools.nn.attention import BACKENDS, equal_length_runs, torch_varlen_attention

LENGTHS = [7, 7, 7, 300, 1, 40, 40]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
HAS_FLASH = importlib.util.find_spec("flash_attn") is not None


def bounds(lengths, device="cpu"):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=device)


def random_qkv(n_heads=4, head_dim=32, **kwargs):
    rng = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3, n_heads, head_dim, generator=rng).to(**kwargs)
    return qkv.unbind(1)  # views with strides, as the encoder makes them


def test_sdpa_is_attention_within_each_sequence():
    q, k, v = random_qkv()
    found = sdpa_attention(q, k, v, bounds(LENGTHS), max(LENGTHS))
    start = 0
    for length in LENGTHS:
        part = slice(start, start + length)
        scores = torch.einsum("qhd,khd->hqk", q[part], k[part]) / math.sqrt(q.shape[-1])
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[part])
        torch.testing.assert_close(found[part], expected, atol=1e-5, rtol=0)
        start += length


@pytest.mark.parametrize("device", DEVICES)
def test_every_backend_agrees_with_sdpa(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = random_qkv(device=device, dtype=dtype)
    cu_seqlens = bounds(LENGTHS, device)
    exact = sdpa_attention(q.float(), k.float(), v.float(), cu_seqlens, max(LENGTHS))
    names = available_backends(device, dtype)
    assert "sdpa" in names
    for name in names:
        found = BACKENDS[name](q, k, v, cu_seqlens, max(LENGTHS)).float()
        tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found, exact, atol=tolerance, rtol=tolerance)


def test_gradient_stays_within_a_sequence():
    q, k, v = (x.clone().requires_grad_() for x in random_qkv())
    out = sdpa_attention(q, k, v, bounds(LENGTHS), max(LENGTHS))
    out[:7].square().sum().backward()
    for x in (q, k, v):
        assert x.grad[:7].abs().sum() > 0
        assert not x.grad[7:].any()


def test_runs_of_equal_length():
    runs = list(equal_length_runs(bounds(LENGTHS)))
    assert [tuple(run) for run in runs] == [(0, 3, 7), (21, 1, 300), (321, 1, 1), (322, 2, 40)]
    assert runs[-1].stop == sum(LENGTHS)


def test_no_sequence():
    q, k, v = (x[:0] for x in random_qkv())
    assert sdpa_attention(q, k, v, bounds([]), 0).shape == q.shape


def test_auto_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(attention_module, "_said", set())
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        for _ in range(3):
            assert resolve_attention("auto", "cpu", torch.float32) is sdpa_attention
    assert [record.message for record in caplog.records] == ["attention: sdpa on cpu"]


def test_by_name():
    assert resolve_attention("sdpa", "cpu", torch.bfloat16, dropout_p=0.1) is sdpa_attention


def test_unknown_backend():
    with pytest.raises(BackendError, match=r"'xformers' is unknown; expected 'auto' or one of"):
        resolve_attention("xformers", "cpu", torch.float32)


@pytest.mark.skipif(HAS_FLASH, reason="flash-attn is installed")
def test_missing_flash_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"sccello-tools\[flash\]"):
        resolve_attention("flash", "cuda", torch.bfloat16)


def has_modules(*names):
    def find_spec(name):
        return object() if name in names else None

    return find_spec


@pytest.mark.parametrize("name", ["flash", "torch_varlen"])
@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cpu", torch.bfloat16, "needs a CUDA device, found 'cpu'"),
        ("cuda", torch.float32, "needs bfloat16 or float16, found torch.float32"),
    ],
)
def test_backend_that_cannot_run(monkeypatch, name, device, dtype, message):
    every = has_modules("flash_attn", "torch.nn.attention.varlen")
    monkeypatch.setattr(importlib.util, "find_spec", every)
    with pytest.raises(BackendError, match=message):
        resolve_attention(name, device, dtype)


def test_old_torch_has_no_varlen(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", has_modules())
    with pytest.raises(BackendError, match=r"needs torch 2\.10 or later"):
        resolve_attention("torch_varlen", "cuda", torch.bfloat16)
    assert available_backends("cuda", torch.bfloat16) == ["sdpa"]


def test_best_backend_on_cuda(monkeypatch):
    every = has_modules("flash_attn", "torch.nn.attention.varlen")
    monkeypatch.setattr(importlib.util, "find_spec", every)
    assert available_backends("cuda", torch.bfloat16) == ["flash", "torch_varlen", "sdpa"]
    assert available_backends("cuda", torch.bfloat16, dropout_p=0.1) == ["flash", "sdpa"]
    assert available_backends("cuda", torch.float32) == ["sdpa"]
    with pytest.raises(BackendError, match=r"cannot drop attention weights, dropout is 0\.1"):
        resolve_attention("torch_varlen", "cuda", torch.bfloat16, dropout_p=0.1)


def test_varlen_refuses_dropout():
    with pytest.raises(BackendError, match=r"cannot drop attention weights, dropout is 0\.1"):
        torch_varlen_attention(*random_qkv(), bounds(LENGTHS), max(LENGTHS), dropout_p=0.1)
