"""The command line: ``sccello embed | annotate | markers | drug | report | tokenize | pretrain | models | demo``."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from sccello_tools._settings import settings
from sccello_tools.errors import ScCelloError

from ._annotate import annotate
from ._demo import demo
from ._drug import drug
from ._embed import embed
from ._markers import markers
from ._messages import for_the_shell
from ._models import models
from ._pretrain import pretrain
from ._report import report
from ._tokenize import tokenize

app = typer.Typer(
    name="sccello",
    help="Embed cells, name them with Cell Ontology terms, find their marker genes: scCello on AnnData files.",
    epilog="Exit codes: 0 done, 1 the data or the machine (one message says what), 2 the call itself, 130 interrupted. "
    "Results go to standard output, everything else to standard error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        from sccello_tools import __version__

        typer.echo(f"sccello-tools {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    del version  # its callback has answered
    settings.verbosity = "warning" if quiet else "info"
    if offline:
        settings.offline = True


# in the order of a user's way, which is that of the help
_CELLS, _MORE = "Your cells", "Models"
app.command(rich_help_panel=_CELLS)(embed)
app.command(rich_help_panel=_CELLS)(annotate)
app.command(rich_help_panel=_CELLS)(markers)
app.command(rich_help_panel=_CELLS)(drug)
app.command(rich_help_panel=_CELLS)(report)
app.command(rich_help_panel=_MORE)(tokenize)
app.command(rich_help_panel=_MORE)(pretrain)
app.add_typer(models, name="models", rich_help_panel=_MORE)
app.command(rich_help_panel=_MORE)(demo)


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as one line, without the place in the code that it came from."""
    typer.echo(f"sccello: {message}", err=True)


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1, never in a traceback."""
    warnings.showwarning = _say
    try:
        app()
    except (ScCelloError, OSError, ValueError, MemoryError) as error:
        typer.echo(f"sccello: {for_the_shell(str(error)) or type(error).__name__}", err=True)
        sys.exit(1)
