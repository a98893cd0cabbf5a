"""Types drawn as their ancestors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.terms import TypeColumn
from sccello_tools.errors import ArgumentError

from ._term_tree import TermTree

if TYPE_CHECKING:
    from sccello_tools.ontology import CellOntology


def rolled_up(
    column: TypeColumn, level: int | None, ontology: CellOntology
) -> tuple[TypeColumn, list[int]]:
    """Roll types up to their ancestors so many partings below the top of the tree that they span.

    Returns
    -------
    The column of ancestors, types without a term as they are; and for each category of the given column its index there.

    Raises
    ------
    ValueError
        If ``level`` is negative.
    """
    if level is None:
        return column, list(range(len(column.names)))
    if level < 0:
        msg = f"level is {level}; expected is 0 for the broadest types, or more."
        raise ArgumentError(msg)
    tree = TermTree.of([term for term in column.terms if term], ontology)
    names: list[str] = []
    terms: list[str] = []
    part_of = []
    for name, term in zip(column.names, column.terms):
        above = tree.ancestor_at(term, level) if term else ""
        key = ontology.name(above) if above and above != term else name
        if above and above in terms:
            part_of.append(terms.index(above))
            continue
        part_of.append(len(names))
        names.append(key)
        terms.append(above)
    codes = np.where(column.codes >= 0, np.array([*part_of, -1])[column.codes], -1)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return TypeColumn(tuple(names), tuple(terms), codes, counts), part_of
