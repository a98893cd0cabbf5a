"""``sccello models``: list models, describe one, upload one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import Json, run_command

models = typer.Typer(rich_markup_mode="rich", no_args_is_help=False)


@models.callback(invoke_without_command=True)
@run_command
def list_models(context: typer.Context, *, as_json: Json = False) -> None:
    """List the models that can be loaded by name, describe one, or upload one.

    `--model` also accepts a folder that `sccello pretrain` wrote, or a repository on the Hugging Face Hub, hf://owner/name@revision.

    [bold]Examples[/bold]

    sccello models

    sccello models --json | jq -r '.[].name'

    sccello models info sccello-zeroshot

    sccello models push my_model owner/my-model --licence CC-BY-4.0
    """
    if context.invoked_subcommand is not None:
        return
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
    for heading in ("name", "available", "cell types", "MB", "licence", "tissue"):
        wraps = heading == "tissue"
        right = heading in {"cell types", "MB"}
        shown.add_column(heading, no_wrap=not wraps, justify="right" if right else "left")
    fields = ["name", "available", "n_cell_types", "size_mb", "licence", "tissue"]
    for name, available, *others in table[fields].itertuples(index=False):
        cells = ["" if value is pd.NA or value is None else escape(str(value)) for value in others]
        shown.add_row(escape(name), "yes" if available else "no", *cells)
    Console().print(shown)


@models.command()
@run_command
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, folder or hf://owner/name.")],
    *,
    as_json: Json = False,
) -> None:
    """Describe a model: source, files with their hashes, size, licence, training data.

    [bold]Examples[/bold]

    sccello models info sccello-zeroshot

    sccello models info my_model --json | jq .licence
    """
    from sccello_tools import models as catalog

    found = catalog.info(model)
    if as_json:
        typer.echo(found.entry.model_dump_json(exclude_none=True))
    else:
        typer.echo(repr(found))


@models.command()
@run_command
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a model.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository to upload to.")],
    *,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, if metadata.json states none.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository.")
    ] = False,
    revision: Annotated[str, typer.Option(help="Branch to commit to.")] = "main",
) -> None:
    """Upload a model to the Hugging Face Hub, with a generated model card.

    Log in before with `hf auth login`, or set HF_TOKEN.

    [bold]Examples[/bold]

    sccello models push my_model owner/my-model --licence CC-BY-4.0
    """
    from sccello_tools.models import push_to_hub

    url = push_to_hub(folder, repo, licence=licence, private=private, revision=revision)
    typer.echo(f"Uploaded in {url}. Use it with: --model hf://{repo.removeprefix('hf://')}")
