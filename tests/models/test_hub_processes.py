"""Two processes at once, and one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sccello_tools.models.hub import fetch, model_folder

FETCH = """
import sys
from pathlib import Path
from sccello_tools import settings
from sccello_tools.models.hub import Transfer, fetch
from sccello_tools.models.manifest import ModelEntry, ModelFile
cache, url, sha256, stall = sys.argv[1:]
settings.cache_dir = Path(cache)
file = ModelFile("weights.bin", sha256, 30_000, url=url)
entry = ModelEntry("remote", "url", files=(file,))
print("ready", flush=True)
fetch(file, entry, transfer=Transfer(stall_timeout=float(stall), backoff=0.01, chunk_bytes=1024))
"""


def start(cache, entry, stall):
    file = entry.files[0]
    arguments = [str(cache), file.url, file.sha256, str(stall)]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FETCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_PROXY": "*"},
    )
    process.stdout.readline()
    return process


def wait_for(condition, process, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the process ended or hangs: {process.communicate(timeout=5)[1]}")
        time.sleep(0.005)


def test_two_processes_at_once_download_once(server, remote, body, cache):
    entry = remote()
    server.always = "stall:0"  # the first to come waits, so that the second meets its lock
    processes = [start(cache, entry, 30) for _ in range(2)]
    wait_for(lambda: server.requests, processes[0])
    time.sleep(0.3)
    server.always = None
    server.released.set()
    errors = [process.communicate(timeout=30)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert (model_folder(entry) / "weights.bin").read_bytes() == body
    # The stalled answer broke off without a byte, the second attempt of the same process had all.
    assert len(server.requests) == 2


def test_a_killed_process_leaves_a_part_that_the_next_call_goes_on_from(
    server, remote, body, cache, quick
):
    entry = remote()
    server.always = "stall:10240"
    process = start(cache, entry, 30)
    part = model_folder(entry) / "weights.bin.part"
    wait_for(lambda: part.exists() and part.stat().st_size == 10_240, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert not (model_folder(entry) / "weights.bin").exists()
    server.always = None
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None, "bytes=10240-"]
