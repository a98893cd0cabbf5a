"""Options and arguments that several commands have, and what all commands do with their result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sccello_tools.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

Source = Annotated[
    Path, typer.Argument(metavar="IN.h5ad", help="Cells with raw counts, an h5ad file.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="OUT.h5ad", help="File to write.")]
Model = Annotated[
    str, typer.Option(help="Name of a model (see `sccello models`) or a folder that holds one.")
]
Layer = Annotated[
    str | None, typer.Option(help="Layer with raw counts, or 'raw.X'; X if not given.")
]
GeneIds = Annotated[str | None, typer.Option(help="Column of var with Ensembl ids or symbols.")]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda', ...")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for other programs.")]


def print_json(summary: Mapping[str, Any]) -> None:
    """Print a result as one line of JSON; NaN, which JSON does not know, as null."""
    typer.echo(json.dumps(_plain(summary), allow_nan=False))


def check_column(adata: AnnData, key: str, *, option: str) -> None:
    """Refuse the name of a column that is not in obs.

    Raises
    ------
    GroupError
        The message names the option and the columns there are.
    """
    if key not in adata.obs:
        there = ", ".join(map(str, adata.obs.columns[:12])) or "none"
        more = ", ..." if len(adata.obs.columns) > 12 else ""
        msg = f"{option} is {key!r}, but obs has no such column. Its columns: {there}{more}."
        raise GroupError(msg)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return None
    return value
