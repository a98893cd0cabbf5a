"""Pydantic models whose validation errors are errors of this package, and YAML files of their fields."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import _io
from .errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any, Self

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A fraction in [0, 1), such as a dropout probability."""
Proportion = Annotated[float, Field(ge=0, le=1)]
"""A proportion in [0, 1]."""

_AT_MOST = 5  # errors that one message lists


class Config(BaseModel):
    """Base of configurations: immutable, no conversion of types, unknown fields are errors.

    Raises
    ------
    ConfigError
        If a field is unknown, missing, of the wrong type or out of range; all invalid fields are named.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            raise ConfigError(describe(error, known=type(self).model_fields)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, in the form that :meth:`from_dict` reads."""
        return self.model_dump()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create a configuration from plain values, as read from JSON or YAML."""
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values of some fields, which are validated."""
        return type(self)(
            **{name: getattr(self, name) for name in type(self).model_fields} | changes
        )


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


def describe(error: ValidationError, *, known: Mapping[str, Any] | None = None) -> str:
    """Describe a validation error in one line: the field, the value that was found and what is required.

    Parameters
    ----------
    error
        The error.
    known
        Fields that exist, listed if an unknown one was given.
    """
    faults = error.errors(include_url=False)
    parts = []
    for fault in faults[:_AT_MOST]:
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in fault["loc"])
        place = place.removeprefix(".")
        if fault["type"] == "extra_forbidden":
            near = get_close_matches(place, known or (), n=1)
            parts.append(
                f"unknown field {place!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
            )
        elif fault["type"] == "missing":
            parts.append(f"{place!r} is missing")
        elif fault["type"] == "value_error":
            text = fault["msg"].removeprefix("Value error, ")
            parts.append(f"{place}: {text}" if place else text)
        else:
            text = fault["msg"].replace("Input should", "must", 1)
            if isinstance(fault["input"], str) and fault["type"] == "float_type":
                text += " (in YAML, write 1.0e-3 instead of 1e-3)"
            found = repr(fault["input"])
            parts.append(f"{place} is {found if len(found) < 80 else found[:77] + '...'}, {text}")
    if len(faults) > _AT_MOST:
        parts.append(f"and {len(faults) - _AT_MOST} more")
    text = "; ".join(parts)
    if known and any(fault["type"] == "extra_forbidden" for fault in faults):
        text += f" (fields: {', '.join(known)})"
    return text + "."


def check_at_least(name: str, value: float, minimum: int) -> None:
    """Raise an ArgumentError if the value of an argument is too small."""
    if value < minimum:
        msg = f"{name} must be >= {minimum}, got {value}"
        raise ArgumentError(msg)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise an ArgumentError unless the value of an argument is one of the choices."""
    if value not in choices:
        msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ArgumentError(msg)


def check_alpha(alpha: float) -> None:
    """Check the fraction of wrong terms.

    Raises
    ------
    ConfigError
        If it is not in (0, 1).
    """
    if not 0 < alpha < 1:
        msg = f"alpha must be in (0, 1), got {alpha}; 0.1 allows one wrong term in ten"
        raise ConfigError(msg)
