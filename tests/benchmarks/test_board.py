"""The board of benchmarks: it keeps what scripts print, and the page holds that and nothing else."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

SCRIPT = """
from _common import print_table
print_table("Things a second", ["thing", "rate"], [["ours", "3"], ["the|other", "1"]], "A note.")
"""


@pytest.fixture
def board(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("board")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "PAGE", tmp_path / "docs" / "benchmarks.md")
    yield module
    for name in ("board", "_common"):
        sys.modules.pop(name, None)


@pytest.fixture
def scripts(board, monkeypatch, tmp_path):
    """Two benchmarks in a folder of their own: one prints a table, one fails."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "_common.py").write_text((BENCHMARKS / "_common.py").read_text())
    (folder / "good.py").write_text(SCRIPT)
    (folder / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(board, "HERE", folder)
    entries = tuple(
        board.Entry(board.SPEED, name, f"About {name}.", quick=(), takes_data=False)
        for name in ("good", "bad")
    )
    monkeypatch.setattr(board, "ENTRIES", entries)
    return entries


def run_main(board, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["board.py", *arguments])
    board.main()


def test_every_entry_has_its_script_and_every_script_its_entry(board):
    listed = {entry.script for entry in board.ENTRIES} | set(board.ELSEWHERE)
    helpers = {"board", *(p.stem for p in BENCHMARKS.glob("_*.py"))}
    runnable = {
        p.stem
        for p in BENCHMARKS.glob("*.py")
        if p.stem not in helpers and 'if __name__ == "__main__"' in p.read_text()
    }
    assert listed == runnable


def test_a_run_keeps_tables_and_writes_the_page(board, scripts, monkeypatch):
    with pytest.raises(SystemExit, match="printed no table: bad"):
        run_main(board, monkeypatch)
    kept = json.loads((board.RESULTS / "good.json").read_text())
    assert kept["tables"][0]["rows"] == [["ours", "3"], ["the|other", "1"]]
    assert kept["command"] == "python benchmarks/good.py"
    assert not (board.RESULTS / "bad.json").exists()
    page = board.PAGE.read_text()
    assert "| the\\|other | 1 |" in page
    assert "A note." in page
    assert "About bad." not in page


def test_a_quick_run_keeps_nothing(board, scripts, monkeypatch):
    with pytest.raises(SystemExit, match="bad"):
        run_main(board, monkeypatch, "--quick")
    assert not board.RESULTS.exists()
    assert not board.PAGE.exists()


def test_a_page_of_its_own_is_filled_again_and_again(board, tmp_path):
    entry = board.Entry(board.SPEED, "good", "About good.", page="own.md")
    own = tmp_path / "docs" / "own.md"
    own.write_text("# Own\n\n<!-- tables: good -->\n\n## After\n")
    table = {"title": "T", "columns": ["a"], "rows": [["1"]], "notes": [], "machine": "M"}
    result = {"date": "2026-01-01", "commit": "abc", "tables": [table]}
    board.fill_page(entry, result)
    once = own.read_text()
    table["rows"] = [["2"]]
    board.fill_page(entry, result)
    assert own.read_text() == once.replace("| 1 |", "| 2 |")
    assert own.read_text().startswith("# Own\n")
    assert own.read_text().endswith("## After\n")


def test_the_committed_page_is_what_the_kept_results_give(board, monkeypatch):
    committed = BENCHMARKS.parent / "docs" / "benchmarks.md"
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (BENCHMARKS / "results" / "board").glob("*.json")
    }
    assert committed.read_text(encoding="utf-8") == board.page(results)
