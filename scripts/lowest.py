"""Print the lower bounds of pyproject.toml as a constraints file: what `make test-lowest` installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9][^,; ]*)")


def bounds() -> dict[str, str]:
    """Lowest version of each dependency, of the package and of its tests; the higher one where both say one."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["scale"]]
    wanted += [text for text in project["dependency-groups"]["test"] if isinstance(text, str)]
    found: dict[str, str] = {}
    for text in wanted:
        name, version = BOUND.match(text).groups()
        if tuple(map(int, re.findall(r"\d+", version))) > tuple(
            map(int, re.findall(r"\d+", found.get(name, "0")))
        ):
            found[name] = version
    return found


if __name__ == "__main__":
    for name, version in sorted(bounds().items()):
        minor = version if "." in version else f"{version}.0"
        print(f"{name}=={minor}.*")  # with its patches, as some first releases have no wheels
