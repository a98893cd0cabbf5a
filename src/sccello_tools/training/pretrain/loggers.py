"""Loggers by name."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from sccello_tools.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

LoggerName = Literal["csv", "tensorboard", "wandb"]
_NEEDS = {"csv": (), "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}


def make_loggers(names: Sequence[str], folder: Path, *, run_name: str) -> list[Any]:
    """Return Lightning's loggers.

    Parameters
    ----------
    names
        Any of "csv", "tensorboard" and "wandb".
    folder
        Where they write: one folder each below it.
    run_name
        Name of the run, which Weights & Biases shows.

    Raises
    ------
    ConfigError
        If a name is unknown.
    MissingExtraError
        If a logger's package is not installed.
    """
    from lightning.pytorch import loggers

    for name in names:
        if name not in _NEEDS:
            msg = f"loggers names {name!r}; expected are {', '.join(map(repr, _NEEDS))}"
            raise ConfigError(msg)
        wanted = _NEEDS[name]
        if wanted and not any(importlib.util.find_spec(module) for module in wanted):
            what = f"loggers=[{name!r}]"
            raise MissingExtraError(what, extra="log")
    makers: dict[str, Callable[[], Any]] = {
        "csv": lambda: loggers.CSVLogger(folder, name="csv"),
        "tensorboard": lambda: loggers.TensorBoardLogger(folder, name="tensorboard", version=""),
        "wandb": lambda: loggers.WandbLogger(name=run_name, save_dir=folder),
    }
    return [makers[name]() for name in dict.fromkeys(names)]
