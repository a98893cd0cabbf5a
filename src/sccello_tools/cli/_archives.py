"""Options of ``sccello annotate`` for files in the formats of archives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def field_options(
    settings: list[str] | None, *, cellxgene: bool, cas: Path | None, out: Path
) -> dict[str, str]:
    """Return the values of ``--set`` by name of the field."""
    if cellxgene and out.suffix.lower() != ".h5ad":
        msg = f"--cellxgene writes .h5ad files only; got --out {out}."
        raise typer.BadParameter(msg)
    if settings and not cellxgene and cas is None:
        msg = "--set applies to --cellxgene and --cas; pass one of them."
        raise typer.BadParameter(msg)
    values = {}
    for setting in settings or []:
        name, separator, value = setting.partition("=")
        if not separator or not name.strip() or not value.strip():
            msg = f"--set requires NAME=VALUE, got {setting!r}."
            raise typer.BadParameter(msg)
        values[name.strip()] = value.strip()
    return values


def check_fields(
    adata: AnnData, values: dict[str, str], *, cellxgene: bool, cas: Path | None
) -> None:
    """Refuse missing fields before the annotation, all at once."""
    from sccello_tools.errors import SchemaError
    from sccello_tools.export import fields

    names = (fields.CELLXGENE if cellxgene else ()) + (
        fields.CELL_ANNOTATION_SCHEMA if cas is not None else ()
    )
    try:
        fields.field_values(adata, values, list(dict.fromkeys(names)))
    except SchemaError as error:
        message = str(error).replace(
            "Pass them as values={name: value}, where '@column'",
            "Pass each as --set NAME=VALUE, where '@column'",
        )
        raise SchemaError(message) from error
