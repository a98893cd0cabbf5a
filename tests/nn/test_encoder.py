"""The packed encoder against a padded one that is written here with plain matrix products."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sccello_tools.errors import ConfigError
from sccello_tools.nn import EncoderConfig, ScCelloModel, sdpa_attention
from sccello_tools.nn.model import pool_by_runs, pool_padded

EXACT = {"atol": 1e-5, "rtol": 0}


def pack(sequences):
    lengths = [len(s) for s in sequences]
    cu_seqlens = torch.tensor(np.r_[0, np.cumsum(lengths)], dtype=torch.int32)
    return torch.cat(sequences), cu_seqlens, max(lengths)


def draw(lengths, config, seed=0):
    rng = torch.Generator().manual_seed(seed)
    cls = torch.tensor([config.cls_token_id])
    return [
        torch.cat([cls, torch.randint(2, config.vocab_size - 1, (n - 1,), generator=rng)])
        for n in lengths
    ]


def padded_reference(model, sequences):
    """BERT on a (B, L) rectangle, attention by matmul, mask and softmax; returns (B, L, d)."""
    config, state = model.config, model.state_dict()
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    n, length = ids.shape
    real = torch.arange(length) < torch.tensor([len(s) for s in sequences])[:, None]

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = state["encoder.word_embeddings.weight"][ids]
    x = x + state["encoder.position_embeddings.weight"][:length]
    for legacy in state["encoder.legacy_embeddings"]:
        x = x + legacy
    x = norm(x, "encoder.norm")
    for i in range(config.n_layers):
        layer = f"encoder.layers.{i}"
        heads = [
            part.view(n, length, config.n_heads, config.head_dim).transpose(1, 2)
            for part in linear(x, f"{layer}.qkv").chunk(3, dim=-1)
        ]
        scores = heads[0] @ heads[1].transpose(2, 3) / math.sqrt(config.head_dim)
        scores = scores.masked_fill(~real[:, None, None], float("-inf"))
        attended = (scores.softmax(-1) @ heads[2]).transpose(1, 2).reshape(n, length, -1)
        x = norm(x + linear(attended, f"{layer}.attention_out"), f"{layer}.attention_norm")
        inner = linear(x, f"{layer}.feed_forward_in").clamp(min=0)
        x = norm(x + linear(inner, f"{layer}.feed_forward_out"), f"{layer}.feed_forward_norm")
    return x


LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
@torch.no_grad()
def test_packed_is_padded(small_model, lengths, seed):
    sequences = draw(lengths, small_model.config, seed)
    expected = padded_reference(small_model, sequences)
    found = small_model.encoder(*pack(sequences), attention=sdpa_attention)
    for row, part in zip(expected, found.split(lengths), strict=True):
        torch.testing.assert_close(part, row[: len(part)], **EXACT)


@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
@torch.no_grad()
def test_batch_and_order_do_not_matter(small_model, lengths, seed):
    sequences = draw(lengths, small_model.config, seed)

    def encode(chosen):
        return small_model.encode(*pack(chosen), representation="cell", attention=sdpa_attention)

    together = encode(sequences)
    alone = torch.cat([encode([sequence]) for sequence in sequences])
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(seed))
    shuffled = encode([sequences[i] for i in order])
    torch.testing.assert_close(alone, together, **EXACT)
    torch.testing.assert_close(shuffled, together[order], **EXACT)


@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
@torch.no_grad()
def test_cls_only_is_the_first_row(small_model, lengths, seed):
    packed = pack(draw(lengths, small_model.config, seed))
    every = small_model.encoder(*packed, attention=sdpa_attention)
    first = small_model.encoder(*packed, attention=sdpa_attention, cls_only=True)
    torch.testing.assert_close(first, every[packed[1][:-1].long()], **EXACT)


def test_cls_only_has_the_same_gradients(small_config):
    torch.manual_seed(1)
    model = ScCelloModel(small_config).eval()
    packed = pack(draw([5, 5, 12, 1], small_config))
    first = packed[1][:-1].long()
    names, parameters = zip(*model.encoder.named_parameters(), strict=True)
    whole = model.encoder(*packed, attention=sdpa_attention)[first].square().sum()
    short = model.encoder(*packed, attention=sdpa_attention, cls_only=True).square().sum()
    expected = torch.autograd.grad(whole, parameters)
    for name, a, b in zip(names, torch.autograd.grad(short, parameters), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_pooling_by_runs_equals_padded_pooling():
    cu_seqlens = torch.tensor([0, 3, 6, 7, 20], dtype=torch.int32)
    x, queries = torch.randn(20, 8), torch.randn(4, 2, 8)
    by_runs = pool_by_runs(queries, x, cu_seqlens, 13, 0.0)
    torch.testing.assert_close(pool_padded(queries, x, cu_seqlens, 13, 0.0), by_runs)


@torch.no_grad()
def test_inputs_embeds_replace_word_embeddings(small_model):
    ids, *bounds = pack(draw([4, 9], small_model.config))
    expected = small_model.encoder(ids, *bounds, attention=sdpa_attention)
    words = functional.embedding(ids, small_model.word_embeddings)
    found = small_model.encoder(
        torch.zeros_like(ids), *bounds, attention=sdpa_attention, inputs_embeds=words
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("representation", ["cls", "cell"])
def test_bfloat16_is_near_float32(small_model, representation):
    packed = pack(draw([30, 64, 5], small_model.config))
    with torch.inference_mode():
        exact = small_model.encode(*packed, representation=representation, attention=sdpa_attention)
        with torch.autocast("cpu", torch.bfloat16):
            near = small_model.encode(
                *packed, representation=representation, attention=sdpa_attention
            )
    assert near.dtype == torch.float32
    assert torch.cosine_similarity(near, exact).min() > 0.999
    assert not torch.equal(near, exact)


def test_dropout_only_in_training():
    config = EncoderConfig(
        vocab_size=60, cls_token_id=59, hidden_size=24, n_heads=3, n_layers=2, dropout=0.2
    )
    torch.manual_seed(0)
    model = ScCelloModel(config)
    packed = pack(draw([6, 6, 9], config))
    passes = [model.encode(*packed, attention=sdpa_attention) for _ in range(2)]
    assert not torch.equal(*passes)
    passes[0].sum().backward()
    model.eval()
    passes = [model.encode(*packed, attention=sdpa_attention) for _ in range(2)]
    assert torch.equal(*passes)


@pytest.mark.parametrize("share", ["dropout", "attention_dropout"])
@pytest.mark.parametrize("cls_only", [True, False])
def test_hidden_and_attention_dropout_have_an_effect(share, cls_only):
    none = {"dropout": 0.0, "attention_dropout": 0.0}
    config = EncoderConfig(
        vocab_size=60, cls_token_id=59, hidden_size=24, n_heads=3, n_layers=1, **none | {share: 0.5}
    )
    torch.manual_seed(0)
    encoder = ScCelloModel(config).train().encoder
    packed = pack(draw([20, 20], config))
    kwargs = {"attention": sdpa_attention, "cls_only": cls_only}
    assert not torch.equal(encoder(*packed, **kwargs), encoder(*packed, **kwargs))


def test_too_long(small_model):
    packed = pack(draw([3, 65], small_model.config))
    with pytest.raises(ConfigError, match="has 65 tokens, the model has 64 positions"):
        small_model.encode(*packed, attention=sdpa_attention)


def test_unknown_representation(small_model):
    packed = pack(draw([3], small_model.config))
    with pytest.raises(ConfigError, match=r"'mean'.*'cls' or 'cell'"):
        small_model.encode(*packed, representation="mean", attention=sdpa_attention)


def test_fresh_weights():
    torch.manual_seed(0)
    config = EncoderConfig(hidden_size=64, n_layers=1, initializer_range=0.05)
    model = ScCelloModel(config).requires_grad_(False)
    assert model.word_embeddings.std() == pytest.approx(0.05, rel=0.05)
    assert model.encoder.layers[0].qkv.weight.std() == pytest.approx(0.05, rel=0.05)
    assert not model.word_embeddings[0].any()
    assert not model.encoder.layers[0].qkv.bias.any()
    assert (model.encoder.norm.weight == 1).all()
