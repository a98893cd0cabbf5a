"""Two processes that download the same model, and one that is killed, against a server in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FETCH = """
import sys
from sccello_tools.models.hub import fetch_model
from sccello_tools.models.registry import ModelEntry, ModelFile
files = tuple(ModelFile(path=name, sha256="unverified") for name in sys.argv[2:])
entry = ModelEntry(name="mine", source="huggingface", repo="me/mine", revision=sys.argv[1], files=files)
print("ready", flush=True)
sys.stdin.readline()
print(fetch_model(entry))
"""


@pytest.fixture
def environment(tmp_path):
    return {
        **os.environ, "HF_HOME": str(tmp_path / "hf"), "SCCELLO_CACHE": str(tmp_path / "sccello"), "NO_PROXY": "*",
        "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "",
    }  # fmt: skip


def start(environment, commit, files):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FETCH, commit, *sorted(files)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def assert_complete(printed, files):
    folder = Path(printed.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.fixture
def server_process(tmp_path, tiny_files):
    folder = tmp_path / "served" / "me" / "mine"
    folder.mkdir(parents=True)
    for name, content in tiny_files.items():
        (folder / name).write_bytes(content)
    script = Path(__file__).parent / "hub_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "served")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process.stdout.readline().split()
    process.communicate(timeout=300)


def test_two_processes_download_at_the_same_time(server_process, tiny_files, environment):
    environment["HF_ENDPOINT"], commit = server_process
    processes = [start(environment, commit, tiny_files) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert_complete(results[0][0], tiny_files)
    assert results[0][0] == results[1][0]


def test_a_killed_process_leaves_no_incomplete_model(hub, tiny_files, environment):
    commit = hub.add("me/mine", tiny_files)
    environment["HF_ENDPOINT"] = hub.url
    hub.faults = [None] * (len(tiny_files) - 1) + ["stall:1000"] * 9
    process = start(environment, commit, tiny_files)
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 300
    while not any("/lfs/" in path for _, path, _ in hub.requests):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    hub.faults = []
    second = start(environment, commit, tiny_files)
    out, err = second.communicate("go\n", timeout=300)
    assert second.returncode == 0, err
    assert_complete(out, tiny_files)


def test_downloads_use_a_proxy(hub, tiny_files, environment):
    """The host name does not exist: only the proxy, which the stand-in plays, can answer."""
    commit = hub.add("me/mine", tiny_files)
    del environment["NO_PROXY"]
    environment |= {
        "HF_ENDPOINT": "http://hub.invalid",
        "HTTP_PROXY": hub.url,
        "http_proxy": hub.url,
    }
    process = start(environment, commit, tiny_files)
    out, err = process.communicate("go\n", timeout=300)
    assert process.returncode == 0, err
    assert_complete(out, tiny_files)
    assert {headers["host"] for _, path, headers in hub.requests if "/resolve/" in path} == {
        "hub.invalid"
    }
