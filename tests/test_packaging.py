"""Files for package managers, containers and workflow engines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import anndata
import pytest
import yaml

import sccello_tools as sccello

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MODULE = ROOT / "packaging" / "nf-core" / "sccello" / "annotate"
YAML_FILES = [
    *sorted((ROOT / ".github").rglob("*.yml")),
    ROOT / ".readthedocs.yaml",
    ROOT / "codecov.yml",
    MODULE / "meta.yml",
    MODULE / "environment.yml",
]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_is_valid(path: Path) -> None:
    assert yaml.safe_load(path.read_text("utf-8"))


def test_workflows_call_existing_targets() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z -]+):", makefile, re.MULTILINE))
    targets = {name for group in targets for name in group.split()}
    matrix = {"lowest", "newest", "pre-release"}
    called: set[str] = set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        called |= set(re.findall(r"make ([a-z-]+)$", path.read_text("utf-8"), re.MULTILINE))
    called |= {f"test-{name}" for name in matrix}
    assert called <= targets


def test_tested_python_versions_include_the_lowest_supported() -> None:
    lowest = PROJECT["requires-python"].removeprefix(">=")
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf-8"))
    versions = [
        row["python"] for row in workflow["jobs"]["versions"]["strategy"]["matrix"]["include"]
    ]
    assert lowest in versions


def test_containers_run_offline_and_not_as_root() -> None:
    stages = (ROOT / "Dockerfile").read_text("utf-8").split("\nFROM ")[1:]
    final = [stage for stage in stages if " AS build" not in stage.splitlines()[0]]
    assert len(final) == 2
    for stage in final:
        assert re.search(r"^USER sccello$", stage, re.MULTILINE)
        assert "SCCELLO_OFFLINE=1" in stage
        assert 'ENTRYPOINT ["sccello"]' in stage


def test_recipe_has_the_dependencies_of_the_package() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "conda_recipe.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text("utf-8")
    assert recipe == done.stdout, "run scripts/conda_recipe.py > packaging/conda/recipe.yaml"


def test_nextflow_versions_agree() -> None:
    environment = yaml.safe_load((MODULE / "environment.yml").read_text("utf-8"))
    assert environment["dependencies"] == [f"bioconda::sccello-tools={PROJECT['version']}"]


def _script_block(block: str) -> str:
    """Return a shell block of the module with its Groovy variables filled in."""
    text = (MODULE / "main.nf").read_text("utf-8")
    found = re.search(rf"^    {block}:.*?\"\"\"\n(.*?)\"\"\"", text, re.DOTALL | re.MULTILINE)
    assert found
    values = {
        "task.cpus": "1",
        "task.process": "SCCELLO_ANNOTATE",
        "h5ad": "cells.h5ad",
        "prefix": "cells_annotated",
        "args": "--alpha 0.2",
    }
    script = found[1]
    for name, value in values.items():
        script = script.replace("${" + name + "}", value)
    assert "${" not in script.replace("\\$", "")
    # Nextflow removes the common indentation and turns \$ into $
    lines = [line.removeprefix("    ") for line in script.splitlines()]
    return "\n".join(lines).replace("\\$", "$").replace("\n    END_VERSIONS", "\nEND_VERSIONS")


def test_the_script_block_of_the_nextflow_module_runs(tmp_path: Path) -> None:
    sccello.datasets.pancreas_tritschler()[:40].copy().write_h5ad(tmp_path / "cells.h5ad")
    binaries = Path(sys.executable).parent
    script = f'export PATH="{binaries}:$PATH"\nset -euo pipefail\n{_script_block("script")}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "cells_annotated.json").read_text("utf-8"))
    assert summary["annotated"] == 40
    annotated = anndata.read_h5ad(tmp_path / "cells_annotated.h5ad")
    assert annotated.obs["sccello_cell_type"].notna().all()
    versions = yaml.safe_load((tmp_path / "versions.yml").read_text("utf-8"))
    assert versions == {"SCCELLO_ANNOTATE": {"sccello-tools": PROJECT["version"]}}


def test_the_stub_of_the_nextflow_module_writes_the_same_files(tmp_path: Path) -> None:
    subprocess.run(["bash", "-c", _script_block("stub")], cwd=tmp_path, check=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cells_annotated.h5ad", "cells_annotated.json", "versions.yml"}
