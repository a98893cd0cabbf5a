"""Each of sixty mistakes raises the intended exception, whose message contains the offending value and the remedy."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from sccello_tools import errors

_spec = importlib.util.spec_from_file_location("mistakes", Path(__file__).with_name("mistakes.py"))
mistakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mistakes)


@pytest.fixture(scope="module")
def names(tiny_model_folder, tmp_path_factory):
    found = mistakes.scene(tmp_path_factory.mktemp("mistakes"), tiny_model_folder)
    yield found
    found["backed"].file.close()


def test_there_are_sixty() -> None:
    assert len(mistakes.MISTAKES) >= 60
    assert len({mistake.code for mistake in mistakes.MISTAKES}) == len(mistakes.MISTAKES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mistake", mistakes.MISTAKES, ids=lambda mistake: mistake.what)
def test_mistake(mistake, names) -> None:
    error, message = mistakes.attempt(mistake, names)
    assert error == mistake.error, message
    assert issubclass(getattr(errors, error), errors.ScCelloError)
    assert re.search(mistake.value, message, re.DOTALL), message
    assert re.search(mistake.remedy, message, re.DOTALL), message
