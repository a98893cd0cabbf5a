"""``sccello models``: what can be loaded by name."""

from __future__ import annotations

import typer

from ._options import Json


def models(*, as_json: Json = False) -> None:
    """List the models that can be loaded by name.

    A folder that `sccello pretrain` wrote is given to `--model` by its path and is not listed.

    [bold]Examples[/bold]

    sccello models

    sccello models --json | jq -r '.[].name'
    """
    from sccello_tools import models as catalog

    table = catalog.list()
    if as_json:
        typer.echo(table.to_json(orient="records"))
        return
    import pandas as pd
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title="Models", expand=True)
    for heading in ("name", "here", "parameters", "MB", "what it is"):
        shown.add_column(
            heading,
            overflow="fold",
            justify="left" if heading in {"name", "what it is"} else "right",
        )
    for record in table.to_dict("records"):
        shown.add_row(
            escape(record["name"]),
            "yes" if record["available"] else "no",
            "" if pd.isna(record["n_parameters"]) else f"{record['n_parameters']:,}",
            "" if pd.isna(record["size_mb"]) else f"{record['size_mb']:.1f}",
            escape(f"{record['description']} Licence: {record['licence']}."),
        )
    Console().print(shown)
