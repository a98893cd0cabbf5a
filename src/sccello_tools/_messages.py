"""Lists of names in messages."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def listed(values: Iterable[object], *, at_most: int = 5, separator: str = ", ") -> str:
    """Join the first values; "..." stands for the others."""
    shown = [str(value) for value in islice(values, at_most + 1)]
    return separator.join([*shown[:at_most], "..."] if len(shown) > at_most else shown)


def quoted(names: Iterable[object], *, at_most: int = 5) -> str:
    """Join the first names in quotation marks; "..." stands for the others."""
    return listed((repr(str(name)) for name in names), at_most=at_most)
