"""``sccello demo``: from counts to pictures on shipped cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import Json, Model


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "demo"
    ),
    model: Model = "sccello-small",
    as_json: Json = False,
) -> None:
    """Embed and annotate 583 real pancreas cells of a study that the model never saw; draw and score them.

    [bold]Examples[/bold]

    sccello demo

    sccello demo -o pictures --json
    """
    from .demo import run_demo

    run_demo(out, model=model, as_json=as_json)
