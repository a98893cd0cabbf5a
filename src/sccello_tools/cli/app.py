"""The command line: ``sccello embed | annotate | markers | perturb | drug | report | tokenize | pretrain | models | demo``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sccello_tools._settings import settings

from ._annotate import annotate
from ._common import run_command
from ._demo import demo
from ._drug import drug
from ._embed import embed
from ._markers import markers
from ._models import models
from ._perturb import perturb
from ._pretrain import pretrain
from ._report import report
from ._tokenize import tokenize

app = typer.Typer(
    name="sccello",
    help="Cell embeddings, Cell Ontology annotation, marker genes and drug response with scCello, for AnnData files.",
    epilog="Exit codes: 0 success, 1 error in the data or the environment, 2 invalid call, 130 interrupted. "
    "Results are written to standard output, everything else to standard error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:  # noqa: FBT001 - signature of typer
    if asked:
        from sccello_tools import __version__

        typer.echo(f"sccello-tools {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only print warnings and errors.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version  # handled by its callback
    settings.verbosity = "warning" if quiet else "info"
    if offline:
        settings.offline = True


# in the order of a typical analysis, which is that of the help
for _command in (embed, annotate, markers, perturb, drug, report):
    app.command(rich_help_panel="Analysis")(run_command(_command))
for _other in (tokenize, pretrain, demo):
    app.command(rich_help_panel="Models")(run_command(_other))
app.add_typer(models, name="models", rich_help_panel="Models")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:  # before a command has started
        sys.exit(130)
