"""What only a GPU can show: every attention backend against sdpa, bfloat16, memory that runs out, NCCL."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import sccello_tools as sccello
from sccello_tools import engine, models
from sccello_tools.engine import encode
from sccello_tools.nn.attention import available_backends

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def tokens():
    adata = sccello.datasets.pancreas_tritschler()[:64].copy()
    return sccello.pp.tokenize(adata, max_length=512)


@pytest.fixture(scope="module")
def on_cpu(tokens) -> np.ndarray:
    network = models.load("sccello-small", device="cpu", keep=False).network
    return encode(network, tokens, precision="float32")


@pytest.fixture(scope="module")
def network():
    return models.load("sccello-small", device="cuda", keep=False).network


def away(found: np.ndarray, expected: np.ndarray) -> float:
    return float(
        (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max()
    )


def test_float32_is_that_of_the_cpu(network, tokens, on_cpu) -> None:
    found = encode(network, tokens, precision="float32", attention="sdpa")
    np.testing.assert_allclose(found, on_cpu, atol=2e-4)


@pytest.mark.parametrize(
    "name",
    [pytest.param("flash", marks=pytest.mark.flash), "torch_varlen", "sdpa"],
)
def test_every_backend_in_bfloat16(network, tokens, on_cpu, name) -> None:
    if name not in available_backends("cuda", torch.bfloat16):
        pytest.skip(f"{name} does not run here")
    found = encode(network, tokens, precision="bfloat16", attention=name)
    assert away(found, on_cpu) < 0.02
    reference = encode(network, tokens, precision="bfloat16", attention="sdpa")
    assert away(found, reference) < 0.02


def test_memory_that_runs_out_halves_the_batch(network, tokens, on_cpu, caplog) -> None:
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 96 * 2**20) / total)
    try:
        with caplog.at_level("WARNING", logger="sccello_tools"):
            found = encode(network, tokens, precision="float32", batch_tokens=1_000_000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert "out of memory on cuda" in caplog.text
    np.testing.assert_allclose(found, on_cpu, atol=2e-4)


def test_batches_fill_the_device() -> None:
    assert engine._BATCH_TOKENS["cuda"] > engine._BATCH_TOKENS["cpu"]


def _all_reduce(rank: int, world: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    torch.distributed.init_process_group("nccl", rank=rank, world_size=world)
    model = torch.nn.parallel.DistributedDataParallel(
        models.load("sccello-small", device=f"cuda:{rank}", keep=False).network, device_ids=[rank]
    )
    loss = sum(p.float().square().sum() for p in model.module.parameters()) * (rank + 1)
    loss.backward()
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_nccl_trains_on_two() -> None:
    torch.multiprocessing.spawn(_all_reduce, args=(2,), nprocs=2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_files_are_embedded_by_two(tmp_path) -> None:
    adata = sccello.datasets.pancreas_tritschler()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    one = sccello.embed_files(tmp_path / "cells.h5ad", tmp_path / "one", cells_per_block=64)
    two = sccello.embed_files(
        tmp_path / "cells.h5ad", tmp_path / "two", cells_per_block=64, devices=2
    )
    np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
