"""The command line: what it writes and prints, and that a mistake ends in one message."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools import __main__ as cli
from sccello_tools import _files

KEY = "X_sccello"


@pytest.fixture(autouse=True)
def _settings_come_back():
    logger = logging.getLogger("sccello_tools")
    level, handlers, offline = logger.level, list(logger.handlers), sccello.settings.offline
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers
    sccello.settings.offline = offline


@pytest.fixture
def source(adata, tmp_path):
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            [],
            [
                "embed",
                "annotate",
                "markers",
                "report",
                "tokenize",
                "models",
                "demo",
                "--quiet",
                "--offline",
                "Exit codes",
            ],
        ),
        (
            ["embed"],
            ["IN.h5ad", "--out", "--model", "--layer", "--gene-ids", "--overwrite", "--json"],
        ),
        (["annotate"], ["IN.h5ad", "--candidate", "--reference", "Examples", "--json"]),
        (["markers"], ["IN.h5ad", "--groupby", "--method", "Examples", ".csv", "--json"]),
        (["report"], ["IN.h5ad", "--label-key", "--sample-key", "Examples", "--json"]),
        (["tokenize"], ["IN...", "--label-key", "Examples", "--json"]),
        (["models"], ["--json"]),
        (["demo"], ["--out", "--model", "--json"]),
    ],
)
def test_help(command, words):
    result = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"}, color=False)
    assert result.exit_code == 0
    for word in words:
        assert word in result.output


def test_without_a_command_help_is_shown():
    result = CliRunner().invoke(cli.app, [])
    assert "Usage" in result.output
    assert result.exit_code in {0, 2}  # click's choice, which has changed


def test_version(run):
    assert run("--version")[:2] == (0, f"sccello-tools {sccello.__version__}\n")


def test_help_is_quick():
    """Somebody who asks for help does not wait for torch, scanpy or matplotlib."""
    code = """import sys
sys.argv = ["sccello", "embed", "--help"]
from sccello_tools.__main__ import main
try:
    main()
finally:
    heavy = {"torch", "scanpy", "matplotlib", "anndata", "pandas", "numpy", "lightning", "jinja2"}
    print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "OUT.h5ad" in done.stdout
    assert done.stderr.strip() == "[]"


def test_embed_writes_a_file(run, source, tmp_path, tiny_model_folder, adata):
    out = tmp_path / "new" / "out.h5ad"
    code, printed, _ = run(
        "-q", "embed", source, "-o", out, "--model", tiny_model_folder, "--device", "cpu"
    )
    assert code == 0
    assert printed.strip() == f"{out}: 30 of 30 cells embedded in 16 dimensions, obsm['X_sccello']"
    written = anndata.read_h5ad(out)
    expected = sccello.tl.embed(adata, model=tiny_model_folder, device="cpu", copy=True)
    np.testing.assert_allclose(written.obsm[KEY], expected.obsm[KEY], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(written.X.toarray(), adata.X.toarray())
    assert written.uns[KEY]["model"] == "tiny"
    assert written.obs.columns.tolist() == expected.obs.columns.tolist()
    assert [path.name for path in out.parent.iterdir()] == ["out.h5ad"]


def test_embed_with_its_options_and_json(run, adata, tmp_path, tiny_model_folder):
    adata.layers["counts"] = adata.X
    adata.X = adata.X.log1p()
    adata.var["ensembl"] = adata.var_names
    adata.var_names = [f"g{i}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "in.h5ad")
    options = [
        "--layer",
        "counts",
        "--gene-ids",
        "ensembl",
        "--key-added",
        "X_cell",
        "--representation",
        "cell",
    ]
    code, printed, _ = run(
        "embed",
        tmp_path / "in.h5ad",
        "-o",
        tmp_path / "out.h5ad",
        "--model",
        tiny_model_folder,
        *options,
        "--json",
    )
    assert code == 0
    assert json.loads(printed) == {
        "file": str(tmp_path / "out.h5ad"),
        "cells": 30,
        "embedded": 30,
        "dimensions": 16,
        "key": "X_cell",
        "model": "tiny",
    }
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(np.linalg.norm(written.obsm["X_cell"], axis=1), 1, atol=1e-5)


def test_embed_does_not_overwrite_unless_told_to(run, source, tmp_path, tiny_model_folder):
    out = tmp_path / "out.h5ad"
    out.write_text("precious")
    arguments = ["-q", "embed", source, "-o", out, "--model", tiny_model_folder]
    code, printed, said = run(*arguments)
    assert (code, printed) == (1, "")
    assert said.splitlines() == [
        f"sccello: {out} exists already. Pass --overwrite to replace it, or another name."
    ]
    assert out.read_text() == "precious"
    assert run(*arguments, "--overwrite")[0] == 0
    assert KEY in anndata.read_h5ad(out).obsm


def test_embed_in_place(run, source, tiny_model_folder):
    assert (
        run("-q", "embed", source, "-o", source, "--model", tiny_model_folder, "--overwrite")[0]
        == 0
    )
    assert KEY in anndata.read_h5ad(source).obsm


def no_file(folder, adata):
    return "There is no file"


def no_h5ad(folder, adata):
    (folder / "in.h5ad").write_text("gene,cell\n")
    return "cannot be read as h5ad"


def cut_off(folder, adata):
    adata.write_h5ad(folder / "in.h5ad")
    content = (folder / "in.h5ad").read_bytes()
    (folder / "in.h5ad").write_bytes(content[: len(content) // 2])
    return "cannot be read as h5ad"


def other_hdf5(folder, adata):
    import h5py

    with h5py.File(folder / "in.h5ad", "w") as file:
        file["matrix"] = np.ones(3)
    return ""


def no_counts(folder, adata):
    adata.X = adata.X.log1p()
    adata.write_h5ad(folder / "in.h5ad")
    return "adata.X does not hold raw counts"


def other_genes(folder, adata):
    adata.var_names = [str(i) for i in range(adata.n_vars)]
    adata.write_h5ad(folder / "in.h5ad")
    return "0 of 900 genes match"


@pytest.mark.filterwarnings(
    "ignore:Element:PendingDeprecationWarning"
)  # anndata, of the other HDF5
@pytest.mark.parametrize("spoil", [no_file, no_h5ad, cut_off, other_hdf5, no_counts, other_genes])
def test_a_mistake_ends_in_one_message(run, adata, tmp_path, tiny_model_folder, spoil):
    says = spoil(tmp_path, adata)
    out = tmp_path / "out.h5ad"
    code, printed, said = run(
        "-q", "embed", tmp_path / "in.h5ad", "-o", out, "--model", tiny_model_folder
    )
    assert (code, printed) == (1, "")
    assert said.startswith("sccello: ")
    assert said.count("sccello: ") == 1
    assert says in said
    assert "Traceback" not in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--model", "sccello-smal"], 1, "No model is called 'sccello-smal'"),
        (["--device", "tpu9"], 1, "Device 'tpu9' is not available here"),
        (["--representation", "gene"], 2, "expected is 'cls' or 'cell'"),
        (["--layer", "spliced"], 1, "adata has no layer 'spliced'"),
        (["--colour", "red"], 2, "No such option"),
    ],
)
def test_wrong_options(run, source, tmp_path, tiny_model_folder, options, code, says):
    model = [] if "--model" in options else ["--model", tiny_model_folder]
    found, printed, said = run("-q", "embed", source, "-o", tmp_path / "out.h5ad", *model, *options)
    assert (found, printed) == (code, "")
    assert says in said
    assert "Traceback" not in said
    assert not (tmp_path / "out.h5ad").exists()


def test_a_folder_as_output(run, source, tmp_path, tiny_model_folder):
    code, _, said = run(
        "-q", "embed", source, "-o", tmp_path, "--model", tiny_model_folder, "--overwrite"
    )
    assert code == 1
    assert said.strip() == f"sccello: {tmp_path} is a folder. Name the file to write."


def test_cells_without_genes_are_said_in_one_line(run, adata, tmp_path, tiny_model_folder):
    x = adata.X.tolil()
    x[3] = 0
    adata.X = x.tocsr()
    adata.write_h5ad(tmp_path / "in.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, printed, said = run(
            "-q",
            "embed",
            tmp_path / "in.h5ad",
            "-o",
            tmp_path / "out.h5ad",
            "--model",
            tiny_model_folder,
            "--json",
        )
    assert code == 0
    assert json.loads(printed)["embedded"] == 29
    assert said.startswith("sccello: 1 of 30 cells have no count in any gene of the vocabulary.")
    assert len(said.splitlines()) == 1


def test_a_file_is_written_whole_or_not_at_all(adata, tmp_path, monkeypatch):
    out = tmp_path / "out.h5ad"
    out.write_text("old")

    def half(self, path, **options):
        path.write_text("half")
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", half)
    with pytest.raises(OSError, match="No space left"):
        _files.write_h5ad(adata, out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"]


def test_models(run):
    code, printed, _ = run("models")
    assert code == 0
    for name in sccello.models.list()["name"]:
        assert name in printed


def test_models_as_json(run):
    code, printed, _ = run("models", "--json")
    assert code == 0
    records = json.loads(printed)
    assert [record["name"] for record in records] == sccello.models.list()["name"].tolist()
    assert {"source", "available", "licence"} <= set(records[0])


def test_quiet_and_offline(run):
    run("-q", "--offline", "models", "--json")
    assert sccello.settings.verbosity == "warning"
    assert sccello.settings.offline
    run("models", "--json")
    assert sccello.settings.verbosity == "info"


@pytest.fixture
def few_cells(monkeypatch):
    """The demo on 120 of its cells."""
    cells = sccello.datasets.pancreas_tritschler()[::5].copy()
    monkeypatch.setattr(sccello.datasets, "pancreas_tritschler", cells.copy)
    return cells


def test_demo(run, few_cells, tmp_path, tiny_model_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, printed, _ = run("-q", "demo", "-o", tmp_path / "a" / "b", "--model", tiny_model_folder)
    assert code == 0
    assert "tiny" in printed
    assert "PCA-50" in printed
    assert f"{few_cells.n_obs} pancreas cells" in printed
    assert "in all" in printed
    picture = tmp_path / "a" / "b" / "pancreas_umap.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000

    code, printed, _ = run("-q", "demo", "-o", tmp_path, "--model", tiny_model_folder, "--json")
    assert code == 0
    found = json.loads(printed)
    assert set(found) == {"scores", "seconds", "annotation", "pictures", "n_cells"}
    assert found["annotation"] == {}  # of a model that knows no types
    assert set(found["scores"]) == {"tiny", "PCA-50"}
    for score in found["scores"].values():
        assert set(score) == {"nmi", "ari", "asw", "avg_bio", "resolution"}
        assert 0 <= score["nmi"] <= 1
    # the cells are real: PCA tells most of their types apart, a model of random weights does not
    assert found["scores"]["PCA-50"]["nmi"] > 0.4
    assert found["scores"]["PCA-50"]["nmi"] > found["scores"]["tiny"]["nmi"]
    assert len(found["seconds"]) == 5


def test_demo_annotates_with_the_bundled_model(run, few_cells, tmp_path):
    code, printed, _ = run("-q", "demo", "-o", tmp_path, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["annotation"]["accuracy on known types"] > 0.7
    assert found["annotation"]["hierarchical F1 on known types"] > 0.8
    assert [path.rsplit("/", 1)[1] for path in found["pictures"]] == [
        "pancreas_umap.png",
        "pancreas_quality.png",
        "pancreas_ontology_umap.png",
        "pancreas_confusion.png",
        "pancreas_novelty.png",
    ]
    assert all((tmp_path / path).stat().st_size > 10_000 for path in found["pictures"])


def test_demo_with_a_file_in_the_place_of_its_folder(run, tmp_path, tiny_model_folder):
    (tmp_path / "demo").write_text("")
    code, _, said = run("-q", "demo", "-o", tmp_path / "demo", "--model", tiny_model_folder)
    assert code == 1
    assert said.startswith("sccello: ")
    assert "Traceback" not in said


def test_as_a_program(source, tmp_path, tiny_model_folder):
    """Through `python -m`, as the shell sees it: JSON alone on standard output, progress on standard error."""
    command = [sys.executable, "-m", "sccello_tools", "embed", source, "-o", tmp_path / "out.h5ad"]
    command += ["--model", tiny_model_folder, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"] == 30
    assert "embed: added .obsm['X_sccello']" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert again.returncode == 1
    assert again.stdout == ""
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr
