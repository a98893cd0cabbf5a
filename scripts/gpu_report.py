"""Throughput and memory on this machine's GPU: embedding, pretraining and the functions of `tl`, against what the hardware could do.

    python scripts/gpu_report.py [--cells 4000] [--steps 30] [--json benchmarks/results/gpu.json]
    python scripts/gpu_report.py --functions-on cpu --cells 12     # only the functions of `tl`, on a CPU: checks this script

Embeds real cells (the shipped pancreas study, drawn with replacement, up to 2,048 tokens) with the bundled model and with one of the
published size, by every attention backend that runs here; takes training steps of the published size; times annotation, marker genes,
perturbation and a file on a dask cluster with one worker. Floating-point operations are counted from the model's shape; the limit is
measured, as a large matrix product in bfloat16.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import lightning as L
import numpy as np
import torch

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.nn.attention import available_backends
from sccello_tools.nn.model import EncoderLayer
from sccello_tools.ontology import CellOntology
from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, fit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import anndata as ad

    from sccello_tools.tokens import RaggedTokens


def limit_tflops(size: int = 8192, repeats: int = 10) -> float:
    """What a matrix product in bfloat16 reaches."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    a @ a
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        a @ a
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - begin) / 1e12


def copy_bytes(n: int = 2**28, repeats: int = 10) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    a = torch.randn(n, device="cuda")
    b = torch.empty_like(a)
    b.copy_(a)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        b.copy_(a)
    torch.cuda.synchronize()
    return 2 * 4 * n * repeats / (time.perf_counter() - begin)


def flops(config: EncoderConfig, lengths: np.ndarray) -> float:
    """Of all layers but the last, which computes one row a cell."""
    d, h, n_layers = config.hidden_size, config.intermediate_size, config.n_layers - 1
    dense = 2 * (4 * d * d + 2 * d * h) * lengths.sum()
    attention = 4 * d * (lengths.astype(np.float64) ** 2).sum()
    return float(n_layers * (dense + attention))


def real_cells(n_cells: int, max_length: int) -> tuple[RaggedTokens, np.ndarray]:
    """Tokens and labels of the shipped cells, drawn with replacement."""
    adata = sccello.datasets.pancreas_tritschler()
    tokens = sccello.pp.tokenize(adata, max_length=max_length)
    rows = np.random.default_rng(0).integers(0, len(tokens), n_cells)
    return tokens.take(rows), adata.obs["cell_type_ontology_term_id"].astype(str).to_numpy()[rows]


def compiled_layers() -> contextlib.AbstractContextManager[object]:
    """Compile what follows attention in a layer, for any number of tokens: one pass over the hidden states instead of several."""
    compiled = torch.compile(EncoderLayer.after_attention, dynamic=True)
    return mock.patch.object(EncoderLayer, "after_attention", compiled)


def embedding(n_cells: int, limit: float) -> list[dict[str, Any]]:
    """Embed by every backend and precision."""
    torch.manual_seed(0)
    networks = {
        "sccello-small": sccello.models.load("sccello-small", device="cpu", keep=False).network,
        "published size": ScCelloModel(EncoderConfig()),
    }
    rows = []
    for name, network in networks.items():
        network.to("cuda").eval()
        tokens, _ = real_cells(n_cells, network.config.max_positions)
        work = flops(network.config, tokens.lengths) / 1e12
        print(f"\n{name}: {n_cells:,} cells, {tokens.lengths.mean():.0f} tokens on average")
        print(
            f"{'backend':>22} {'precision':>10} {'cells/s':>9} {'tokens/s':>12} {'TFLOP/s':>8} {'of limit':>8} {'peak GB':>8}"
        )
        for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
            backends = available_backends("cuda", dtype)
            for backend, compiled in [(backends[0], True), *((b, False) for b in backends)]:
                options = {"precision": precision, "attention": backend}
                layers = compiled_layers() if compiled else contextlib.nullcontext()
                with layers:
                    encode(network, tokens.take(range(256)), **options)
                    torch.cuda.reset_peak_memory_stats()
                    torch.cuda.synchronize()
                    begin = time.perf_counter()
                    encode(network, tokens, **options)
                    spent = time.perf_counter() - begin
                row = {
                    "model": name,
                    "backend": backend + ", compiled" * compiled,
                    "precision": precision,
                    "cells": n_cells,
                    "mean_tokens": float(tokens.lengths.mean()),
                    "cells_per_s": n_cells / spent,
                    "tokens_per_s": int(tokens.lengths.sum()) / spent,
                    "tflops": work / spent,
                    "of_limit": work / spent / limit,
                    "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
                }
                rows.append(row)
                print(
                    f"{row['backend']:>22} {precision:>10} {row['cells_per_s']:9,.0f} {row['tokens_per_s']:12,.0f} "
                    f"{row['tflops']:8.1f} {row['of_limit']:8.1%} {row['peak_gb']:8.2f}",
                    flush=True,
                )
        network.to("cpu")
    return rows


def functions(device: str, n_cells: int, rows: list[dict[str, Any]]) -> None:
    """Time functions of `tl` on real cells, embedding included, after a run on a few of them."""
    adata = sccello.datasets.pancreas_tritschler()
    drawn = np.random.default_rng(0).integers(0, adata.n_obs, n_cells)
    cells = adata[drawn].copy()
    cells.obs_names_make_unique()
    n_screened = min(n_cells, 50)  # marker genes are screened in so many cells per group
    genes = ["ENSG00000254647", "ENSG00000115263"]  # INS, GCG
    perturb = {"device": device, "n_cells_per_group": n_screened}
    work: dict[str, Callable[[ad.AnnData], object]] = {
        "annotate_novel, float32": lambda x: annotate(x, device, "float32"),
        "annotate_novel, bfloat16": lambda x: annotate(x, device, "bfloat16"),
        "annotate, half of the cells as reference": lambda x: sccello.tl.annotate(
            x[::2].copy(), x[1::2].copy(), label_key="cell_type_ontology_term_id", device=device
        ),
        "perturb, 2 genes, 100 controls": lambda x: sccello.tl.perturb(x, genes, **perturb),
        "marker_genes, perturb": lambda x: sccello.tl.marker_genes(x, **perturb),
        "marker_genes, fast": lambda x: sccello.tl.marker_genes(x, method="fast", **perturb),
        "embed_files, dask, one worker": lambda x: on_dask(x, device),
    }
    print(f"\nfunctions on {device}, {n_cells:,} cells; screens and perturbations of {n_screened}")
    print(f"{'function':>42} {'s':>9} {'cells/s':>9}")
    for name, function in work.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # duplicates of cells, cells outside the calibration
            function(cells[:8].copy())
            begin = time.perf_counter()
            function(cells.copy())
            spent = time.perf_counter() - begin
        n = n_screened if name.startswith(("perturb", "marker")) else n_cells
        rows.append({"function": name, "device": device, "cells": n, "seconds": spent})
        print(f"{name:>42} {spent:9.2f} {n / spent:9,.1f}", flush=True)


def annotate(adata: ad.AnnData, device: str, precision: str) -> None:
    """Embed and annotate."""
    sccello.tl.embed(adata, device=device, precision=precision)
    sccello.tl.annotate_novel(adata, device=device)


def on_dask(adata: ad.AnnData, device: str) -> None:
    """Embed a file on a cluster of one process, its start included."""
    from distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        adata.write_h5ad(f"{folder}/cells.h5ad")
        sccello.embed_files(f"{folder}/cells.h5ad", f"{folder}/out", client=client, device=device)


class _Clock(L.Callback):
    """Notes the time after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:  # noqa: ARG002 - what Lightning hands to all
        torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def training(n_steps: int, json_rows: list[dict[str, Any]]) -> None:
    """Take training steps of several forms."""
    tokens, labels = real_cells(2_000, 2048)
    source = LabelledTokens(tokens, labels)
    ontology = CellOntology.load()
    published = PretrainConfig.published().to_dict() | {"max_steps": n_steps, "warmup_steps": 10}
    half = {"precision": "bfloat16"}
    kept = {"checkpoint_activations": False}
    varlen = {"attention_dropout": 0.0}
    forms = {
        "as published, float32": {},
        "as published, bfloat16": half,
        "bfloat16, activations kept": half | kept,
        "bfloat16, kept, no attention dropout": half | kept | varlen,
        "the same, 48 cells": half | kept | varlen | {"batch_cells": 48},
        "the same, 48 cells, 4,096 negatives": half
        | kept
        | varlen
        | {"batch_cells": 48, "n_negatives": 4096},
        "the same, one pass": half
        | kept
        | varlen
        | {"batch_cells": 48, "n_negatives": 4096, "second_pass": False},
        "float32, no attention dropout": varlen,
    }
    print(f"\ntraining, published size, {tokens.lengths.mean():.0f} tokens a cell on average")
    print(f"{'form':>40} {'cells/s':>9} {'ms/step':>9} {'peak GB':>8} {'loss':>9}")
    for name, changes in forms.items():
        config = PretrainConfig(**{**published, **changes})
        clock = _Clock()
        torch.cuda.reset_peak_memory_stats()
        result = fit(
            [source],
            ontology,
            config,
            trainer_kwargs={"accelerator": "gpu", "devices": 1, "callbacks": [clock]},
        )
        step = float(np.median(np.diff(clock.times[5:])))
        losses = result.curve["loss"].to_numpy()
        row = {
            "form": name,
            "cells_per_s": config.batch_cells / step,
            "ms_per_step": 1e3 * step,
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            "losses": losses.tolist(),
        }
        json_rows.append(row)
        print(
            f"{name:>40} {row['cells_per_s']:9,.0f} {row['ms_per_step']:9.1f} {row['peak_gb']:8.2f} {losses[-1]:9.4f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--functions-on", metavar="DEVICE", help="only time functions of tl, on this device"
    )
    args = parser.parse_args()
    if args.functions_on:
        functions(args.functions_on, args.cells, [])
        return
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing to report.")
        return
    limit, bandwidth = limit_tflops(), copy_bytes()
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "torch": torch.__version__,
        "limit_tflops": limit,
        "copy_gb_per_s": bandwidth / 1e9,
        "embedding": [],
        "training": [],
        "functions": [],
    }
    print(
        f"{report['device']}, torch {torch.__version__}; matrix product in bfloat16: {limit:.0f} TFLOP/s; "
        f"copy: {bandwidth / 1e12:.1f} TB/s"
    )
    try:
        report["embedding"] = embedding(args.cells, limit)
        training(args.steps, report["training"])
        functions("cuda", args.cells, report["functions"])
    finally:
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
