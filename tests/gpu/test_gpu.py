"""On a GPU: attention backends against sdpa, bfloat16, memory that runs out, NCCL, and the functions of `tl` against the CPU.

``SCCELLO_TEST_DEVICE=cpu`` runs the tests that compare devices on a CPU, which checks the tests themselves.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import sccello_tools as sccello
from sccello_tools import engine, models
from sccello_tools.engine import encode
from sccello_tools.nn.attention import available_backends, sdpa_attention

INSULIN_AND_GLUCAGON = ["ENSG00000254647", "ENSG00000115263"]
DEVICE = os.environ.get("SCCELLO_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE != "cpu" and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
cuda_only = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


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
    return models.load("sccello-small", device=DEVICE, keep=False).network


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
    if name not in available_backends(DEVICE, torch.bfloat16):
        pytest.skip(f"{name} does not run here")
    found = encode(network, tokens, precision="bfloat16", attention=name)
    assert away(found, on_cpu) < 0.02
    reference = encode(network, tokens, precision="bfloat16", attention="sdpa")
    assert away(found, reference) < 0.02


@cuda_only
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


# --- functions of the package: the same results as on the CPU


@pytest.fixture(scope="module")
def cells():
    return sccello.datasets.pancreas_tritschler()[::12].copy()  # 49 cells


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_annotation_is_that_of_the_cpu(cells, precision) -> None:
    found, expected = cells.copy(), cells.copy()
    sccello.tl.embed(expected, device="cpu", precision="float32")
    sccello.tl.annotate_novel(expected, device="cpu")
    sccello.tl.embed(found, device=DEVICE, precision=precision)
    sccello.tl.annotate_novel(found, device=DEVICE)
    # cells whose two best types are equally likely may change sides
    same = (found.obs["sccello_cell_type"] == expected.obs["sccello_cell_type"]).mean()
    assert same >= (0.98 if precision == "float32" else 0.9)
    atol = 1e-3 if precision == "float32" else 0.05
    difference = (
        found.obs["sccello_cell_type_confidence"] - expected.obs["sccello_cell_type_confidence"]
    )
    assert difference.abs().median() < atol


def test_a_reference_is_searched_on_the_device(cells) -> None:
    reference, query = cells[::2].copy(), cells[1::2].copy()
    results = []
    for device in ("cpu", DEVICE):
        annotated = sccello.tl.annotate(
            query, reference, label_key="cell_type_ontology_term_id", device=device, copy=True
        )
        results.append(annotated.obs["sccello_cell_type"].astype(str).to_numpy())
    assert (results[0] == results[1]).mean() >= 0.95


@pytest.mark.parametrize("mode", ["mask", "delete", "overexpress"])
def test_perturbation_is_that_of_the_cpu(cells, mode) -> None:
    tables = []
    for device in ("cpu", DEVICE):
        adata = cells[:6].copy()
        sccello.tl.perturb(
            adata, INSULIN_AND_GLUCAGON, mode=mode, n_controls=4, max_length=256, device=device
        )
        tables.append(sccello.get.perturbation_df(adata))
    numeric = tables[0].select_dtypes("number").columns
    np.testing.assert_allclose(tables[1][numeric], tables[0][numeric], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("method", ["perturb", "fast"])
def test_marker_genes_are_those_of_the_cpu(cells, method) -> None:
    scores = []
    for device in ("cpu", DEVICE):
        adata = cells[:6].copy()
        adata.obs["group"] = np.array(["a", "b"] * 3)
        sccello.tl.marker_genes(
            adata, "group", method=method, n_cells_per_group=3, max_length=128, device=device
        )
        scores.append(sccello.get.marker_genes_df(adata, "a").set_index("names")["scores"])
    first, second = scores[0].align(scores[1], join="inner")
    assert len(first) == len(scores[0])
    assert np.corrcoef(first, second)[0, 1] > 0.999


@cuda_only
def test_files_are_embedded_on_a_dask_cluster_with_one_gpu(cells, tmp_path) -> None:
    distributed = pytest.importorskip("distributed")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    options = {"cells_per_block": 16, "precision": "float32"}
    here = sccello.embed_files(tmp_path / "cells.h5ad", tmp_path / "here", **options)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = sccello.embed_files(
            tmp_path / "cells.h5ad", tmp_path / "there", client=client, **options
        )
        held = client.submit(torch.cuda.max_memory_allocated, pure=False).result()
    assert held > 0, "the worker did not use the GPU"
    np.testing.assert_allclose(np.asarray(there), np.asarray(here), atol=1e-5)


@pytest.mark.parametrize("lengths", [(512, 200, 513, 40, 511, 300), tuple(range(30, 90))])
def test_training_with_attention_dropout_makes_few_calls(lengths, monkeypatch) -> None:
    """Without flash-attn, a batch of many lengths takes one call per block of similar lengths."""
    if DEVICE == "cpu":
        pytest.skip("a CPU attends by runs of equal lengths")
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs["dropout_p"])
        return attend(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=DEVICE)
    q, k, v = torch.randn(3, sum(lengths), 8, 16, device=DEVICE, requires_grad=True)
    sdpa_attention(q, k, v, bounds, max(lengths), dropout_p=0.1).square().sum().backward()
    assert set(calls) == {0.1}
    assert len(calls) <= 1 + np.log(max(lengths) / min(lengths)) / np.log(8 / 7)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_files_are_embedded_by_two(cells, tmp_path) -> None:
    """One worker per GPU: each sees the one that CUDA_VISIBLE_DEVICES leaves to it."""
    dask_cuda = pytest.importorskip("dask_cuda")
    distributed = pytest.importorskip("distributed")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    options = {"cells_per_block": 16, "precision": "float32"}
    one = sccello.embed_files(tmp_path / "cells.h5ad", tmp_path / "one", **options)
    with dask_cuda.LocalCUDACluster(n_workers=2) as cluster, distributed.Client(cluster) as client:
        two = sccello.embed_files(
            tmp_path / "cells.h5ad", tmp_path / "two", client=client, **options
        )
    np.testing.assert_allclose(np.asarray(two), np.asarray(one), atol=1e-5)
