"""Commands on several files: folders of embeddings and annotations."""

from __future__ import annotations

import json
import warnings

import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools.cli import app
from sccello_tools.files import read_any


@pytest.fixture
def files(tmp_path):
    adata = sccello.datasets.pancreas_tritschler()[::40].copy()
    paths = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    adata.write_h5ad(paths[0])
    adata[:5].copy().write_h5ad(paths[1])
    return paths


def invoke(*words: object):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return CliRunner().invoke(app, ["-q", *map(str, words), "--json"])


def run(*words: object) -> dict:
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def fails(*words: object) -> str:
    done = invoke(*words)
    assert done.exit_code == 1
    return done.output


def test_several_files_are_embedded_into_a_folder(files, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    said = run("embed", *files, "-o", out, "--model", tiny_model_folder)
    assert (said["cells"], said["dimensions"], said["failed"]) == (20, 16, {})
    assert sccello.open_embedded(out).shape == (20, 16)
    wrong = tmp_path / "out.h5ad"
    said = fails("embed", *files, "-o", wrong, "--model", tiny_model_folder)
    assert "folder" in said
    assert str(wrong) in said


def test_several_files_are_annotated_and_bad_ones_skipped(files, tmp_path):
    bad = tmp_path / "bad.h5ad"
    bad.write_text("no HDF5")
    out = tmp_path / "out"
    assert "not an HDF5 file" in fails("annotate", *files, bad, "-o", out)
    said = run("annotate", *files, bad, "-o", out, "--skip-bad-files", "--write-back")
    assert (said["cells"], said["files"]) == (20, 2)
    assert list(said["failed"]) == ["bad"]
    assert sum(said["types"].values()) == 20
    assert "sccello_cell_type" in read_any(out / "files" / "b.h5ad").obs


def test_several_files_are_tokenized(files, tmp_path):
    said = run("tokenize", *files, "-o", tmp_path / "corpus")
    assert said["cells"] == 20
