"""The project as a whole: versions, import cost, layers, docstrings, examples, pins."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sccello_tools
from sccello_tools import settings

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sccello_tools"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FUNCTIONS = ["annotate_files", "embed_files", "open_embedded"]  # public at the top
NAMESPACES = sorted(set(sccello_tools.__all__) - {"__version__", "settings", *FUNCTIONS})
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES_WITH_EXAMPLES = [
    _module_name(path) for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text("utf-8")
]


# --- versions and files


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert sccello_tools.__version__ == version
    assert citation["version"] == version
    assert headings[0] in {"Unreleased", version}


def test_manifest_at_the_top_is_the_packaged_one() -> None:
    link = ROOT / "weights_manifest.json"
    assert link.is_symlink(), (
        "weights_manifest.json must be a link, so that there is one manifest only"
    )
    assert link.resolve() == SOURCE / "resources" / "weights_manifest.json"
    assert json.loads(link.read_text("utf-8"))


def _group(name: str) -> list[str]:
    entries = PROJECT["dependency-groups"][name]
    return [
        text
        for entry in entries
        for text in ([entry] if isinstance(entry, str) else _group(entry["include-group"]))
    ]


def test_constraints_pin_what_make_installs() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [
        Requirement(text)
        for text in [*PROJECT["project"]["dependencies"], *_group("dev"), *_group("doc")]
    ]
    unpinned = [
        str(requirement)
        for requirement in wanted
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]
    assert not unpinned, "missing from constraints.txt or below the bound: run `make constraints`"


def _imported_packages() -> set[str]:
    nodes = [
        node
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [
        node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    ]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"sccello_tools"}


def test_what_is_imported_is_declared() -> None:
    extras = [
        text for texts in PROJECT["project"]["optional-dependencies"].values() for text in texts
    ]
    declared = {
        canonicalize_name(Requirement(text).name)
        for text in [*PROJECT["project"]["dependencies"], *extras]
    }
    carriers = packages_distributions()
    undeclared = [
        package
        for package in sorted(_imported_packages())
        if not declared & {canonicalize_name(name) for name in carriers.get(package, [package])}
    ]
    assert undeclared == []


# --- layers


def test_import_is_light() -> None:
    code = (
        "import sys, sccello_tools; "
        "print(sorted({'torch', 'lightning', 'scanpy', 'matplotlib', 'numba', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_import_loads_few_modules() -> None:
    code = "import sys; before = set(sys.modules); import sccello_tools; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(done.stdout) < 150  # the standard library's; anndata alone brings more than 500


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed (group dev)")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- documentation


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_api_page_lists_the_namespace(namespace: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert re.search(rf"^( +|\.\. automodule:: )sccello_tools\.{namespace}$", page, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_what_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    names = rf"\bsccello\.((?:{'|'.join([*NAMESPACES, *FUNCTIONS])}|settings)(?:\.\w+)*)"
    for dotted in sorted(set(re.findall(names, text))):
        found: object = sccello_tools
        for name in dotted.split("."):
            found = getattr(found, name)  # an AttributeError names what the document made up
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []


def _sections(doc: str) -> dict[str, str]:
    """Text of each numpydoc section, by title; "" is what comes before the first."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", doc, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def _documented_parameters(section: str) -> list[str]:
    heads = re.findall(r"^(\S.*)$", section, re.MULTILINE)
    return [name.strip(" *") for head in heads for name in head.split(" : ")[0].split(",")]


def _faults(name: str, thing: object) -> list[str]:
    """What a public function or class lacks in its docstring."""
    doc = inspect.getdoc(thing) or ""
    if not doc or doc.startswith(f"{name}("):  # dataclasses and named tuples write their signature
        return [f"{name}: no docstring"]
    if not inspect.isfunction(thing):
        return []
    sections = _sections(doc)
    signature = inspect.signature(thing)
    faults = [
        f"{name}: no {title}" for title in ("Examples",) if ">>> " not in sections.get(title, "")
    ]
    if signature.return_annotation not in {"None", None} and not {"Returns", "Yields"} & set(
        sections
    ):
        faults.append(f"{name}: no Returns")
    if (
        re.search(r"^\s+raise \w+", inspect.getsource(thing), re.MULTILINE)
        and "Raises" not in sections
    ):
        faults.append(f"{name}: no Raises")
    documented = _documented_parameters(sections.get("Parameters", "")) + _documented_parameters(
        sections.get("Other Parameters", "")
    )
    if documented != list(signature.parameters):
        faults.append(
            f"{name}: Parameters are {documented}, the signature has {list(signature.parameters)}"
        )
    return faults


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_public_docstrings_are_complete(namespace: str) -> None:
    module = importlib.import_module(f"sccello_tools.{namespace}")
    assert module.__doc__
    assert module.__all__, "a public module says what is public"
    public = {name: getattr(module, name) for name in module.__all__}
    callables = {
        name: thing
        for name, thing in public.items()
        if inspect.isfunction(thing) or inspect.isclass(thing)
    }
    assert [fault for name, thing in callables.items() for fault in _faults(name, thing)] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_at_the_top_are_documented(name: str) -> None:
    assert _faults(name, getattr(sccello_tools, name)) == []
    assert f"   sccello_tools.{name}\n" in (ROOT / "docs" / "api.md").read_text("utf-8")


@pytest.mark.parametrize("name", MODULES_WITH_EXAMPLES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what an example writes, it writes here
    for attribute, value in {**vars(settings), "cache_dir": tmp_path, "offline": True}.items():
        monkeypatch.setattr(settings, attribute, value)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for example in doctest.DocTestFinder().find(module, name):
        runner.run(example, out=report.append)
    assert runner.tries > 0, "the examples of this module are out of the finder's reach"
    assert runner.failures == 0, "\n".join(report)


def test_every_public_error_derives_from_the_base() -> None:
    from sccello_tools import errors

    raised = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(errors.__all__) == set(raised)
    assert all(issubclass(error, errors.ScCelloError) for error in raised.values())
