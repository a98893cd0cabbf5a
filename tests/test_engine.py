"""engine.encode: rows do not depend on the batch, and failures of a batch."""

from __future__ import annotations

import logging
import platform
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sccello_tools import models
from sccello_tools.engine import cells_by_length, cells_that_fit, encode, resolve_precision
from sccello_tools.errors import BackendError, ConfigError, MissingExtraError, WeightsError
from sccello_tools.nn import EncoderConfig, ScCelloModel, sdpa_attention
from sccello_tools.tokens import RaggedTokens

CLS = 25426
LENGTHS = (17, 256, 0, 2, 40, 40, 0, 255, 1, 120, 17, 40)
EMPTY = [i for i, length in enumerate(LENGTHS) if not length]
FULL = [i for i, length in enumerate(LENGTHS) if length]


def ragged(sequences: list[np.ndarray]) -> RaggedTokens:
    ids = np.concatenate([np.zeros(0, dtype=np.int32), *sequences]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    return RaggedTokens(indptr, ids)


def sequence(length: int, seed: int) -> np.ndarray:
    genes = np.random.default_rng(seed).choice(np.arange(2, CLS), max(0, length - 1), replace=False)
    return np.array([CLS, *genes][:length], dtype=np.int32)


@pytest.fixture(scope="module")
def network(tiny_model_folder):
    return models.load(tiny_model_folder, device="cpu", keep=False).network


@pytest.fixture(scope="module")
def tokens() -> RaggedTokens:
    return ragged([sequence(length, seed) for seed, length in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def rows(network, tokens) -> np.ndarray:
    """Each cell encoded by itself, directly by the network."""
    out = np.full((len(tokens), 16), np.nan, dtype=np.float32)
    for cell in FULL:
        ids = torch.from_numpy(tokens[cell].astype(np.int64))
        bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
        with torch.no_grad():
            out[cell] = network.encode(ids, bounds, len(ids), attention=sdpa_attention)[0].numpy()
    return out


def same(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def count_batches(monkeypatch, network) -> list[list[int]]:
    """Record the lengths of the cells of each batch."""
    seen: list[list[int]] = []
    original = network.encode

    def encode_and_note(ids, cu_seqlens, max_seqlen, **kwargs):
        seen.append(cu_seqlens.diff().tolist())
        assert max_seqlen == max(seen[-1])
        return original(ids, cu_seqlens, max_seqlen, **kwargs)

    monkeypatch.setattr(network, "encode", encode_and_note)
    return seen


def test_rows_are_those_of_one_cell_at_a_time_in_input_order(network, tokens, rows):
    out = encode(network, tokens, precision="float32")
    assert out.dtype == np.float32
    assert out.shape == (12, 16)
    same(out, rows)
    assert np.isnan(out[EMPTY]).all()
    # rows of different cells differ, or the comparison would show nothing
    distances = np.linalg.norm(out[FULL][:, None] - out[FULL], axis=-1)
    assert distances[np.triu_indices(len(FULL), 1)].min() > 1e-2


@pytest.mark.parametrize("batch_tokens", [1, 2, 57, 256, 300, 511, 10_000, np.int64(80)])
def test_whatever_the_batch(network, tokens, rows, batch_tokens):
    same(encode(network, tokens, batch_tokens=batch_tokens, precision="float32"), rows)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order(network, tokens, rows, seed):
    order = np.random.default_rng(seed).permutation(len(tokens))
    same(encode(network, tokens.take(order), batch_tokens=300, precision="float32"), rows[order])


@pytest.fixture(scope="module")
def wider_network():
    """A model whose matrices are wide enough to be multiplied in several threads, as those of all released models."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = EncoderConfig(hidden_size=64, n_layers=2, n_heads=4, intermediate_size=128)
        return ScCelloModel(config).eval()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("representation", ["cls", "cell"])
def test_batches_and_threads_change_less_than_1e_5(wider_network, tokens, representation, threads):
    options = {"precision": "float32", "representation": representation}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = encode(wider_network, tokens, **options)
        torch.set_num_threads(threads)
        for budget in (1, 40, 130, 300):
            found = encode(wider_network, tokens, batch_tokens=budget, **options)
            same(found, expected)
            # the same batches in the same number of threads give the same bits
            again = encode(wider_network, tokens, batch_tokens=budget, **options)
            np.testing.assert_array_equal(again, found)
        for cells in ([1], [4, 5], [8, 1, 3], [9, 9, 9]):
            same(encode(wider_network, tokens.take(cells), **options), expected[cells])
    finally:
        torch.set_num_threads(before)


def test_cells_around_it_do_not_matter(network, tokens, rows):
    for cells in ([1], [4, 5], [8, 1, 3], [9, 9, 9]):
        same(encode(network, tokens.take(cells), precision="float32"), rows[cells])


def test_batches_hold_at_most_the_budget_and_a_longer_cell_is_alone(monkeypatch, network, tokens):
    seen = count_batches(monkeypatch, network)
    encode(network, tokens, batch_tokens=130)
    assert [n for batch in seen for n in batch] == sorted(
        (LENGTHS[cell] for cell in FULL), reverse=True
    )
    assert all(sum(batch) <= 130 or len(batch) == 1 for batch in seen)
    assert [len(batch) for batch in seen[:2]] == [1, 1]
    assert len(seen) < len(FULL)


@settings(deadline=None)
@given(
    lengths=hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, 50)),
    budget=st.integers(1, 200),
)
def test_every_cell_with_tokens_is_in_one_batch(lengths, budget):
    order = cells_by_length(lengths)
    assert sorted(order.tolist()) == np.flatnonzero(lengths).tolist()
    assert (np.diff(lengths[order]) <= 0).all()
    batches = []
    while len(order):
        n = cells_that_fit(lengths[order], budget)
        assert n >= 1
        assert n == 1 or lengths[order[:n]].sum() <= budget
        # no room is left for the next cell
        assert n == len(order) or lengths[order[: n + 1]].sum() > budget
        batches += order[:n].tolist()
        order = order[n:]
    assert sorted(batches) == np.flatnonzero(lengths).tolist()


def test_longer_cells_are_cut_to_the_positions_of_the_model(network):
    long = sequence(400, 1)
    out = encode(network, ragged([long, long[:256], long[:64]]), precision="float32")
    same(out[0], out[1])
    assert np.abs(out[1] - out[2]).max() > 1e-3


def test_no_cells_and_only_empty_cells(network):
    assert encode(network, ragged([])).shape == (0, 16)
    out = encode(network, ragged([sequence(0, 0)] * 3))
    assert out.shape == (3, 16)
    assert np.isnan(out).all()


def test_cell_representation_has_unit_length(network, tokens, rows):
    out = encode(network, tokens, representation="cell", precision="float32")
    np.testing.assert_allclose(np.linalg.norm(out[FULL], axis=1), 1, atol=1e-5)
    with torch.no_grad():
        expected = network.cell_representation(torch.from_numpy(rows[FULL])).numpy()
    same(out[FULL], expected)
    assert np.isnan(out[EMPTY]).all()


def test_unknown_representation(network, tokens):
    with pytest.raises(ConfigError, match="'gene', must be 'cls' or 'cell'"):
        encode(network, tokens, representation="gene")


def test_bfloat16_is_near_float32(network, tokens):
    exact = encode(network, tokens, precision="float32")[FULL]
    rounded = encode(network, tokens, precision="bfloat16")
    assert rounded.dtype == np.float32
    assert np.isnan(rounded[EMPTY]).all()
    rounded = rounded[FULL]
    assert np.abs(rounded - exact).max() > 0  # or it was not computed in bfloat16
    cosine = (rounded * exact).sum(1) / np.linalg.norm(rounded, axis=1)
    assert (cosine / np.linalg.norm(exact, axis=1)).min() >= 0.9999


def test_precision_by_name_and_by_hardware(monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == torch.float32
    assert resolve_precision("bfloat16", cpu) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert resolve_precision("auto", cpu) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert resolve_precision("auto", cpu) == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"precision": "float16"},
            BackendError,
            "precision must be .*'float16'",
        ),
        ({"attention": "xformers"}, BackendError, "Unknown attention backend 'xformers'"),
        ({"attention": "torch_varlen"}, BackendError, "Use 'sdpa'"),
        ({"batch_tokens": 0}, ValueError, "batch_tokens must be.*got 0"),
        ({"batch_tokens": -5}, ValueError, "batch_tokens.*got -5"),
        ({"batch_tokens": "many"}, ValueError, "batch_tokens.*got 'many'"),
        ({"batch_tokens": 2.5}, ValueError, "batch_tokens.*got 2.5"),
    ],
)
def test_bad_options(network, tokens, options, error, says):
    with pytest.raises(error, match=says):
        encode(network, tokens, **options)


def test_flash_attention_that_is_not_installed(network, tokens, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "sccello-tools\[flash\]"'):
        encode(network, tokens, attention="flash")


def out_of_memory_above(monkeypatch, network, limit: int, error: Exception) -> list[int]:
    """Let the network fail on batches of more than `limit` tokens; returns the sizes that it was given."""
    sizes: list[int] = []
    original = network.encode

    def limited(ids, *args, **kwargs):
        sizes.append(len(ids))
        if len(ids) > limit:
            raise error
        return original(ids, *args, **kwargs)

    monkeypatch.setattr(network, "encode", limited)
    return sizes


ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ALLOCATOR)]
)
def test_out_of_memory_halves_the_batch_for_good(monkeypatch, caplog, network, tokens, rows, error):
    sizes = out_of_memory_above(monkeypatch, network, 300, error)
    done = []
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        out = encode(network, tokens, precision="float32", on_progress=done.append)
    same(out, rows)
    assert sum(done) == len(tokens)
    # all at once; half of it, in which the second batch is too large still; a quarter, and no failure any more
    assert sizes[:4] == [788, 256, 255 + 120, 255]
    assert [size for size in sizes if size > 300] == [788, 375]
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory on cpu: continuing with at most 394 tokens per batch",
        "out of memory on cpu: continuing with at most 187 tokens per batch",
    ]


def test_a_single_cell_that_does_not_fit(monkeypatch, network, tokens):
    out_of_memory_above(monkeypatch, network, 200, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(
        MemoryError,
        match=r"256 tokens.*cpu\. Reduce max_length",
    ) as caught:
        encode(network, tokens)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_pass_through_at_once(monkeypatch, network, tokens):
    sizes = out_of_memory_above(monkeypatch, network, 0, RuntimeError("mat1 and mat2 shapes"))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        encode(network, tokens)
    assert len(sizes) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights(tiny_model_folder, tokens, value):
    network = models.load(tiny_model_folder, device="cpu", keep=False).network
    with torch.no_grad():
        network.encoder.layers[-1].feed_forward_norm.weight[3] = value
    with pytest.raises(
        WeightsError,
        match=r"NaN or infinite values for 10 cells that have tokens \(rows \[0, 1, 3, 4, 5\]\)",
    ):
        encode(network, tokens)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_mode_of_the_network_is_restored(monkeypatch, network, tokens, rows, training, fails):
    if fails:
        out_of_memory_above(monkeypatch, network, 0, RuntimeError("odd"))
    network.train(training)
    try:
        if fails:
            with pytest.raises(RuntimeError, match="odd"):
                encode(network, tokens)
        else:
            # no dropout, whatever the mode was
            same(encode(network, tokens, precision="float32"), rows)
        assert network.training is training
        assert network.encoder.training is training
    finally:
        network.eval()


def test_global_state_is_left_alone(network, tokens):
    def state() -> list[object]:
        return [
            torch.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002 - the state in question
            random.getstate(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_default_dtype(),
        ]

    before = state()
    encode(network, tokens, precision="bfloat16")
    assert state() == before
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_progress_counts_every_cell_once(network, tokens):
    done: list[int] = []
    encode(network, tokens, batch_tokens=100, on_progress=done.append)
    assert sum(done) == len(tokens)
    assert len(done) > 3


FAULTS = """
import resource
import numpy as np, torch
from sccello_tools.engine import encode
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.tokens import RaggedTokens

torch.set_num_threads(1)
config = EncoderConfig(n_layers=1, max_positions=512)
network = ScCelloModel(config).eval()
ids = np.random.default_rng(0).integers(10, 2_000, size=(64, 512)).astype(np.int32)
tokens = RaggedTokens(np.arange(65) * 512, ids.ravel())
counts = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    encode(network, tokens, precision="float32")
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(counts))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_memory_of_intermediate_results_is_reused():
    """Otherwise most operations get new pages: 24,000 in this example."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 10_000
