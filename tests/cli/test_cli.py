"""The command line: output, messages and exit codes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner

import sccello_tools as sccello
from sccello_tools import cli

KEY = "X_sccello"


@pytest.fixture(autouse=True)
def _restore_settings():
    offline = sccello.settings.offline
    yield
    sccello.settings.offline = offline


@pytest.fixture
def source(adata, tmp_path):
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


COUNTS = ["--layer", "--gene-ids", "--counts", "--min-matched", "--model", "--device"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            [],
            [
                "embed",
                "annotate",
                "markers",
                "drug",
                "report",
                "tokenize",
                "--offline",
                "Exit codes",
            ],
        ),
        (["embed"], [*COUNTS, "--out", "--overwrite", "Examples", "--json"]),
        (["annotate"], [*COUNTS, "--candidate", "--reference", "Examples", "--json"]),
        (["markers"], [*COUNTS, "--groupby", "--method", "Examples", ".csv", "--json"]),
        (["drug"], [*COUNTS, "--groupby", "--smiles", "Examples", "--json"]),
        (["report"], [*COUNTS, "--label-key", "--batch-key", "Examples", "--json"]),
        (["tokenize"], ["IN...", "--label-key", "Examples", "--json"]),
        (["pretrain"], ["RUN.yaml", "--resume", "Examples", "--json"]),
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
    """Help imports neither torch nor scanpy nor matplotlib."""
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
    assert "--min-matched" in done.stdout
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


def test_embed_does_not_overwrite_by_default(run, source, tmp_path, tiny_model_folder):
    out = tmp_path / "out.h5ad"
    out.write_text("precious")
    arguments = ["-q", "embed", source, "-o", out, "--model", tiny_model_folder]
    code, printed, said = run(*arguments)
    assert (code, printed) == (1, "")
    (line,) = said.splitlines()
    assert line.startswith(f"sccello: {out} ")
    assert "--overwrite" in line
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
    return "in.h5ad"


def no_h5ad(folder, adata):
    (folder / "in.h5ad").write_text("gene,cell\n")
    return "in.h5ad"


def truncated(folder, adata):
    adata.write_h5ad(folder / "in.h5ad")
    content = (folder / "in.h5ad").read_bytes()
    (folder / "in.h5ad").write_bytes(content[: len(content) // 2])
    return "in.h5ad"


def other_hdf5(folder, adata):
    import h5py

    with h5py.File(folder / "in.h5ad", "w") as file:
        file["matrix"] = np.ones(3)
    return "in.h5ad"


def no_counts(folder, adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.write_h5ad(folder / "in.h5ad")
    return "--layer counts"


def fractions(folder, adata):
    adata.X = adata.X * np.float32(0.9)
    adata.write_h5ad(folder / "in.h5ad")
    return "--counts trust"


def other_genes(folder, adata):
    adata.var_names = [str(i) for i in range(adata.n_vars)]
    adata.write_h5ad(folder / "in.h5ad")
    return "--gene-ids"


def few_genes(folder, adata):
    names = [f"unknown{i}" for i in range(adata.n_vars)]
    adata.var_names = [*adata.var_names[:100], *names[100:]]
    adata.write_h5ad(folder / "in.h5ad")
    return "--min-matched"


@pytest.mark.filterwarnings(
    "ignore:Element:PendingDeprecationWarning"
)  # anndata, of the other HDF5
@pytest.mark.parametrize(
    "spoil", [no_file, no_h5ad, truncated, other_hdf5, no_counts, fractions, other_genes, few_genes]
)
def test_an_error_is_one_message(run, adata, tmp_path, tiny_model_folder, spoil):
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
        (["--model", "sccello-smal"], 1, "'sccello-smal'"),
        (["--device", "tpu9"], 1, "'tpu9'"),
        (["--representation", "gene"], 2, "'gene'"),
        (["--counts", "maybe"], 2, "'maybe'"),
        (["--layer", "spliced"], 1, "'spliced'"),
        (["--layer", "raw.X"], 1, "no .raw"),
        (["--gene-ids", "symbol"], 1, "'symbol'"),
        (["--colour", "red"], 2, "--colour"),
    ],
)
def test_wrong_options(run, source, tmp_path, tiny_model_folder, options, code, says):
    model = [] if "--model" in options else ["--model", tiny_model_folder]
    found, printed, said = run("-q", "embed", source, "-o", tmp_path / "out.h5ad", *model, *options)
    assert (found, printed) == (code, "")
    assert says in said
    assert "Traceback" not in said
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (["embed"], "o.loom"),
        (["annotate"], "o.csv"),
        (["drug", "--groupby", "donor"], "o.tsv"),
        (["markers", "--groupby", "donor"], "o.xlsx"),
        (["report"], "o.pdf"),
        (["embed"], "o"),
        (["embed", "--workers", "1"], "o.h5ad"),
        (["embed"], "."),
    ],
)
def test_outputs_of_another_type_are_refused_before_reading(
    run, tmp_path, monkeypatch, command, out
):
    monkeypatch.chdir(tmp_path)
    code, printed, said = run("-q", command[0], "no-such-file.h5ad", "-o", out, *command[1:])
    assert (code, printed) == (1, "")
    assert out in said
    assert "no-such-file" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_noticed_before_reading(run, source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=source.stat().st_size // 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(sccello.tl, "embed", lambda *_, **__: pytest.fail("computed"))
    code, _, said = run("-q", "embed", source, "-o", tmp_path / "out.h5ad")
    assert code == 1
    assert "out.h5ad" in said
    assert "free" in said


def test_raw_counts_fractions_and_panels(run, adata, tmp_path, tiny_model_folder):
    """Everything that messages recommend is possible."""
    adata.raw = adata.copy()
    adata.X = adata.X.log1p()
    adata.layers["scaled"] = adata.raw.X * np.float32(0.9)
    few = adata[:, :300].copy()
    few.layers["raw"] = adata.raw.X[:, :300]
    adata.write_h5ad(tmp_path / "in.h5ad")
    few.write_h5ad(tmp_path / "few.h5ad")
    for name, options in {
        "in.h5ad": ["--layer", "raw.X"],
        "in.h5ad ": ["--layer", "scaled", "--counts", "trust"],
        "few.h5ad": ["--layer", "raw", "--min-matched", "200"],
    }.items():
        arguments = [tmp_path / name.strip(), "-o", tmp_path / "out.zarr", "--overwrite", *options]
        code, printed, said = run("-q", "embed", *arguments, "--model", tiny_model_folder)
        assert code == 0, said
        assert "30 of 30" in printed


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_zarr_in_and_out(run, adata, tmp_path, tiny_model_folder, write_zarr):
    write_zarr(adata, tmp_path / "in.zarr")
    arguments = [tmp_path / "in.zarr", "-o", tmp_path / "out.zarr", "--model", tiny_model_folder]
    assert run("-q", "embed", *arguments)[0] == 0
    assert KEY in anndata.read_zarr(tmp_path / "out.zarr").obsm
    assert run("-q", "embed", *arguments)[0] == 1
    assert run("-q", "embed", *arguments, "--overwrite")[0] == 0


def test_interrupted_by_the_user(run, source, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sccello.tl, "embed", interrupt)
    code, printed, said = run("-q", "embed", source, "-o", tmp_path / "out.h5ad")
    assert (code, printed, said) == (130, "", "sccello: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


def test_warnings_are_one_line_without_a_place_in_the_code(run, adata, tmp_path, tiny_model_folder):
    x = adata.X.tolil()
    x[3] = 0
    adata.X = x.tocsr()
    adata.write_h5ad(tmp_path / "in.h5ad")
    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DeprecationWarning)  # anndata, of options of pandas
        code, printed, said = run(
            *("-q", "embed", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad"),
            *("--model", tiny_model_folder, "--json"),
        )
    assert code == 0
    assert json.loads(printed)["embedded"] == 29
    (line,) = said.splitlines()
    assert line.startswith("sccello: 1 of 30 cells")
    assert warnings.showwarning is shown


def test_a_full_disk_leaves_the_old_file(run, source, tmp_path, tiny_model_folder, monkeypatch):
    out = tmp_path / "out.h5ad"
    out.write_text("old")

    def half(self, path, **_):
        Path(path).write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", half)
    code, printed, said = run(
        "-q", "embed", source, "-o", out, "--model", tiny_model_folder, "--overwrite"
    )
    assert (code, printed) == (1, "")
    assert "out.h5ad" in said
    assert len(said.splitlines()) == 1
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]


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


def test_models_info(run):
    code, printed, _ = run("models", "info", "sccello-zeroshot")
    assert code == 0
    assert "katarinayuan/scCello-zeroshot" in printed
    code, printed, _ = run("models", "info", "sccello-small", "--json")
    assert json.loads(printed)["kind"] == "encoder"
    code, _, said = run("models", "info", "sccello-smal")
    assert code == 1
    assert "sccello-small" in said


def test_quiet_and_offline(run):
    run("-q", "--offline", "models", "--json")
    assert sccello.settings.verbosity == "warning"
    assert sccello.settings.offline
    run("models", "--json")
    assert sccello.settings.verbosity == "info"


@pytest.fixture
def few_cells(monkeypatch):
    """The demo with every fifth of its cells."""
    cells = sccello.datasets.pancreas_tritschler()[::5].copy()
    monkeypatch.setattr(sccello.datasets, "pancreas_tritschler", cells.copy)
    return cells


@pytest.mark.filterwarnings("ignore:Model 'tiny' is not calibrated")
def test_demo(run, few_cells, tmp_path, tiny_model_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, printed, _ = run("-q", "demo", "-o", tmp_path / "a" / "b", "--model", tiny_model_folder)
    assert code == 0
    assert "tiny" in printed
    assert "PCA-50" in printed
    assert f"{few_cells.n_obs} pancreas cells" in printed
    assert "in total" in printed
    picture = tmp_path / "a" / "b" / "pancreas_umap.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000

    code, printed, _ = run("-q", "demo", "-o", tmp_path, "--model", tiny_model_folder, "--json")
    assert code == 0
    found = json.loads(printed)
    assert set(found) == {"cells", "scores", "seconds", "annotation", "evidence", "figures"}
    assert 0 <= found["annotation"]["accuracy"] <= 1  # from prototypes
    assert found["evidence"]
    assert set(found["scores"]) == {"tiny", "PCA-50"}
    for score in found["scores"].values():
        assert set(score) == {"nmi", "ari", "asw", "avg_bio", "resolution"}
        assert 0 <= score["nmi"] <= 1
    # types are separated by PCA, not by a model with random weights
    assert found["scores"]["PCA-50"]["nmi"] > 0.4
    assert found["scores"]["PCA-50"]["nmi"] > found["scores"]["tiny"]["nmi"]
    assert len(found["seconds"]) == 6


def test_demo_annotates_with_the_bundled_model(run, few_cells, tmp_path):
    code, printed, _ = run("-q", "demo", "-o", tmp_path, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["annotation"]["accuracy"] > 0.9
    assert found["annotation"]["hierarchical F1"] > 0.9
    first_markers = {
        row["term"]: row["supporting_markers"].split(", ")[0] for row in found["evidence"]
    }
    assert first_markers["type B pancreatic cell"] == "INS"
    assert first_markers["pancreatic PP cell"] == "PPY"
    assert [path.rsplit("/", 1)[1] for path in found["figures"]] == [
        "pancreas_umap.png",
        "pancreas_quality.png",
        "pancreas_ontology_umap.png",
        "pancreas_evidence.png",
        "pancreas_confusion.png",
    ]
    assert all((tmp_path / path).stat().st_size > 10_000 for path in found["figures"])


def test_demo_with_a_file_at_its_folder(run, tmp_path, tiny_model_folder):
    (tmp_path / "demo").write_text("")
    code, _, said = run("-q", "demo", "-o", tmp_path / "demo", "--model", tiny_model_folder)
    assert code == 1
    assert said.startswith("sccello: ")
    assert "Traceback" not in said


def test_as_a_program(source, tmp_path, tiny_model_folder):
    """`python -m`: only JSON on standard output, log and errors on standard error."""
    command = [sys.executable, "-m", "sccello_tools", "embed", source, "-o", tmp_path / "out.h5ad"]
    command += ["--model", tiny_model_folder, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"] == 30
    assert "embed: added .obsm['X_sccello']" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert again.returncode == 1
    assert again.stdout == ""
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr
