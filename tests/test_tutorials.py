"""Tutorials and pictures of the documentation as files; that they run is tested by the documentation, which executes them (`make docs`, `make tutorials`)."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
from pathlib import Path

import pytest

import sccello_tools

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
# scvi-tools takes long to import, and the one class is tested elsewhere
NAMESPACES = "|".join(sorted(set(sccello_tools.__all__) - {"__version__", "scvi"}))

each_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[str]:
    notebook = json.loads(path.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_documentation_runs_and_lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCCELLO_DOCS_EXECUTE", raising=False)
    settings = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    assert settings["nb_execution_mode"] == "cache"
    assert settings["nb_execution_raise_on_error"] is True
    assert settings["nb_execution_timeout"] <= 180
    index = (ROOT / "docs" / "tutorials" / "index.md").read_text("utf-8")
    toctree = re.findall(r"^\d\d_\S+$", index.split("```{toctree}")[1], re.MULTILINE)
    assert toctree == [path.stem for path in TUTORIALS]
    assert all(f"]({path.name})" in index for path in TUTORIALS)


def test_the_architecture_is_drawn_as_the_contract_has_it() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "draw_architecture.py"))
    picture = ROOT / "docs" / "_static" / "architecture.svg"
    assert picture.read_text("utf-8") == script["draw"](), "run scripts/draw_architecture.py"


@each_tutorial
def test_committed_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert not any(cell["metadata"] for cell in notebook["cells"])
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)


@each_tutorial
def test_says_what_to_expect_and_what_can_go_wrong(path: Path) -> None:
    texts = cells(path, "markdown")
    assert texts[0].startswith("# ")
    assert "**What to expect.**" in texts[0]
    headings = re.findall(r"^#+ (.+)$", "\n".join(texts), re.MULTILINE)
    assert headings[-1] == "What can go wrong"
    assert sum(text.count("\n# ") + text.startswith("# ") for text in texts) == 1, "one title"


@each_tutorial
def test_names_what_exists(path: Path) -> None:
    for dotted in re.findall(
        rf"\bsccello\.((?:{NAMESPACES})(?:\.\w+)*)",
        "\n".join(cells(path, "code") + cells(path, "markdown")),
    ):
        found: object = sccello_tools
        for name in dotted.split("."):
            found = getattr(found, name)
    for link in re.findall(r"\]\(([^)#:]+)\)", "\n".join(cells(path, "markdown"))):
        # a notebook is a page beside the others of docs/tutorials
        page = Path(os.path.normpath(ROOT / "docs" / "tutorials" / link))
        assert page.exists(), link


@each_tutorial
def test_needs_nothing_but_the_package(path: Path) -> None:
    code = "\n".join(cells(path, "code"))
    ast.parse(code)
    strings = {
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not [text for text in strings if text.startswith(("/", "~", "..", "http"))]
    assert not re.search(r"\bdatasets\.(?!pancreas_tritschler|pbmc3k_subsample|gdsc)\w", code)
    assert not re.search(r"^\s*[!%]", code, re.MULTILINE), "no magics: a notebook is Python"
