"""Names of cell lines and drugs, which every source writes in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sccello_tools.errors import ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


class Found(NamedTuple):
    """What became of the names that were looked for."""

    names: dict[str, str]
    """The name there is, by the name that was given."""
    absent: list[str]
    """Given names that fit nothing."""
    ambiguous: list[str]
    """Given names that fit one that another given name fits, too, none of them being written the same."""


class Matcher:
    """Finds names by their letters and digits, whatever the case.

    Parameters
    ----------
    there
        The names to find.
    what
        What they are, for messages.

    Raises
    ------
    ResponseError
        If two of the names have the same letters and digits.
    """

    def __init__(self, there: pd.Index[str], *, what: str) -> None:
        self._by_key: dict[str, str] = {}
        for name in there:
            first = self._by_key.setdefault(self.key(name), str(name))
            if first != str(name) or list(there).count(name) > 1:
                msg = f"The {what} have two rows of one name: {first!r} and {str(name)!r}. Give each a name of its own, or keep one of them."
                raise ResponseError(msg)

    @staticmethod
    def key(name: object) -> str:
        """Letters and digits of a name, in capitals."""
        return "".join(letter for letter in str(name).upper() if letter.isalnum())

    def match(self, given: Sequence[str]) -> Found:
        """Find each of several distinct names."""
        by_key: dict[str, list[str]] = {}
        for name in given:
            by_key.setdefault(self.key(name), []).append(name)
        found = Found({}, [], [])
        for key, names in by_key.items():
            there = self._by_key.get(key)
            if there is None:
                found.absent.extend(names)
            elif len(names) == 1:
                found.names[names[0]] = there
            else:  # KM-H2 and KMH-2 are different lines
                found.ambiguous.extend(name for name in names if name != there)
                found.names.update({name: there for name in names if name == there})
        return found


def clean(name: object) -> str:
    """Take the white space from both ends of a name."""
    return str(name).strip()
