"""A local server with the part of the Hugging Face Hub API that huggingface_hub uses to list, download and upload models.

Also a process of its own: ``python hub_server.py FOLDER`` serves FOLDER/owner/name and prints its URL and the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")  # stored by LFS


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Repo:
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    """Hash and files, oldest first; the branch "main" is at the last."""
    private: bool = False
    gated: bool = False

    def commit(self, files, commit_id=None):
        content = dict(self.commits[-1][1]) if self.commits else {}
        content |= files
        digest = hashlib.sha1(repr((len(self.commits), sorted(content.items()))).encode())
        self.commits.append((commit_id or digest.hexdigest(), content))
        return self.commits[-1][0]

    def find(self, revision):
        if revision == "main":
            return self.commits[-1] if self.commits else ("0" * 40, {})
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass
class Hub:
    """The server's state; each download takes the next of `faults` (None for none), else `always`."""

    url: str = ""
    cdn: str = ""
    """The same server by another host name, where large files are."""
    repos: dict[str, Repo] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Files at plain URLs, by path."""
    token: str = "hf_secret"
    faults: list[str | None] = field(default_factory=list)
    always: str | None = None
    fail_all: int | None = None
    """Status that every request gets."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def downloads(self, name=""):
        """Ranges asked for, a GET of a file each."""
        return [
            headers.get("range")
            for method, path, headers in self.requests
            if method == "GET" and "/api/" not in path and path.endswith(name)
        ]

    def add(self, repo, files, **kwargs):
        commit_id = kwargs.pop("commit_id", None)
        found = self.repos.setdefault(repo, Repo(**kwargs))
        return found.commit(files, commit_id)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        """Print nothing."""

    def answer(self, status, body=b"", **headers):
        if not isinstance(body, bytes):
            body, headers = (
                json.dumps(body).encode(),
                {"Content-Type": "application/json", **headers},
            )
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code):
        self.answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def handle_request(self):
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size) if size else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self.read_chunks()
        if hub.fail_all:
            self.answer(hub.fail_all, b"")
        elif path in hub.files:
            self.download(hub.files[path], {"ETag": '"version-1"'})
        elif match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self.large_file(match[1])
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(self.body))
        elif match := re.fullmatch(
            r"/api/(?:models|datasets)/([^/]+/[^/]+)/(revision|commits|preupload|commit)/(.+)", path
        ):
            self.api(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.lfs_batch(json.loads(self.body))
        elif match := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*match.groups())
        else:
            self.answer(404, b"")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def read_chunks(self):
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def authorised(self):
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def repository(self, name):
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.authorised()):
            self.error(404 if self.authorised() else 401, "RepoNotFound")
        elif repo.gated:
            self.error(403, "GatedRepo")
        else:
            return repo
        return None

    def api(self, name, action, revision):
        if (repo := self.repository(name)) is None:
            return
        if action in {"preupload", "commit"}:
            if not self.authorised():
                self.answer(403, {"error": "forbidden"})
            elif action == "preupload":
                files = json.loads(self.body)["files"]
                modes = [
                    {"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"}
                    for f in files
                ]  # fmt: skip
                self.answer(200, {"files": modes})
            else:
                self.commit(name, repo)
            return
        if action == "commits":
            dates = {"authors": [], "date": "2025-01-01T00:00:00.000Z", "title": "", "message": ""}
            self.answer(200, [{"id": commit, **dates} for commit, _ in reversed(repo.commits)])
            return
        if (found := repo.find(revision)) is None:
            self.error(404, "RevisionNotFound")
            return
        siblings = []
        for path, content in found[1].items():
            entry = {"rfilename": path, "size": len(content), "blobId": git_hash(content)}
            if path.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        info = {
            "id": name,
            "modelId": name,
            "sha": found[0],
            "siblings": siblings,
            "private": repo.private,
        }
        self.answer(200, {**info, "tags": [], "downloads": 0, "likes": 0})

    def create(self, payload):
        name = f"{payload['organization']}/{payload['name']}"
        if not self.authorised():
            self.answer(401, {"error": "Invalid username or password."})
            return
        if name in self.hub.repos:
            self.answer(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
            return
        private = payload.get("private") or payload.get("visibility") == "private"
        self.hub.repos[name] = Repo(private=bool(private))
        self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def lfs_batch(self, payload):
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}", "header": {}}}}
            for o in payload["objects"]
        ]  # fmt: skip
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, name, repo):
        files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        commit = repo.commit(files)
        self.answer(
            200,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
            },
        )

    def large_file(self, digest):
        if self.command == "PUT":
            self.hub.uploads[digest] = self.body
            self.answer(200 if hashlib.sha256(self.body).hexdigest() == digest else 400)
            return
        for repo in self.hub.repos.values():
            for _, files in repo.commits:
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == digest:
                        self.download(content, {"ETag": f'"{digest}"'})
                        return
        self.answer(404)

    def resolve(self, name, revision, path):
        if (repo := self.repository(name)) is None:
            return
        if (found := repo.find(revision)) is None:
            self.error(404, "RevisionNotFound")
        elif (content := found[1].get(path)) is None:
            self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=found[0])
        elif path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            self.answer(
                302, b"", Location=f"{self.hub.cdn}/lfs/{digest}", X_Repo_Commit=found[0],
                X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(content)),
            )  # fmt: skip
        else:
            self.download(content, {"ETag": f'"{git_hash(content)}"', "X-Repo-Commit": found[0]})

    def download(self, body, headers):
        hub = self.hub
        if self.command == "HEAD":
            self.answer(200, b"", **{"Content-Length": str(len(body))}, **headers)
            return
        fault = hub.faults.pop(0) if hub.faults else hub.always
        kind, _, n = (fault or "").partition(":")
        if kind == "status":
            self.answer(int(n))
            return
        if kind == "redirect":
            self.answer(302, b"", Location=n)
            return
        if kind == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if kind in {"truncate", "stall"}:
            self.wfile.write(body[start:][: int(n)])
            self.wfile.flush()
            if kind == "stall":
                hub.released.wait(10)
            self.close_connection = True
            return
        self.wfile.write(body[start:])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """Ignore clients that close the connection."""


@contextmanager
def serve():
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        hub.cdn = f"http://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


def main(root):
    with serve() as hub:
        (folder,) = Path(root).glob("*/*")
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        commit = hub.add(f"{folder.parent.name}/{folder.name}", files)
        print(hub.url, commit, flush=True)  # noqa: T201
        sys.stdin.read()  # until the parent closes it


if __name__ == "__main__":
    main(sys.argv[1])
