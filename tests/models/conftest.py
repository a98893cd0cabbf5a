from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sccello_tools import settings
from sccello_tools.models.hub import Transfer
from sccello_tools.models.manifest import ModelEntry, ModelFile


@dataclass
class Server:
    """A web server that fails on demand: each request takes the next of `faults`, None is none."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str | None] = field(default_factory=list)
    always: str | None = None
    knows_ranges: bool = True
    etag: str | None = '"version-1"'
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str | None]:
        """Ranges asked for, a request each."""
        return [headers.get("Range") for _, headers in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self):
        state = self.state
        state.requests.append((self.path, dict(self.headers)))
        fault = state.faults.pop(0) if state.faults else state.always
        self.close_connection = True
        kind, _, n = (fault or "").partition(":")
        if kind == "status":
            self.send_response(int(n))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", n)
            self.send_header("Content-Length", "0")
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            return
        if self.path not in state.files:
            self.send_error(404)
            return
        body = state.files[self.path]
        if kind == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        start = self._start(len(body))
        if start is None:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start >= 0 else 200)
        if start >= 0:
            said = start + 1 if kind == "wrong_range" else start
            self.send_header("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        if kind != "no_length":
            self.send_header("Content-Length", str(len(body)))
        if state.etag:
            self.send_header("ETag", state.etag)
        for name, value in state.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if kind in {"truncate", "stall", "no_length"}:
            self.wfile.write(body[: int(n)])
            self.wfile.flush()
            if kind == "stall":
                state.released.wait(10)
            return
        self.wfile.write(body)

    def _start(self, size):
        """First byte of the range; -1 for the whole file, None for a range that is not there."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not self.state.knows_ranges:
            return -1
        if self.headers.get("If-Range", self.state.etag) != self.state.etag:
            return -1
        return int(match[1]) if int(match[1]) < size else None

    def log_message(self, *args):
        """Say nothing."""


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """Clients that go away are what these tests are about."""


@pytest.fixture
def server():
    state = Server()
    handler = type("Handler", (_Handler,), {"state": state})
    with _HTTPServer(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        state.released.set()
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for each test, and nothing of the environment."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(settings, "cache_dir", folder)
    monkeypatch.setattr(settings, "offline", False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return folder


@pytest.fixture
def quick():
    return Transfer(
        connect_timeout=2, stall_timeout=0.4, attempts=3, backoff=0.01, chunk_bytes=1024, lock_timeout=5
    )  # fmt: skip


@pytest.fixture
def body():
    """30,000 bytes that no two places of have in common."""
    return b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(938))[:30_000]


@pytest.fixture
def remote(server, body):
    """Put a file on the server; return the manifest's entry of a model that consists of it."""

    def make(*, verified=True, sized=True, **fields):
        server.files["/weights.bin"] = body
        file = ModelFile(
            "weights.bin",
            hashlib.sha256(body).hexdigest() if verified else "unverified",
            len(body) if sized else None,
            url=f"{server.url}/weights.bin",
        )
        return ModelEntry(**({"name": "remote", "source": "url", "files": (file,)} | fields))

    return make


@pytest.fixture(scope="session")
def tiny_network():
    import torch

    from sccello_tools.nn import EncoderConfig, ScCelloModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = EncoderConfig(hidden_size=8, n_layers=1, n_heads=2, intermediate_size=16)
        return ScCelloModel(config)
