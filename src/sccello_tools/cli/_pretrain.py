"""``sccello pretrain``: a training run from a YAML file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sccello_tools.errors import ConfigError

from ._common import Json, print_json

if TYPE_CHECKING:
    from anndata import AnnData


def pretrain(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN.yaml",
            help="Run file; --print-config prints one with all settings.",
            show_default=False,
        ),
    ] = None,
    *,
    print_config: Annotated[
        str | None,
        typer.Option(help="Print a bundled run file, 'published' or 'small', and exit."),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Devices of each node: a number or 'auto'.")
    ] = None,
    num_nodes: Annotated[int | None, typer.Option(help="Number of machines.")] = None,
    strategy: Annotated[str | None, typer.Option(help="'auto', 'ddp', 'fsdp', ...")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume from the last checkpoint, or start if there is none."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the model in the output folder and start from step 0."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Pretrain a model as described in a YAML file with data, output, devices and configuration.

    [bold]Examples[/bold]

    sccello pretrain --print-config published > run.yaml

    sccello pretrain run.yaml --devices 8
    """
    if print_config is not None:
        typer.echo(bundled_run(print_config), nl=False)
        return
    if run is None:
        msg = "RUN.yaml is missing. `sccello pretrain --print-config small` prints an example."
        raise typer.BadParameter(msg)

    from sccello_tools import tl
    from sccello_tools.training.pretrain.run_file import RunFile

    plan = RunFile.read(run)
    if max_steps is not None:
        plan = plan.replace(config=plan.config.replace(max_steps=max_steps))
    last = plan.checkpoints / "last.ckpt"
    if last.exists() and not resume:
        if not overwrite:
            msg = f"{last} is the checkpoint of an earlier run. Resume it with --resume, start again with --overwrite, or change out in {run}."
            raise ConfigError(msg)
        last.unlink()
    model = tl.pretrain(
        {name: _cells(path) for name, path in plan.data.items()},
        out=plan.out,
        overwrite=overwrite,
        label_key=plan.label_key,
        layer=plan.layer,
        gene_ids=plan.gene_ids,
        counts=plan.counts,
        min_matched=plan.min_matched,
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
        print_json(summary)
    else:
        typer.echo(
            f"Wrote a model of {len(model.labels):,} cell types to {plan.out}. Embed cells with: sccello embed IN.h5ad -o OUT.h5ad --model {plan.out}"
        )


def bundled_run(name: str) -> str:
    """Return the text of a bundled run file.

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    folder = resources.files("sccello_tools.resources") / "configs"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())
    if name not in names:
        msg = f"No bundled run file {name!r}. Available: {', '.join(map(repr, names))}."
        raise ConfigError(msg)
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def _cells(path: Path) -> AnnData | Path:
    """Read a file of cells; corpora are folders that are opened later."""
    is_store = path.suffix == ".zarr" or any(path.glob("*matrix.mtx*"))
    if path.is_dir() and not is_store:
        return path
    from sccello_tools.files import read_any

    return read_any(path)


def _devices(given: str) -> int | str:
    return int(given) if given.isdigit() else given
