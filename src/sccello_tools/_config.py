"""Configuration classes: frozen pydantic dataclasses whose errors are ConfigError, and the YAML files that hold them."""

from __future__ import annotations

import dataclasses
import functools
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, dataclass_transform

import numpy as np
import yaml
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from . import _io
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]

# Strict: True is not an integer and "0.1" is not a number, which reveals mistakes in YAML files.
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config_dataclass(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass with validated fields.

    Constraints are part of the annotations, such as :data:`Count`; conditions on several fields belong in ``__post_init__``, which
    raises :class:`~sccello_tools.errors.ConfigError`. All violations are reported in one ``ConfigError``, unknown names with the nearest
    known one.
    """
    made = dataclass(frozen=True, config=_STRICT)(cls)
    validate = made.__init__
    names = [field.name for field in dataclasses.fields(made)]  # type: ignore[arg-type]

    @functools.wraps(validate)
    def __init__(self: T, **values: Any) -> None:  # noqa: N807 - it replaces the generated method
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        try:
            validate(self, **plain)
        except ValidationError as error:
            raise ConfigError(_message(cls.__name__, names, error)) from None

    made.__init__ = __init__  # type: ignore[assignment]
    return made


def suggest(names: Iterable[str], known: Iterable[str]) -> str:
    """List unknown names, each with the nearest known one where there is one."""
    known = list(known)
    shown = []
    for name in names:
        near = get_close_matches(name, known, n=1)
        shown.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return ", ".join(shown)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file of names and values; an empty file gives an empty dictionary.

    Raises
    ------
    ConfigError
        If the file is missing, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not a valid YAML file: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        msg = f"{path} contains a {type(values).__name__}; it must contain names and values, such as 'max_steps: 1000'"
        raise ConfigError(msg)
    return values


def write_yaml(path: Path | str, values: Mapping[str, Any]) -> None:
    """Write names and values in the given order, atomically."""
    _io.write_text(Path(path), yaml.safe_dump(dict(values), sort_keys=False))


def _message(owner: str, names: list[str], error: ValidationError) -> str:
    unknown, problems = [], []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        if found["type"] == "unexpected_keyword_argument":
            unknown.append(where)
        elif found["type"] == "missing":
            problems.append(f"{where} is required")
        elif "error" in found.get("ctx", {}):  # raised by __post_init__
            problems.append(str(found["ctx"]["error"]))
        else:
            required = found["msg"].removeprefix("Input should be ")
            hint = ""
            if isinstance(found["input"], str) and "number" in required:
                hint = " (in YAML, write 1.0e-3 instead of 1e-3)"
            problems.append(f"{where} must be {required}, got {found['input']!r}{hint}")
    if unknown:
        problems.append(
            f"unknown settings of {owner}: {suggest(unknown, names)}. Known are: {', '.join(sorted(names))}"
        )
    return "; ".join(problems)
