"""Print the constraints file: what the project and its groups need, at the versions of this environment.

    .venv/bin/python scripts/pin_constraints.py > constraints.txt

The closure of the project's dependencies and dependency groups is walked through the installed metadata, so that nothing
which merely happens to lie in the environment is pinned. Local version parts ("+cpu") are cut off: which build of
torch is taken is the installing machine's business.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

GROUPS = ("dev", "doc")  # what `make` installs beside the project itself
ALSO = ("pip",)  # groups need pip 25.1, and the venv module brings an older one

HEADER = """\
# Written by scripts/pin_constraints.py: the versions that `make` and CI install. Lower bounds stand in pyproject.toml.
"""


def group_requirements(groups: dict[str, list[str | dict[str, str]]], name: str) -> list[str]:
    """Requirements of a dependency group, with the groups that it includes."""
    found: list[str] = []
    for entry in groups[name]:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += group_requirements(groups, entry["include-group"])
    return found


def closure(roots: list[str]) -> dict[str, str]:
    """Installed version of everything that the requirements reach, by canonical name."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(root), "") for root in roots]
    while todo:
        requirement, parent_extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            pins[name] = Version(version(name)).public
        except PackageNotFoundError:
            sys.exit(f"{requirement} is not installed here: run `make install` first.")
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [(Requirement(text), extra) for text in requires(name) or ()]
    return pins


def main() -> None:
    """Read pyproject.toml beside this folder and print the pins, sorted."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    roots = [*project["project"]["dependencies"], *ALSO]
    for group in GROUPS:
        roots += group_requirements(project["dependency-groups"], group)
    print(HEADER, end="")
    for name, pinned in sorted(closure(roots).items()):
        print(f"{name}=={pinned}")


if __name__ == "__main__":
    main()
