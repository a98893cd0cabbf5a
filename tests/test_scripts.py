"""Benchmarks, scripts, tutorials and code blocks of the documentation call functions that exist, with arguments that they accept."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import re
import types
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import sccello_tools

if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "sccello_tools"
# tests that need a GPU are skipped almost everywhere
FOLDERS = ("benchmarks/*.py", "scripts/**/*.py", "tests/gpu/*.py")
SCRIPTS = sorted(path for pattern in FOLDERS for path in ROOT.glob(pattern))
NOTEBOOKS = sorted(ROOT.glob("tutorials/*.ipynb"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]


class Code(NamedTuple):
    """Statements of one file and the folders in which its own imports are looked up."""

    trees: list[ast.Module]
    folders: list[Path]


def of_script(path: Path) -> Code:
    return Code([ast.parse(path.read_text("utf-8"))], [path.parent, path.parent.parent])


def of_notebook(path: Path) -> Code:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    without_magic = [re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE) for source in sources]
    return Code([ast.parse(source) for source in without_magic], [])


def of_page(path: Path) -> Code:
    text = path.read_text("utf-8")
    blocks = re.findall(r"^```(?:python|py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"`(sccello\.[\w.]+\([^`]*\))`", text)  # calls in the text
    blocks = [re.sub(r",\s*\.\.\.(?=[}\]])", "", block) for block in blocks]  # omitted entries
    sources = [
        "".join(example.source for example in doctest.DocTestParser().get_examples(block))
        if block.lstrip().startswith(">>>")
        else block
        for block in blocks
    ]
    # what pages use without an import
    return Code([ast.parse(f"import {PACKAGE} as sccello"), *map(ast.parse, sources)], [])


def top_level_names(path: Path) -> set[str]:
    """Names that a module defines or imports, also under a condition."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def member(module: types.ModuleType, name: str) -> Any:
    """Attribute of a module, or its submodule of that name (ModuleNotFoundError if there is none)."""
    if hasattr(module, name):
        return getattr(module, name)
    return importlib.import_module(f"{module.__name__}.{name}")


class Checker:
    """Resolves the names of this package in a file and checks each call against the signature."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.known: dict[str, Any] = {}
        self.faults: list[str] = []
        nodes = [node for tree in code.trees for node in ast.walk(tree)]
        for node in nodes:
            if isinstance(node, ast.Import):
                self.add_import(node)
            elif isinstance(node, ast.ImportFrom):
                self.add_import_from(node)
        for node in nodes:  # a variable of the same name hides the import
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.known.pop(node.id, None)
            elif isinstance(node, ast.arg):
                self.known.pop(node.arg, None)
        for node in nodes:
            if isinstance(node, ast.Attribute):
                self.resolve(node, report=True)
            elif isinstance(node, ast.Call):
                self.check_call(node)

    def fault(self, node: ast.AST, text: str) -> None:
        self.faults.append(f"line {getattr(node, 'lineno', '?')}: {text}")

    def add_import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                module = importlib.import_module(alias.name)
                self.known[alias.asname or PACKAGE] = module if alias.asname else sccello_tools

    def add_import_from(self, node: ast.ImportFrom) -> None:
        name = node.module or ""
        if name.split(".")[0] == PACKAGE:
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError:
                self.fault(node, f"no module {name}")
                return
            for alias in node.names:
                try:
                    self.known[alias.asname or alias.name] = member(module, alias.name)
                except ModuleNotFoundError:
                    self.fault(node, f"{name} has no {alias.name}")
            return
        for folder in self.code.folders:
            path = folder / f"{name.replace('.', '/')}.py"
            if path.exists():
                missing = {alias.name for alias in node.names} - top_level_names(path)
                for found in sorted(missing):
                    self.fault(node, f"{path.name} has no {found}")
                return

    def resolve(self, node: ast.expr, *, report: bool = False) -> Any:
        """The object that `node` names, or None if it is not of this package or known at run time only."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        owner = self.resolve(node.value)
        if isinstance(owner, types.ModuleType) and owner.__name__.startswith(PACKAGE):
            try:
                return member(owner, node.attr)
            except ModuleNotFoundError:
                if report:
                    self.fault(node, f"{owner.__name__} has no {node.attr}")
        elif inspect.isclass(owner) and owner.__module__.startswith(PACKAGE):
            fields = getattr(owner, "__annotations__", {}) | getattr(owner, "model_fields", {})
            if hasattr(owner, node.attr):
                return getattr(owner, node.attr)
            if report and node.attr not in fields:
                self.fault(node, f"{owner.__name__} has no {node.attr}")
        return None

    def check_call(self, node: ast.Call) -> None:
        function = self.resolve(node.func)
        if not callable(function):
            return
        signature = inspect.signature(function)
        keywords = [keyword.arg for keyword in node.keywords]
        elided = [isinstance(arg, ast.Constant) and arg.value is ... for arg in node.args]
        partial = (
            None in keywords or any(elided) or any(isinstance(a, ast.Starred) for a in node.args)
        )
        positional = [arg for arg, gap in zip(node.args, elided, strict=True) if not gap]
        positional = [arg for arg in positional if not isinstance(arg, ast.Starred)]
        bind = signature.bind_partial if partial else signature.bind
        try:
            bind(*positional, **{name: None for name in keywords if name is not None})
        except TypeError as error:
            self.fault(node, f"{ast.unparse(node.func)}: {error}")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_scripts_call_what_exists(path: Path) -> None:
    assert Checker(of_script(path)).faults == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorials_call_what_exists(path: Path) -> None:
    assert Checker(of_notebook(path)).faults == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_documentation_calls_what_exists(path: Path) -> None:
    assert Checker(of_page(path)).faults == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from sccello_tools.tokens._threads import n_threads", "no module sccello_tools.tokens._"),
        ("from sccello_tools.tokens import no_such", "sccello_tools.tokens has no no_such"),
        ("import sccello_tools as s\ns.tl.no_such(1)", "sccello_tools.tl has no no_such"),
        ("import sccello_tools as s\ns.tl.embed(a, modell='x')", "unexpected keyword argument"),
        ("import sccello_tools as s\ns.tl.embed()", "missing a required argument"),
        ("from sccello_tools.ontology import CellOntology\nCellOntology.lod()", "has no lod"),
    ],
)
def test_the_check_finds_faults(source: str, fault: str) -> None:
    found = Checker(Code([ast.parse(source)], [])).faults
    assert len(found) == 1
    assert fault in found[0]
