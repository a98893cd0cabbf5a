"""Make the mistakes of tests/robustness/mistakes.py and write what is said to docs/mistakes.md, to be read as prose."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    mistakes = load(ROOT / "tests" / "robustness" / "mistakes.py")
    fixtures = load(ROOT / "tests" / "conftest.py")

    class Folders:
        def mktemp(self, name: str) -> Path:
            return Path(tempfile.mkdtemp(suffix=name))

    make = fixtures.tiny_model_folder
    tiny = getattr(make, "__wrapped__", None) or make._get_wrapped_function()
    names = mistakes.scene(Path(tempfile.mkdtemp()), tiny(Folders()))
    rows = []
    for mistake in mistakes.MISTAKES:
        error, message = mistakes.told(mistake, names)
        if error != mistake.error:
            print(f"{mistake.what}: {error or 'nothing'}, not {mistake.error}: {message}")
        rows.append((mistake, error, message))
    (ROOT / "docs" / "mistakes.md").write_text(mistakes.render(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
