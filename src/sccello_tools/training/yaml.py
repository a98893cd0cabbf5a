"""Settings in YAML files: read safely, unknown names refused with what was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a file of names and values.

    Raises
    ------
    ConfigError
        If it is missing, no YAML, or not of names and values.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is no YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        msg = f"{path} holds {type(values).__name__}; expected are names and values, one a line, as in 'max_steps: 1000'"
        raise ConfigError(msg)
    return values


def write_yaml(path: Path | str, values: Mapping[str, Any]) -> None:
    """Write names and values in the order given, whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def refuse_unknown(names: Iterable[str], known: Sequence[str], what: str) -> None:
    """Raise for names that are not known.

    Raises
    ------
    ConfigError
        Listing them, with the nearest known name where one is near.
    """
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    said = []
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        said.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    msg = f"Unknown settings of {what}: {', '.join(said)}. Known are: {sorted(known)}."
    raise ConfigError(msg)
