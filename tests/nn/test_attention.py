from __future__ import annotations

import importlib.util
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.errors import BackendError, MissingExtraError
from sccello_tools.nn import attention as attention_module
from sccello_tools.nn import available_backends, resolve_attention, sdpa_attention
from sccello_tools.nn.attention import (
    BACKENDS,
    equal_length_runs,
    length_blocks,
    sdpa_by_blocks,
    sdpa_by_runs,
    torch_varlen_attention,
)

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


@pytest.mark.parametrize("attention", [sdpa_by_runs, sdpa_by_blocks])
def test_no_sequence(attention):
    q, k, v = (x[:0] for x in random_qkv())
    assert attention(q, k, v, bounds([]), 0).shape == q.shape


@given(lengths=st.lists(st.integers(1, 2048), max_size=80), padding=st.floats(0, 0.5))
@settings(max_examples=50, deadline=None)
def test_blocks_hold_every_sequence_once_with_little_padding(lengths, padding):
    blocks = length_blocks(bounds(lengths), max_padding=padding)
    found = [int(i) for block in blocks for i in block.sequences]
    assert sorted(found) == list(range(len(lengths)))
    for block in blocks:
        assert block.length % 8 == 0
        for i in block.sequences.tolist():
            assert (1 - padding) * (block.length - 7) - 1e-6 <= lengths[i] <= block.length


def test_number_of_blocks_does_not_follow_the_number_of_lengths():
    assert len(length_blocks(bounds(range(200, 2049)))) <= 20
    assert len(length_blocks(bounds([2048] * 50))) == 1


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_blocks_equal_runs_with_their_gradients(lengths, seed):
    rng = torch.Generator().manual_seed(seed)
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=rng, requires_grad=True)
    weight = torch.randn(sum(lengths), 2, 8, generator=rng)
    found = []
    for attention in (sdpa_by_runs, sdpa_by_blocks):
        out = attention(*qkv.unbind(1), bounds(lengths), max(lengths))
        (gradient,) = torch.autograd.grad((out * weight).sum(), qkv)
        found.append((out, gradient))
    torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=0)


def test_blocks_equal_runs_in_bfloat16():
    qkv, args = random_qkv(dtype=torch.bfloat16), (bounds(LENGTHS), max(LENGTHS))
    found = sdpa_by_blocks(*qkv, *args)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, sdpa_by_runs(*qkv, *args), atol=2e-2, rtol=2e-2)


def test_dropout_of_blocks_has_the_distribution_of_runs():
    """Mean and standard deviation of 2,000 draws, which for 20 % dropout of 1 to 9 attention weights are far from 0."""
    lengths = [9, 1, 7, 9]
    qkv = [x[: sum(lengths)] for x in random_qkv(n_heads=1, head_dim=4)]
    torch.manual_seed(0)
    moments = []
    for attention in (sdpa_by_runs, sdpa_by_blocks):
        draws = [attention(*qkv, bounds(lengths), 9, dropout_p=0.2) for _ in range(2000)]
        moments.append(torch.stack([torch.stack(draws).mean(0), torch.stack(draws).std(0)]))
    assert (moments[0][1] > 0.05).any(-1).all()  # every token varies
    torch.testing.assert_close(moments[1], moments[0], atol=0.06, rtol=0.1)
    exact = sdpa_by_runs(*qkv, bounds(lengths), 9)
    torch.testing.assert_close(moments[1][0], exact, atol=0.06, rtol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_on_a_gpu_equal_runs_on_the_cpu(dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lengths = list(range(30, 300, 7))
    rng = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 4, 32, generator=rng)
    found = []
    for device in ("cpu", "cuda"):
        x = qkv.to(device, torch.float32 if device == "cpu" else dtype).requires_grad_()
        out = sdpa_attention(*x.unbind(1), bounds(lengths, device), max(lengths))
        (gradient,) = torch.autograd.grad(out.float().square().sum(), x)
        found.append((out.float().cpu(), gradient.float().cpu()))
        dropped = sdpa_attention(*x.unbind(1), bounds(lengths, device), max(lengths), dropout_p=0.1)
        assert dropped.isfinite().all()
        assert not torch.equal(dropped, out)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found[1], found[0], atol=tolerance, rtol=tolerance)


def test_blocks_make_few_calls_for_many_lengths(monkeypatch):
    n_calls = []
    sdpa = attention_module.functional.scaled_dot_product_attention

    def count(*args, **kwargs):
        n_calls.append(args[0].shape)
        return sdpa(*args, **kwargs)

    monkeypatch.setattr(attention_module.functional, "scaled_dot_product_attention", count)
    lengths = list(range(100, 200))
    qkv = torch.randn(sum(lengths), 3, 1, 4).unbind(1)
    sdpa_by_blocks(*qkv, bounds(lengths), max(lengths), dropout_p=0.1)
    assert len(n_calls) <= 6


def test_auto_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(attention_module, "_logged", set())
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        for _ in range(3):
            assert resolve_attention("auto", "cpu", torch.float32) is sdpa_attention
    assert [record.message for record in caplog.records] == ["attention: sdpa on cpu"]


def test_by_name():
    assert resolve_attention("sdpa", "cpu", torch.bfloat16, dropout_p=0.1) is sdpa_attention


def test_unknown_backend():
    with pytest.raises(BackendError, match=r"'xformers'.*'auto'.*'sdpa'"):
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
    with pytest.raises(BackendError, match=r"attention dropout, found 0\.1.*sdpa"):
        resolve_attention("torch_varlen", "cuda", torch.bfloat16, dropout_p=0.1)


def test_varlen_refuses_dropout():
    with pytest.raises(BackendError, match=r"attention dropout, found 0\.1.*sdpa"):
        torch_varlen_attention(*random_qkv(), bounds(LENGTHS), max(LENGTHS), dropout_p=0.1)


def test_the_backward_pass_does_not_allocate_a_full_gradient_per_run():
    q, k, v = (torch.randn(9, 2, 4, requires_grad=True) for _ in range(3))
    out = sdpa_by_runs(q, k, v, torch.tensor([0, 2, 5, 9], dtype=torch.int32), 4)
    found, todo = set(), [out.grad_fn]
    while todo:
        node = todo.pop()
        found.add(node.name())
        todo += [above for above, _ in node.next_functions if above is not None]
    assert "SplitWithSizesBackward0" in found
    assert "SliceBackward0" not in found
