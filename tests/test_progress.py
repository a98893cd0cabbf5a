"""The progress bar: shown in terminals for long computations only."""

from __future__ import annotations

import io

import pytest

from sccello_tools import settings
from sccello_tools._progress import progress_bar


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal and return what is written to it; call it within the test, because pytest replaces it, too."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def start() -> io.StringIO:
        stream = Terminal()
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    monkeypatch.setattr(settings, "progress", True)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return start


def test_long_work_in_a_terminal(terminal):
    written = terminal()
    with progress_bar("embedding cells", 5_000) as advance:
        advance(3_000)
        advance(2_000)
    assert "embedding cells" in written.getvalue()
    assert "5000/5000" in written.getvalue()


@pytest.mark.parametrize(("total", "wanted"), [(1_999, True), (5_000, False)])
def test_short_work_and_a_bar_that_is_turned_off(terminal, monkeypatch, total, wanted):
    monkeypatch.setattr(settings, "progress", wanted)
    written = terminal()
    with progress_bar("embedding cells", total) as advance:
        advance(total)
    assert written.getvalue() == ""


def test_outside_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(settings, "progress", True)
    with progress_bar("embedding cells", 5_000) as advance:
        advance(5_000)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_an_error_passes_through(terminal):
    terminal()
    with pytest.raises(KeyError, match="inside"), progress_bar("embedding cells", 5_000):
        raise KeyError("inside")
