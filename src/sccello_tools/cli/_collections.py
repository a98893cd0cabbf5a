"""Commands on collections of files: folders of embeddings and annotations instead of one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sccello_tools.errors import ArgumentError

from ._common import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Literal

_FILES = {".h5ad", ".zarr", ".h5"}


def embed_collection(sources: Sequence[Path], out: Path, *, as_json: bool, **options: Any) -> None:
    """Embed the cells of several files into a folder; see :func:`sccello_tools.embed_files`."""
    from sccello_tools import embed_files

    _check_folder(out, "open_embedded(folder).to_anndata() converts it")
    cells = embed_files(list(sources), out, **options)
    summary = {
        "folder": str(out),
        "cells": len(cells),
        "dimensions": cells.shape[1],
        "failed": cells.failures,
        "model": cells.manifest.model,
    }
    if as_json:
        print_json(summary)
        return
    typer.echo(f"{out}: {len(cells):,} cells embedded in {cells.shape[1]} dimensions")


def annotate_collection(
    sources: Sequence[Path], out: Path, *, as_json: bool, **options: Any
) -> None:
    """Annotate the cells of several files into a folder; see :func:`sccello_tools.annotate_files`."""
    from sccello_tools import annotate_files

    _check_folder(out, "with --write-back, copies of the files are written to its folder 'files'")
    found = annotate_files(list(sources), out, **options)
    table = found.summary
    summary: dict[str, Any] = {
        "folder": str(out),
        "cells": int(table["n_cells"].sum()),
        "files": len(found.sources),
        "failed": found.failures,
        "types": table.groupby("sccello_cell_type")["n_cells"].sum().sort_values(ascending=False).to_dict(),
        "model": found.manifest.model,
    }  # fmt: skip
    if as_json:
        print_json(summary)
        return
    for name, n in list(summary["types"].items())[:20]:
        typer.echo(f"{n:>12,}  {name or 'no counts'}")
    typer.echo(
        f"{out}: {summary['cells']:,} cells of {summary['files']:,} files annotated; see summary.csv and cells/"
    )


def on_error(*, skip: bool) -> Literal["raise", "report"]:
    """Return the argument ``errors`` for the option --skip-bad-files."""
    return "report" if skip else "raise"


def _check_folder(out: Path, hint: str) -> None:
    """Refuse the name of a file as the output of a collection."""
    if out.suffix in _FILES:
        msg = f"With several inputs or --workers, the output is a folder, not the file {out}. Pass the name of a folder; {hint}."
        raise ArgumentError(msg)
