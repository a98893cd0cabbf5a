"""Each of sixty mistakes raises its error, with the message that docs/mistakes.md shows; the page was read as prose."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from sccello_tools import errors

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("mistakes", Path(__file__).with_name("mistakes.py"))
mistakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mistakes)
PAGE = (ROOT / "docs" / "mistakes.md").read_text("utf-8")
# what depends on versions of torch, HDF5 and the like, not on us
FOREIGN = re.compile(
    r"\((Expected one of cpu.*?|Torch not.*?|Found no NVIDIA.*?|Unable to .*?)\)+|Error while deserializing[^.]*"
)


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
def test_a_mistake_is_told(mistake, names) -> None:
    error, message = mistakes.told(mistake, names)
    assert error == mistake.error, message
    assert issubclass(getattr(errors, error), errors.ScCelloError)
    shown = re.search(rf"`{re.escape(mistake.code)}`\n\n```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert shown, "not in docs/mistakes.md: run scripts/write_mistakes.py"
    assert FOREIGN.sub("", f"{error}: {message}") == FOREIGN.sub("", shown[1])
