from __future__ import annotations

import io
import sys

import pytest

from sccello_tools import settings
from sccello_tools.models._progress import byte_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "wanted", "n_bytes", "shown"),
    [
        (Terminal, True, 50_000_000, True),
        (Terminal, True, None, True),
        (Terminal, True, 1000, False),
        (Terminal, False, 50_000_000, False),
        (io.StringIO, True, 50_000_000, False),
    ],
)
def test_a_bar_is_shown_for_big_files_in_a_terminal_only(
    monkeypatch, stream, wanted, n_bytes, shown
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(settings, "progress", wanted)
    monkeypatch.setattr(sys, "stderr", stream())
    with byte_progress("weights.bin", n_bytes) as report:
        report(500)
    assert ("weights.bin" in sys.stderr.getvalue()) == shown
