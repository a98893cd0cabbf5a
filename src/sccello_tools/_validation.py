"""Pydantic models whose validation errors are errors of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A fraction in [0, 1), such as a dropout probability."""

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
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(describe(error, known=type(self).model_fields)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, in the form that :meth:`from_dict` reads."""
        return self.model_dump()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create a configuration from plain values, as read from JSON or YAML."""
        return cls(**values)


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
            parts.append(f"unknown field {place!r}")
        elif fault["type"] == "missing":
            parts.append(f"{place!r} is missing")
        elif fault["type"] == "value_error":
            text = fault["msg"].removeprefix("Value error, ")
            parts.append(f"{place}: {text}" if place else text)
        else:
            text = fault["msg"].replace("Input should", "must", 1)
            found = repr(fault["input"])
            parts.append(f"{place} is {found if len(found) < 80 else found[:77] + '...'}, {text}")
    if len(faults) > _AT_MOST:
        parts.append(f"and {len(faults) - _AT_MOST} more")
    text = "; ".join(parts)
    if known and any(fault["type"] == "extra_forbidden" for fault in faults):
        text += f" (fields: {', '.join(known)})"
    return text + "."
