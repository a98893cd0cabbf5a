"""Two processes of gloo DDP give the gradients of one process with twice the batch, and train as one."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from sccello_tools.training.pretrain.parallel import gather_rows, n_processes, sum_over_processes

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def worker():
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Output of two processes."""
    folder = tmp_path_factory.mktemp("parallel")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(folder)],
            env={**os.environ, **shared, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=540)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return folder


def test_two_processes_give_the_gradients_of_twice_the_batch(worker, folder):
    module = worker.make_module()
    losses = module(worker.make_batch())
    losses.sum().backward()
    expected = worker.gradients(module)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    # the processes' shares differ, as their cells do; their mean is the loss of all cells
    assert not torch.allclose(found[0]["losses"], found[1]["losses"])
    mean = (found[0]["losses"] + found[1]["losses"]) / 2
    torch.testing.assert_close(mean, losses.detach(), rtol=1e-5, atol=1e-6)
    for rank in (0, 1):
        assert found[rank]["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            largest = max(1.0, float(gradient.abs().max()))
            off = float((found[rank]["gradients"][name] - gradient).abs().max())
            assert off < 1e-5 * largest, name  # float32, added up in another order
    assert expected["network.cell_cls.dense.weight"].abs().max() > 1e-3


def test_the_means_of_halves_are_not_the_mean(worker):
    """What the test above guards against: with uneven halves, plain means per process would be off."""
    module = worker.make_module()
    with torch.no_grad():
        whole = module(worker.make_batch())
        halves = [module(worker.make_batch(part)) for part in (slice(0, 3), slice(3, 8))]
    assert not torch.allclose((halves[0] + halves[1]) / 2, whole, rtol=1e-3)


def test_both_processes_end_with_the_same_weights_and_curve(folder):
    one, two = (torch.load(folder / f"whole{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    curves = [pd.read_csv(folder / f"whole{rank}.csv") for rank in (0, 1)]
    # cells and tokens, losses and scores are those of both
    pd.testing.assert_frame_equal(curves[0], curves[1])
    assert curves[0]["tokens"].between(61, 120).all()  # two batches of at most 60
    assert curves[0]["validation_nmi"].notna().tolist() == [False, False, True] * 2
    assert [(folder / f"main{rank}").read_text() for rank in (0, 1)] == ["True", "False"]


def test_two_processes_resume_exactly(folder):
    for rank in (0, 1):
        whole, resumed = (pd.read_csv(folder / f"{n}{rank}.csv") for n in ("whole", "resumed"))
        pd.testing.assert_frame_equal(whole, resumed, rtol=1e-4)


def test_both_processes_stop_at_a_non_finite_loss(folder):
    for rank in (0, 1):
        assert (folder / f"error{rank}").read_text().startswith("The loss is ")


def test_single_process_gathers_nothing():
    rows = torch.randn(3, 2, requires_grad=True)
    assert n_processes() == 1
    assert gather_rows(rows).rows is rows
    assert gather_rows(rows).first == 0
    assert torch.equal(sum_over_processes(rows), rows)
