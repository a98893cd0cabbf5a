"""Downloads from a stand-in for the Hugging Face Hub and from URLs, and verification of files."""

from __future__ import annotations

import hashlib
import logging
import os

import pytest
from huggingface_hub import constants

from sccello_tools import settings
from sccello_tools.errors import (
    DownloadError,
    HashMismatchError,
    ModelNotFoundError,
    WeightsError,
)
from sccello_tools.models.hub import (
    fetch_model,
    hub_entry,
    is_available,
    model_folder,
    parse_hub_name,
)
from sccello_tools.models.registry import ModelEntry, ModelFile

BODY = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(938))[:30_000]
DIGEST = hashlib.sha256(BODY).hexdigest()
REPO = "somebody/some-model"


@pytest.fixture
def remote(hub):
    """A model of one large file on the hub, whose hash the manifest states or not."""

    def make(*, verified=True, **kwargs):
        commit = hub.add(REPO, {"weights.bin": BODY}, **kwargs)
        file = ModelFile(path="weights.bin", sha256=DIGEST if verified else "unverified")
        return ModelEntry(
            name="theirs", source="huggingface", repo=REPO, revision=commit, files=(file,)
        )

    return make


@pytest.fixture
def plain(hub):
    """A model of one file at a plain URL."""

    def make(*, verified=True):
        hub.files["/weights.bin"] = BODY
        file = ModelFile(
            path="weights.bin",
            sha256=DIGEST if verified else "unverified",
            url=f"{hub.url}/weights.bin",
        )
        return ModelEntry(name="plain", source="url", files=(file,))

    return make


def read(entry):
    return (fetch_model(entry) / "weights.bin").read_bytes()


class TestHub:
    def test_a_second_call_makes_no_request(self, hub, remote):
        entry = remote()
        assert not is_available(entry)
        assert read(entry) == BODY
        assert is_available(entry)
        n_requests = len(hub.requests)
        assert read(entry) == BODY
        assert len(hub.requests) == n_requests

    @pytest.mark.parametrize("fault", ["truncate:10240", "stall:10240"])
    def test_an_interrupted_download_is_resumed(self, hub, remote, fault, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 3)
        hub.faults = [fault]
        entry = remote()
        try:
            assert read(entry) == BODY
        except DownloadError:  # older versions of huggingface_hub resume in the next call
            assert read(entry) == BODY
        assert hub.downloads() == [None, "bytes=10240-"]

    def test_a_server_that_keeps_stalling_is_an_error(self, hub, remote, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        entry = remote()
        hub.always = "stall:0"
        with pytest.raises(DownloadError, match=r"weights\.bin.*HTTPS_PROXY.*HF_ENDPOINT"):
            fetch_model(entry)
        assert not is_available(entry)
        hub.always = None
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
        assert read(entry) == BODY

    def test_a_damaged_download_is_repeated_and_then_refused(self, hub, remote, caplog):
        entry = remote()
        hub.faults = ["corrupt"]
        assert read(entry) == BODY
        assert "downloading it again" in caplog.text

    def test_a_file_of_another_hash_is_refused(self, hub, remote):
        entry = remote()
        hub.always = "corrupt"
        with pytest.raises(
            HashMismatchError, match=rf"sha256 \w{{64}}, expected {DIGEST}.*HF_ENDPOINT"
        ):
            fetch_model(entry)

    def test_the_hash_that_the_hub_states_is_checked_if_the_manifest_has_none(self, hub, remote):
        entry = remote(verified=False)
        hub.always = "corrupt"
        with pytest.raises(HashMismatchError, match="hash that the hub states"):
            fetch_model(entry)

    def test_a_small_file_is_compared_with_its_git_hash(self, hub, remote):
        commit = hub.add(REPO, {"config.json": b'{"a": 1}'})
        file = ModelFile(path="config.json", sha256="unverified")
        entry = ModelEntry(
            name="x", source="huggingface", repo=REPO, revision=commit, files=(file,)
        )
        folder = fetch_model(entry)
        (folder / "config.json").resolve().write_bytes(b'{"a": 2}')
        assert (fetch_model(entry) / "config.json").read_bytes() == b'{"a": 1}'
        (folder / "config.json").resolve().write_bytes(b'{"a": 2}')
        with pytest.raises(HashMismatchError, match=r"config\.json"):
            fetch_model(entry, offline=True)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_temporary_error_is_retried(self, hub, remote, status):
        entry = remote()
        if status == 429:
            hub.faults = [f"status:{status}"] * 2
            assert read(entry) == BODY
        else:
            hub.fail_all = status
            with pytest.raises(DownloadError, match=r"cannot be downloaded|status"):
                fetch_model(entry)
            assert len(hub.requests) > 1

    def test_too_many_requests(self, hub, remote):
        entry = remote()
        hub.always = "status:429"
        with pytest.raises(DownloadError, match=r"429.*HF_TOKEN"):
            fetch_model(entry)

    def test_a_private_repository_needs_a_token(self, hub, remote, monkeypatch):
        entry = remote(private=True)
        with pytest.raises(ModelNotFoundError, match=rf"{REPO}.*private.*HF_TOKEN"):
            fetch_model(entry)
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(ModelNotFoundError, match="HF_TOKEN"):
            fetch_model(entry)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        assert read(entry) == BODY
        sent = [h.get("authorization") for _, path, h in hub.requests if path.startswith("/lfs/")]
        assert sent == [None]  # another host does not get the token

    def test_a_gated_repository(self, remote):
        with pytest.raises(DownloadError, match=r"restricted.*HF_TOKEN"):
            fetch_model(remote(gated=True))

    def test_a_missing_file_and_a_missing_commit(self, hub, remote):
        entry = remote()
        missing = entry.model_copy(update={"files": (ModelFile(path="no.bin", sha256=DIGEST),)})
        with pytest.raises(DownloadError, match=r"no\.bin.*does not exist"):
            fetch_model(missing)
        with pytest.raises(ModelNotFoundError, match="no revision"):
            fetch_model(entry.model_copy(update={"revision": "f" * 40}))

    def test_no_network(self, remote, monkeypatch):
        entry = remote()
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(DownloadError, match=r"HTTPS_PROXY.*HF_ENDPOINT"):
            fetch_model(entry)

    @pytest.mark.parametrize("switch", ["settings", "HF_HUB_OFFLINE", "argument"])
    def test_offline_makes_no_request_and_uses_the_cache(self, hub, remote, monkeypatch, switch):
        entry = remote()
        offline = {"offline": True} if switch == "argument" else {}
        if switch == "settings":
            monkeypatch.setattr(settings, "offline", True)
        elif switch == "HF_HUB_OFFLINE":
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(DownloadError, match=r"weights\.bin.*offline mode"):
            fetch_model(entry, **offline)
        assert hub.requests == []
        fetch_model(entry, offline=False)
        n_requests = len(hub.requests)
        assert (fetch_model(entry, **offline) / "weights.bin").read_bytes() == BODY
        assert len(hub.requests) == n_requests

    def test_an_abbreviated_commit_is_resolved(self, hub, remote):
        full = "e59304e" + "0" * 33
        entry = remote(commit_id=full)
        hub.add(REPO, {"weights.bin": b"newer"})
        short = entry.model_copy(update={"revision": "e59304e"})
        assert read(short) == BODY
        assert model_folder(short).name == full
        n_requests = len(hub.requests)
        fetch_model(short)
        assert len(hub.requests) == n_requests
        with pytest.raises(DownloadError, match=r"0 commits that start with abcdef1"):
            fetch_model(entry.model_copy(update={"revision": "abcdef1"}))

    def test_a_cache_without_links(self, hub, remote, monkeypatch):
        """As on Windows without developer mode."""
        from huggingface_hub import file_download

        monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
        entry = remote()
        assert read(entry) == BODY
        assert not (model_folder(entry) / "weights.bin").is_symlink()
        (model_folder(entry) / "weights.bin").write_bytes(b"damaged")
        assert read(entry) == BODY

    def test_a_full_or_read_only_cache(self, remote, monkeypatch, tmp_path):
        from huggingface_hub import constants

        (tmp_path / "occupied").write_text("a file where the cache should be")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "occupied"))
        with pytest.raises(DownloadError, match="HF_HOME"):
            fetch_model(remote())

    def test_progress_bars_follow_the_settings(self, remote, monkeypatch, capsys):
        monkeypatch.setattr(settings, "progress", False)
        fetch_model(remote())
        assert capsys.readouterr().err == ""


class TestPins:
    def test_the_first_hash_is_pinned_and_reported(self, remote, cache, caplog):
        entry = remote(verified=False)
        fetch_model(entry)
        assert DIGEST in caplog.text
        (pin,) = (cache / "pins").rglob("*.sha256")
        assert pin.read_text() == f"{DIGEST}  weights.bin\n"
        caplog.clear()
        fetch_model(entry)
        assert caplog.text == ""

    @pytest.mark.parametrize("content", [f"{'0' * 64}  weights.bin\n", "?"])
    def test_another_file_than_the_pinned_one_is_refused(self, remote, cache, content):
        entry = remote(verified=False)
        fetch_model(entry)
        (pin,) = (cache / "pins").rglob("*.sha256")
        pin.write_text(content)
        with pytest.raises(HashMismatchError, match=rf"{DIGEST}.*pinned.*delete the pin"):
            fetch_model(entry)

    def test_a_pin_that_cannot_be_written_is_reported(self, remote, monkeypatch, tmp_path, caplog):
        (tmp_path / "occupied").write_text("")
        monkeypatch.setattr(settings, "cache_dir", tmp_path / "occupied")
        assert read(remote(verified=False)) == BODY
        assert "cannot be pinned" in caplog.text

    def test_plain_urls_are_pinned_too(self, plain, hub, caplog):
        entry = plain(verified=False)
        fetch_model(entry)
        assert DIGEST in caplog.text
        (model_folder(entry) / "weights.bin").unlink()
        hub.files["/weights.bin"] = b"another"
        with pytest.raises(HashMismatchError, match="pinned"):
            fetch_model(entry)


class TestUrls:
    def test_a_second_call_makes_no_request(self, hub, plain):
        entry = plain()
        assert read(entry) == BODY
        assert read(entry) == BODY
        assert len(hub.requests) == 1

    def test_a_damaged_file_is_downloaded_again(self, hub, plain):
        entry = plain()
        path = fetch_model(entry) / "weights.bin"
        path.write_bytes(b"damaged")
        with pytest.raises(DownloadError, match="is damaged, and offline mode is on"):
            fetch_model(entry, offline=True)
        assert read(entry) == BODY

    @pytest.mark.parametrize(
        ("fault", "error", "message"),
        [
            ("corrupt", HashMismatchError, "sha256"),
            ("truncate:1000", DownloadError, "could not be downloaded"),
            ("status:404", DownloadError, "404"),
            ("status:401", DownloadError, "401"),
            ("redirect:http://example.org/x", DownloadError, "refused"),
            ("redirect:file:///etc/passwd", DownloadError, "refused"),
        ],
    )  # fmt: skip
    def test_a_failed_download_leaves_nothing(self, hub, plain, fault, error, message):
        entry = plain()
        hub.always = fault
        with pytest.raises(error, match=message):
            fetch_model(entry)
        assert not model_folder(entry).exists() or not any(model_folder(entry).iterdir())

    def test_a_link_in_the_cache_is_replaced_instead_of_followed(self, plain, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("precious")
        entry = plain()
        model_folder(entry).mkdir(parents=True)
        (model_folder(entry) / "weights.bin").symlink_to(secret)
        assert read(entry) == BODY
        assert secret.read_text() == "precious"

    def test_a_stalled_server(self, hub, plain, monkeypatch):
        monkeypatch.setattr("sccello_tools.models.hub._TIMEOUT", (1.0, 0.3))
        hub.always = "stall:100"
        with pytest.raises(DownloadError, match="Check the network"):
            fetch_model(plain())

    def test_no_network_and_offline(self, plain, hub):
        entry = plain()
        with pytest.raises(DownloadError, match=rf"offline mode is on.*{hub.url}"):
            fetch_model(entry, offline=True)
        file = entry.files[0].model_copy(update={"url": "http://127.0.0.1:9/weights.bin"})
        with pytest.raises(DownloadError, match="Check the network"):
            fetch_model(entry.model_copy(update={"files": (file,)}))

    def test_a_read_only_cache(self, plain, cache):
        if os.geteuid() == 0:
            cache.write_text("a file where the cache should be")
        else:
            cache.mkdir()
            cache.chmod(0o555)
        with pytest.raises(DownloadError, match="SCCELLO_CACHE"):
            fetch_model(plain())


def test_bundled_and_local_files_are_verified(tmp_path):
    (tmp_path / "weights.bin").write_bytes(BODY)
    file = ModelFile(path="weights.bin", sha256=DIGEST, n_bytes=len(BODY))
    entry = ModelEntry(name="mine", source="bundled", files=(file,), folder=tmp_path)
    assert fetch_model(entry) == tmp_path
    (tmp_path / "weights.bin").write_bytes(b"other")
    with pytest.raises(HashMismatchError, match="update_entry"):
        fetch_model(entry)
    (tmp_path / "weights.bin").unlink()
    assert not is_available(entry)
    with pytest.raises(WeightsError, match=r"weights\.bin of bundled model 'mine' is missing"):
        fetch_model(entry)


@pytest.mark.parametrize(
    "name", ["hf://", "hf://a", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a b/c"]
)
def test_names_that_are_no_repository(name):
    with pytest.raises(ModelNotFoundError, match="hf://owner/name"):
        parse_hub_name(name)


def test_names_of_repositories():
    assert parse_hub_name("hf://a/b") == ("a/b", "main")
    assert parse_hub_name("hf://a/b@refs/pr/1") == ("a/b", "refs/pr/1")


def test_an_entry_of_a_repository_states_sizes_and_hashes(hub, tiny_files):
    commit = hub.add("me/mine", tiny_files | {".gitattributes": b"x", "notes.pkl": b"x"})
    entry = hub_entry("me/mine", "main")
    assert (entry.name, entry.repo, entry.revision) == ("tiny", "me/mine", commit)
    sizes = {file.path: file.n_bytes for file in entry.files}
    assert sizes == {name: len(content) for name, content in tiny_files.items()}
    weights = next(file for file in entry.files if file.path == "model.safetensors")
    assert weights.sha256 == hashlib.sha256(tiny_files["model.safetensors"]).hexdigest()
    assert not hub.downloads(f"/lfs/{weights.sha256}")  # described without its weights


def test_the_cache_is_used_if_the_hub_cannot_be_reached(hub, tiny_files, monkeypatch, caplog):
    hub.add("me/mine", tiny_files)
    fetch_model(hub_entry("me/mine", "main"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        entry = hub_entry("me/mine", "main")
    assert "Using the copy in the cache" in caplog.text
    assert is_available(entry)
    with pytest.raises(DownloadError, match="other"):
        hub_entry("me/other", "main")
