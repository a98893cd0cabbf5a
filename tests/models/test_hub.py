from __future__ import annotations

import dataclasses
import errno
import hashlib
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from sccello_tools import settings
from sccello_tools.errors import (
    DownloadError,
    HashMismatchError,
    ManifestError,
    ModelNotFoundError,
    WeightsError,
)
from sccello_tools.models.hub import fetch, fetch_model, is_available, model_folder
from sccello_tools.models.manifest import ModelEntry, ModelFile


def names(folder):
    """Files of a folder without locks, which may stay behind."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_fetch_gives_the_file_and_the_second_call_asks_nobody(server, remote, body, cache, quick):
    entry = remote()
    path = fetch(entry.files[0], entry, transfer=quick)
    assert path == cache / "remote" / "weights.bin"
    assert path.read_bytes() == body
    assert names(path.parent) == ["weights.bin"]
    assert fetch(entry.files[0], entry, transfer=quick) == path
    assert len(server.requests) == 1


def test_truncated_answers_are_resumed(server, remote, body, quick):
    entry = remote()
    server.faults = ["truncate:10240", "truncate:5000"]
    path = fetch(entry.files[0], entry, transfer=quick)
    assert path.read_bytes() == body
    assert server.ranges() == [
        None,
        "bytes=10240-",
        "bytes=14336-",
    ]  # an unfinished chunk of 1,024 bytes is lost


def test_a_server_that_trickles_is_borne_as_long_as_bytes_come(server, remote, body, quick):
    entry = remote()
    server.always = (
        "truncate:5120"  # six answers, more than the three attempts allowed without progress
    )
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert len(server.requests) == 6


def test_an_answer_without_length_that_ends_early_is_resumed(server, remote, body, quick):
    entry = remote()
    server.faults = ["no_length:7000"]
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None, "bytes=7000-"]


def test_a_stalled_answer_is_given_up_and_resumed(server, remote, body, quick):
    entry = remote()
    server.faults = ["stall:10240"]
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None, "bytes=10240-"]


def test_a_server_that_keeps_stalling_keeps_the_part(server, remote, body, quick):
    entry = remote()
    server.faults = ["stall:10240"]
    server.always = "stall:0"
    with pytest.raises(
        DownloadError, match=r"sent nothing for 0\.4 s.*10,240 of 30,000 bytes are kept.*call again"
    ):
        fetch(entry.files[0], entry, transfer=quick)
    folder = model_folder(entry)
    assert names(folder) == ["weights.bin.part", "weights.bin.part.etag"]
    server.always = None
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges()[-1] == "bytes=10240-"
    assert names(folder) == ["weights.bin"]


def test_a_server_without_ranges_sends_all_again(server, remote, body, quick):
    entry = remote()
    server.knows_ranges = False
    server.faults = ["truncate:10240"]
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None, "bytes=10240-"]


def test_a_wrong_range_is_not_joined(server, remote, body, quick):
    entry = remote()
    server.faults = ["truncate:10240", "wrong_range"]
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None, "bytes=10240-", None]


def test_a_file_that_changed_on_the_server_is_fetched_whole(server, remote, quick):
    entry = remote(verified=False, sized=False)
    server.faults = ["truncate:10240"]
    server.always = "status:503"
    with pytest.raises(DownloadError, match="answers 503"):
        fetch(entry.files[0], entry, transfer=quick)
    server.always, server.etag = None, '"version-2"'
    server.files["/weights.bin"] = b"new" * 9000
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == b"new" * 9000


def test_a_part_without_mark_is_not_trusted_for_an_unverified_file(server, remote, body, quick):
    entry = remote(verified=False)
    server.etag = None
    part = model_folder(entry) / "weights.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of who knows what")
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None]


def test_a_damaged_part_is_fetched_whole_once_more(server, remote, body, quick):
    entry = remote()
    part = model_folder(entry) / "weights.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100)
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == ["bytes=100-", None]


@pytest.mark.parametrize("sized", [True, False])
def test_a_complete_part_needs_no_byte_more(server, remote, body, quick, sized):
    entry = remote(sized=sized)
    part = model_folder(entry) / "weights.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body)
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == ([] if sized else ["bytes=30000-"])


def test_a_part_longer_than_the_file_is_dropped(server, remote, body, quick):
    entry = remote()
    part = model_folder(entry) / "weights.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body + b"more")
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert server.ranges() == [None]


def test_a_corrupted_answer_is_an_error_and_nothing_stays(server, remote, quick):
    entry = remote()
    server.always = "corrupt"
    with pytest.raises(
        HashMismatchError, match=r"has sha256 \w{64}, expected \w{64}.*nothing was kept"
    ):
        fetch(entry.files[0], entry, transfer=quick)
    assert names(model_folder(entry)) == []


def test_errors_of_the_server_are_tried_again(server, remote, body, quick):
    entry = remote()
    server.faults = ["status:500", "status:503"]
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body


def test_errors_that_stay_are_an_error(server, remote, quick):
    entry = remote()
    server.always = "status:500"
    with pytest.raises(DownloadError, match=r"answers 500 \(3 attempts without a new byte\)"):
        fetch(entry.files[0], entry, transfer=quick)
    assert len(server.requests) == 3


def test_a_refusal_is_not_tried_again(server, remote, quick):
    entry = remote()
    server.always = "status:403"
    with pytest.raises(DownloadError, match=r"refuses .*status 403"):
        fetch(entry.files[0], entry, transfer=quick)
    assert len(server.requests) == 1


def test_a_missing_file_is_an_error_that_names_it(server, remote, quick):
    entry = remote()
    server.files.clear()
    with pytest.raises(
        DownloadError, match=r"no such file \(404\): http://127.*newer sccello-tools"
    ):
        fetch(entry.files[0], entry, transfer=quick)
    assert names(model_folder(entry)) == []


def test_no_network(remote, quick):
    entry = remote()
    file = dataclasses.replace(entry.files[0], url="http://127.0.0.1:9/weights.bin")
    with pytest.raises(
        DownloadError, match=r"no connection to 127\.0\.0\.1:9.*put it at .*weights\.bin, or"
    ):
        fetch(file, entry, transfer=quick)


def test_offline_asks_nobody_and_says_where_the_file_comes_from(server, remote, monkeypatch):
    entry = remote()
    monkeypatch.setattr(settings, "offline", True)
    with pytest.raises(
        DownloadError, match=r"not in the cache.*offline mode is on.*settings\.offline = False"
    ):
        fetch(entry.files[0], entry)
    assert server.requests == []


def test_offline_takes_what_is_there(remote, body, quick):
    entry = remote()
    fetch(entry.files[0], entry, transfer=quick)
    assert fetch(entry.files[0], entry, offline=True).read_bytes() == body


def test_a_damaged_cached_file_is_fetched_again(server, remote, body, quick, caplog):
    entry = remote()
    path = fetch(entry.files[0], entry, transfer=quick)
    path.write_bytes(b"damaged")
    with pytest.raises(HashMismatchError, match="with the network on"):
        fetch(entry.files[0], entry, offline=True)
    with caplog.at_level(logging.WARNING):
        assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
    assert "fetching it again" in caplog.text


def test_the_first_hash_of_an_unverified_file_is_pinned_and_said(remote, body, quick, caplog):
    entry = remote(verified=False, sized=False)
    digest = hashlib.sha256(body).hexdigest()
    path = fetch(entry.files[0], entry, transfer=quick)
    assert (path.parent / "weights.bin.sha256").read_text() == f"{digest}  weights.bin\n"
    assert f"pinned the one seen now, {digest}" in caplog.text
    caplog.clear()
    fetch(entry.files[0], entry, transfer=quick)
    assert caplog.text == ""


def test_another_file_than_the_pinned_one_is_refused(server, remote, body, quick):
    entry = remote(verified=False, sized=False)
    path = fetch(entry.files[0], entry, transfer=quick)
    path.unlink()
    server.files["/weights.bin"] = b"another" * 100
    with pytest.raises(
        HashMismatchError, match=r"was seen first and pinned in .*delete weights\.bin and its pin"
    ):
        fetch(entry.files[0], entry, transfer=quick)
    assert names(path.parent) == ["weights.bin.sha256"]


def test_a_pinned_file_that_changed_on_disk_is_refused(server, remote, quick):
    entry = remote(verified=False)
    path = fetch(entry.files[0], entry, transfer=quick)
    path.write_bytes(b"tampered")
    with pytest.raises(HashMismatchError, match="seen first"):
        fetch(entry.files[0], entry, transfer=quick)
    assert len(server.requests) == 1


def test_an_unreadable_pin_vouches_for_nothing(remote, quick):
    entry = remote(verified=False)
    path = fetch(entry.files[0], entry, transfer=quick)
    (path.parent / "weights.bin.sha256").write_text("?")
    with pytest.raises(HashMismatchError, match="cannot be read"):
        fetch(entry.files[0], entry, transfer=quick)


def test_the_hash_that_the_hub_announces_checks_an_unverified_file(server, remote, body, quick):
    entry = remote(verified=False, sized=False)
    server.headers["X-Linked-Etag"] = f'"{hashlib.sha256(body).hexdigest()}"'
    server.faults = ["corrupt"]
    with pytest.raises(HashMismatchError, match="damaged on the way"):
        fetch(entry.files[0], entry, transfer=quick)
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body


@pytest.mark.parametrize("sized", [True, False])
def test_a_server_that_sends_too_much_is_stopped(server, remote, body, quick, sized):
    entry = remote(sized=sized)
    server.files["/weights.bin"] = body * 2
    small = dataclasses.replace(quick, max_bytes=len(body))
    with pytest.raises(DownloadError, match="more than the 30,000 bytes"):
        fetch(entry.files[0], entry, transfer=small)
    assert not (model_folder(entry) / "weights.bin").exists()


def test_too_much_without_length_is_stopped(server, remote, body, quick):
    entry = remote()
    server.files["/weights.bin"] = body * 2
    server.always = "no_length:60000"
    with pytest.raises(DownloadError, match="more than the 30,000 bytes"):
        fetch(entry.files[0], entry, transfer=quick)


def test_a_rough_size_bounds_what_may_come(server, remote, body, quick):
    entry = remote(verified=False, sized=False)
    file = dataclasses.replace(entry.files[0], n_bytes_about=5000)
    with pytest.raises(DownloadError, match="more than the 20,000 bytes"):
        fetch(file, entry, transfer=quick)


def test_redirects_may_not_leave_https(server, remote, quick):
    entry = remote()
    for target in ("http://example.org/weights.bin", "file:///etc/passwd"):
        server.faults = [f"redirect:{target}"]
        with pytest.raises(DownloadError, match=r"redirects: address .* is refused"):
            fetch(entry.files[0], entry, transfer=quick)


def test_redirects_are_followed(server, remote, body, quick):
    entry = remote()
    server.files["/elsewhere"] = server.files["/weights.bin"]
    server.faults = ["redirect:/elsewhere"]
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body


def test_a_file_url_is_copied_even_offline(tmp_path, body, quick):
    source = tmp_path / "my weights.bin"
    source.write_bytes(body)
    file = ModelFile("weights.bin", hashlib.sha256(body).hexdigest(), url=source.as_uri())
    entry = ModelEntry("mine", "url", files=(file,))
    assert fetch(file, entry, offline=True, transfer=quick).read_bytes() == body
    source.unlink()
    with pytest.raises(DownloadError, match="There is no file"):
        fetch(dataclasses.replace(file, path="other.bin"), entry, transfer=quick)


def test_a_cache_that_cannot_be_made(remote, cache, quick):
    entry = remote()
    cache.write_text("a file where the cache should be")
    with pytest.raises(DownloadError, match=r"cache folder .* cannot be written.*SCCELLO_CACHE"):
        fetch(entry.files[0], entry, transfer=quick)


def test_a_read_only_cache(remote, cache, quick):
    entry = remote()
    cache.mkdir()
    cache.chmod(0o555)
    if os.access(cache, os.W_OK):
        pytest.skip("root writes everywhere")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(entry.files[0], entry, transfer=quick)


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EROFS, "cannot be written"), (errno.ENOSPC, "No space in .*SCCELLO_CACHE")],
)
def test_a_disk_that_refuses(remote, quick, monkeypatch, number, message):
    entry = remote()
    real = Path.open

    def refuse(path, mode="r", *args, **kwargs):
        if "a" in mode and path.suffix == ".part":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DownloadError, match=message):
        fetch(entry.files[0], entry, transfer=quick)


def test_no_space_is_seen_before_the_download(server, remote, quick, monkeypatch):
    entry = remote()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DownloadError, match="30,000 bytes are needed, 0 are free"):
        fetch(entry.files[0], entry, transfer=quick)
    assert server.requests == []


def test_a_verified_file_in_a_read_only_cache_needs_no_lock(remote, body, quick, monkeypatch):
    entry = remote()
    fetch(entry.files[0], entry, transfer=quick)
    monkeypatch.setattr("filelock.FileLock", None)
    assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body


@pytest.mark.parametrize(
    "path", ["../weights.bin", "/etc/passwd", "a/../../b", "a\\b", "", ".hidden", "w.bin.part"]
)
def test_a_path_that_leaves_the_folder_is_refused(remote, path):
    entry = remote()
    file = dataclasses.replace(entry.files[0], path=path)
    with pytest.raises(ManifestError, match="file path"):
        fetch(file, entry)


def test_a_model_without_files(remote):
    with pytest.raises(WeightsError, match="lists no files for model 'remote'"):
        fetch_model(remote(files=()))


def test_bundled_and_local_files_are_checked_where_they_lie(tmp_path, body):
    (tmp_path / "weights.bin").write_bytes(body)
    file = ModelFile("weights.bin", hashlib.sha256(body).hexdigest(), len(body))
    entry = ModelEntry("mine", "bundled", files=(file,), folder=tmp_path)
    assert is_available(entry)
    assert fetch_model(entry) == tmp_path
    (tmp_path / "weights.bin").write_bytes(b"other")
    with pytest.raises(HashMismatchError, match="update_entry"):
        fetch_model(entry)
    (tmp_path / "weights.bin").unlink()
    assert not is_available(entry)
    with pytest.raises(WeightsError, match=r"bundled model 'mine' is missing\. Install"):
        fetch_model(entry)


class TestHuggingFace:
    repo = "/somebody/some-model/resolve"
    full = "e59304e" + "0" * 33

    @pytest.fixture
    def entry(self, server, body, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        return ModelEntry(
            "theirs",
            "huggingface",
            files=(ModelFile("weights.bin", n_bytes_about=30_000),),
            repo="somebody/some-model",
            revision="e59304e",
        )

    def test_the_endpoint_is_asked_for_the_commit(self, server, entry, body, cache, quick):
        server.files[f"{self.repo}/e59304e/weights.bin"] = body
        path = fetch(entry.files[0], entry, transfer=quick)
        assert path == cache / "theirs" / "e59304e" / "weights.bin"
        assert path.read_bytes() == body

    def test_main_serves_when_it_is_at_the_shortened_commit(self, server, entry, body, quick):
        server.files[f"{self.repo}/main/weights.bin"] = body
        server.headers["X-Repo-Commit"] = self.full
        assert fetch(entry.files[0], entry, transfer=quick).read_bytes() == body
        assert [path for path, _ in server.requests] == [
            f"{self.repo}/e59304e/weights.bin",
            f"{self.repo}/main/weights.bin",
        ]

    @pytest.mark.parametrize("commit", ["f" * 40, None])
    def test_main_at_another_commit_is_refused(self, server, entry, body, quick, commit):
        server.files[f"{self.repo}/main/weights.bin"] = body
        if commit:
            server.headers["X-Repo-Commit"] = commit
        with pytest.raises(DownloadError, match=r"expected e59304e\. The repository has moved on"):
            fetch(entry.files[0], entry, transfer=quick)
        assert not is_available(entry)

    def test_a_file_that_is_nowhere(self, entry, quick):
        with pytest.raises(
            DownloadError, match=r"Sources asked: .*/e59304e/weights\.bin, .*/main/weights\.bin"
        ):
            fetch(entry.files[0], entry, transfer=quick)

    def test_a_full_commit_has_no_second_source(self, server, entry, quick):
        entry = dataclasses.replace(entry, revision=self.full)
        with pytest.raises(DownloadError, match="no such file"):
            fetch(entry.files[0], entry, transfer=quick)
        assert len(server.requests) == 1

    def test_an_endpoint_without_https_is_refused(self, entry, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example.org")
        with pytest.raises(WeightsError, match=r"HF_ENDPOINT: address .* is refused"):
            fetch(entry.files[0], entry)


def test_errors_of_downloads_are_weights_errors():
    assert issubclass(DownloadError, WeightsError)
    assert issubclass(ModelNotFoundError, LookupError)
