"""Jobs on a dask cluster of separate processes: same results, killed workers, errors, a restarted scheduler."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest

import sccello_tools as sccello
from sccello_tools.errors import FilesError, NotCountsError, WeightsError
from sccello_tools.files.run import OnCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

distributed = pytest.importorskip("distributed")
# dask closes its sockets and processes in its own time
pytestmark = pytest.mark.filterwarnings("default")
EXACT = {"precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a cluster of two processes."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=0,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(_one_thread)
        yield client


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def embed(files: Any, out: Path, model: Path, **options: Any) -> Any:
    return sccello.embed_files(
        files, out, model=model, **{"cells_per_block": 4, **EXACT, **options}
    )


def test_workers_give_the_bits_of_one_process(files, tiny_model_folder, tmp_path, client):
    alone = embed(files, tmp_path / "alone", tiny_model_folder)
    cells = embed(files, tmp_path / "out", tiny_model_folder, client=client)
    np.testing.assert_array_equal(cells[:], alone[:])
    names = [sorted(p.name for p in (tmp_path / n / "blocks").iterdir()) for n in ("alone", "out")]
    assert names[0] == names[1]


def test_local_processes_are_started_on_request(files, tiny_model_folder, tmp_path):
    alone = embed(files, tmp_path / "alone", tiny_model_folder)
    cells = embed(files, tmp_path / "out", tiny_model_folder, n_workers=2)
    np.testing.assert_array_equal(cells[:], alone[:])


def test_annotations_are_joined_on_the_workers(tmp_path, client):
    adata = sccello.datasets.pancreas_tritschler()[::20].copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    options = {"cells_per_block": 10, "write_back": True, **EXACT}
    alone = sccello.annotate_files(tmp_path / "a.h5ad", tmp_path / "alone", **options)
    found = sccello.annotate_files(tmp_path / "a.h5ad", tmp_path / "out", client=client, **options)
    assert found.read("a").equals(alone.read("a"))
    assert found.summary.equals(alone.summary)
    # rounding depends on the threads of BLAS
    assert alone.inferred_tissues["a"]
    assert found.inferred_tissues["a"] == pytest.approx(alone.inferred_tissues["a"], abs=1e-6)
    assert (tmp_path / "out" / "files" / "a.h5ad").is_file()


def test_a_model_is_loaded_once_per_worker(files, tiny_model_folder, tmp_path, client):
    embed(files, tmp_path / "out", tiny_model_folder, client=client)
    assert set(client.run(_n_loaded).values()) == {1}


def _n_loaded() -> int:
    from sccello_tools.files.worker import _job

    return _job.cache_info().currsize


def test_tasks_are_small(files, tiny_model_folder, tmp_path, monkeypatch):
    """Tasks carry paths and rows, not matrices or gene matches."""
    import cloudpickle

    from sccello_tools.files import run

    sizes = []
    original = run.guarded

    def measured(function, task):
        sizes.append(len(cloudpickle.dumps((function, task))))
        return original(function, task)

    monkeypatch.setattr(run, "guarded", measured)
    embed(files, tmp_path / "out", tiny_model_folder)
    assert max(sizes) < 3000


def test_errors_of_workers_are_those_of_the_package(adata, tiny_model_folder, tmp_path, client):
    adata.X[25] = adata.X[25] * 0.5
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(NotCountsError, match=r"a\.h5ad: X does not hold raw counts: .* fractions"):
        embed(tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder, client=client)
    with pytest.raises(FilesError, match=r"\d of 8 blocks are finished"):
        sccello.open_embedded(tmp_path / "out")[:]
    with pytest.raises(WeightsError):
        embed(tmp_path / "a.h5ad", tmp_path / "out2", tmp_path / "no model", client=client)
    with pytest.warns(UserWarning, match="1 files failed"):
        cells = embed(
            tmp_path / "a.h5ad", tmp_path / "out", tiny_model_folder, client=client, errors="report"
        )
    assert len(cells) == 0


def test_a_killed_worker_loses_nothing(adata, tiny_model_folder, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    out = tmp_path / "out"
    alone = embed(tmp_path / "a.h5ad", tmp_path / "alone", tiny_model_folder, cells_per_block=1)
    killed = []

    def kill() -> None:
        """Kill a worker when some blocks are finished."""
        until = time.monotonic() + 300
        while len(list(out.glob("blocks/*.parquet"))) < 3 and time.monotonic() < until:
            time.sleep(0.005)
        pid = next(iter(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        client.run(_slow_writes)
        thread = Thread(target=kill)
        thread.start()
        cells = embed(tmp_path / "a.h5ad", out, tiny_model_folder, client=client, cells_per_block=1)
        thread.join()
        pids = set(client.run(os.getpid).values())
    assert killed
    assert killed[0] not in pids
    np.testing.assert_array_equal(cells[:], alone[:])


def _slow_writes() -> None:
    """Make a block take long enough that a worker can be killed in the middle of the job."""
    from sccello_tools.files import worker

    original = worker.write_rows

    def write(*args: Any, **options: Any) -> None:
        original(*args, **options)
        time.sleep(0.1)

    worker.write_rows = write


def _exit(task: int) -> int:
    if task == 3:
        os._exit(1)
    return task


def test_a_task_that_kills_its_workers_fails_alone(client):
    """As a block does that does not fit into memory."""
    found = dict(OnCluster(client).map(_exit, range(6)))
    assert {task: result for task, result in found.items() if task != 3} == {i: i for i in range(6) if i != 3}  # fmt: skip
    assert isinstance(found[3].error, FilesError)
    assert "cells_per_block" in str(found[3].error)


SCHEDULER = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", "127.0.0.1"]  # fmt: skip
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--nthreads", "1", "--nworkers", "1", "--no-nanny", "--death-timeout", "60"]  # fmt: skip
WAIT = """
import sys, time
import sccello_tools as sccello
from distributed import Client
from sccello_tools.errors import FilesError
def slow():
    from sccello_tools.files import worker
    original = worker.write_rows
    def write(*args, **options):
        original(*args, **options)
        time.sleep(0.2)
    worker.write_rows = write
if __name__ == "__main__":
    client = Client(sys.argv[4])
    client.run(slow)
    try:
        sccello.embed_files(sys.argv[1], sys.argv[2], model=sys.argv[3], cells_per_block=1, client=client, device="cpu", precision="float32")
    except FilesError as error:
        print("FilesError", error)
"""


@pytest.mark.slow
def test_a_restarted_scheduler(adata, tiny_model_folder, tmp_path):
    """The call survives, or ends with one clear error; the next one keeps the finished blocks."""
    adata.write_h5ad(tmp_path / "a.h5ad")
    alone = embed(tmp_path / "a.h5ad", tmp_path / "alone", tiny_model_folder, cells_per_block=1)
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    (tmp_path / "call.py").write_text(WAIT)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
    scheduler = subprocess.Popen([*SCHEDULER, "--port", port], **quiet)
    worker = subprocess.Popen([*WORKER, address], **quiet, cwd=tmp_path)
    call = subprocess.Popen(
        [sys.executable, tmp_path / "call.py", tmp_path / "a.h5ad", out, tiny_model_folder, address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    try:
        until = time.monotonic() + 300
        while len(list(out.glob("blocks/*.parquet"))) < 3 and time.monotonic() < until:
            assert call.poll() is None, call.communicate()
            time.sleep(0.01)
        scheduler.kill()
        scheduler.wait()
        scheduler = subprocess.Popen([*SCHEDULER, "--port", port], **quiet)
        said, errors = call.communicate(timeout=240)
        assert call.returncode == 0, errors
        finished = list(out.glob("blocks/*.parquet"))
        assert len(finished) >= 3
        if len(finished) < 30:
            assert "scheduler was lost" in said
            assert "finished blocks are kept" in said
    finally:
        for process in (call, worker, scheduler):
            process.kill()
            process.wait()
    cells = embed(tmp_path / "a.h5ad", out, tiny_model_folder, cells_per_block=1)
    np.testing.assert_array_equal(cells[:], alone[:])
