"""Print the conda recipe, with the dependencies of pyproject.toml under their conda names.

python scripts/conda_recipe.py > packaging/conda/recipe.yaml
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
CONDA_NAME = {"igraph": "python-igraph", "matplotlib": "matplotlib-base", "torch": "pytorch"}
TEMPLATE = """\
# conda recipe (rattler-build), written by scripts/conda_recipe.py. At release, `path` becomes the url and sha256 of the sdist.
context:
  version: "{version}"

package:
  name: sccello-tools
  version: ${{{{ version }}}}

source:
  path: ../../dist/sccello_tools-${{{{ version }}}}.tar.gz

build:
  number: 0
  noarch: python
  script: ${{{{ PYTHON }}}} -m pip install . -vv --no-deps --no-build-isolation
  python:
    entry_points:
      - sccello = sccello_tools.cli:main

requirements:
  host:
    - python ${{{{ python_min }}}}.*
    - pip
    - {build}
  run:
    - python >=${{{{ python_min }}}}
{run}

tests:
  - python:
      imports: [sccello_tools]
      python_version: ${{{{ python_min }}}}.*
  - script:
      - sccello --version
      - sccello models

about:
  license: BSD-3-Clause
  license_file: LICENSE
  summary: {summary}
"""


def conda(requirement: str) -> str:
    """Translate a requirement of pip: name, without extras, and bound."""
    name, bound = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(.*)", requirement).groups()
    return f"{CONDA_NAME.get(name, name)} {bound}".strip()


def main() -> None:
    metadata = tomllib.loads(PYPROJECT.read_text("utf-8"))
    project = metadata["project"]
    print(
        TEMPLATE.format(
            version=project["version"],
            build=conda(metadata["build-system"]["requires"][0]),
            run="\n".join(f"    - {conda(text)}" for text in project["dependencies"]),
            summary=project["description"],
        ),
        end="",
    )


if __name__ == "__main__":
    main()
