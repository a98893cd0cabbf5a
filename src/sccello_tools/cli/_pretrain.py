"""``sccello pretrain``: a whole run from one YAML file."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from anndata import AnnData


def pretrain(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN.yaml",
            help="The run; --print-config shows what it may say.",
            show_default=False,
        ),
    ] = None,
    *,
    print_config: Annotated[
        str | None,
        typer.Option(help="Print a run file to begin with, and end: 'published' or 'small'."),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Devices of each node: a number, or 'auto'.")
    ] = None,
    num_nodes: Annotated[int | None, typer.Option(help="Machines.")] = None,
    strategy: Annotated[str | None, typer.Option(help="'auto', 'ddp', 'fsdp', ...")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint, or start if there is none."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Pretrain a model as a YAML file says: data, output, devices and configuration in one place.

    Example: sccello pretrain --print-config published > run.yaml; sccello pretrain run.yaml --devices 8
    """
    if print_config is not None:
        typer.echo(shipped(print_config), nl=False)
        return
    if run is None:
        msg = (
            "RUN.yaml is missing. `sccello pretrain --print-config small` prints one to begin with."
        )
        raise typer.BadParameter(msg)

    from sccello_tools import tl
    from sccello_tools.training.pretrain.run_file import RunFile

    plan = RunFile.read(run)
    if max_steps is not None:
        plan = replace(plan, config=replace(plan.config, max_steps=max_steps))
    last = plan.checkpoints / "last.ckpt"
    if last.exists() and not resume:
        msg = f"{last} is of an earlier run. Go on from it with --resume, or give another out in {run}."
        raise ConfigError(msg)
    model = tl.pretrain(
        {name: _cells(path) for name, path in plan.data.items()},
        out=plan.out,
        label_key=plan.label_key,
        layer=plan.layer,
        config=plan.config,
        start_from=plan.start_from,
        validation=None if plan.validation is None else _cells(plan.validation),
        checkpoint_dir=plan.checkpoints,
        checkpoint_every=plan.checkpoint_every,
        devices=plan.devices if devices is None else _devices(devices),
        num_nodes=num_nodes or plan.num_nodes,
        strategy=strategy or plan.strategy,
        n_workers=plan.n_workers,
        loggers=plan.loggers,
        weights_dtype=plan.weights_dtype,
    )
    summary = {
        "folder": str(plan.out),
        "name": model.name,
        "cell_types": len(model.labels),
        "steps": plan.config.max_steps,
    }
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(
            f"{plan.out}: a model of {len(model.labels):,} cell types. Embed with: sccello embed IN.h5ad -o OUT.h5ad --model {plan.out}"
        )


def shipped(name: str) -> str:
    """Return the text of a run file that ships.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    folder = resources.files("sccello_tools.resources") / "configs"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())
    if name not in names:
        msg = f"There is no run file {name!r}; there are {', '.join(map(repr, names))}."
        raise ConfigError(msg)
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def _cells(path: Path) -> AnnData | Path:
    """Read an h5ad file; a corpus is opened where it is needed."""
    if path.suffix != ".h5ad":
        return path
    from ._files import read_h5ad

    return read_h5ad(path)


def _devices(given: str) -> int | str:
    return int(given) if given.isdigit() else given
