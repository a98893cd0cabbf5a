"""The colour of each category of a column of cell types: by lineage, or the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sccello_tools.errors import ArgumentError

from ._cells_on_map import UNKNOWN
from ._lineage_colours import lineage_colours

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from anndata import AnnData

    from sccello_tools._anndata.terms import TypeColumn

    from ._term_tree import TermTree


def type_colours(
    adata: AnnData,
    key: str,
    column: TypeColumn,
    tree: TermTree,
    palette: Mapping[str, str] | Literal["uns"] | None,
    part_of: Sequence[int],
) -> list[str]:
    """Return a colour a category as ``#rrggbb``; grey for names without a term.

    Parameters
    ----------
    adata
        Where ``"uns"`` looks.
    key
        Column that the categories are of.
    column
        The categories drawn.
    tree
        What they span.
    palette
        Colours by name, or ``"uns"``.
    part_of
        Category drawn for each category of ``adata.obs[key]``.

    Raises
    ------
    ValueError
        If ``adata.uns`` has no colours for all categories, or a colour is none.
    """
    from matplotlib.colors import to_hex

    by_term = lineage_colours(tree)
    colours = [by_term.get(term, UNKNOWN) for term in column.terms]
    if palette is None:
        return colours
    if isinstance(palette, Mapping):
        return [to_hex(palette.get(name, colour)) for name, colour in zip(column.names, colours)]
    kept = list(adata.uns.get(f"{key}_colors", ()))
    if palette != "uns" or len(kept) < len(part_of):
        msg = (
            f"palette is {palette!r}, and adata.uns[{key + '_colors'!r}] has {len(kept)} colours for {len(part_of)} types. "
            "Pass a mapping of names to colours, or leave palette out."
        )
        raise ArgumentError(msg)
    for drawn, colour in zip(reversed(part_of), reversed(kept[: len(part_of)])):
        colours[drawn] = to_hex(colour)  # of types rolled into one, the first's
    return colours
