"""What the tests of commands share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from sccello_tools import cli

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Call `main` as the shell does; returns exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sccello", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call
