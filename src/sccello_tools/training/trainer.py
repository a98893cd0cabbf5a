"""Lightning trainers: shared options, loggers, random state, silenced hints, Ctrl-C."""

from __future__ import annotations

import importlib.util
import logging
import math
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lightning as L
import torch

from sccello_tools.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, Final, Literal

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

QUIET_OPTIONS: Final = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "log_every_n_steps": 1,
}
"""Options of ``lightning.Trainer`` for runs that report through this package's log."""

_LOGGER_PACKAGES: Final = {
    "csv": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
}
_IRRELEVANT_WARNINGS: Final = (
    ".*does not have many workers",  # batches are cut from memory
    ".*your dataloader is not resumable",  # batches depend only on the step, which the checkpoint holds
    r".*callbacks used to create the checkpoint.*\[\"ModelCheckpoint",  # another checkpoint_every
    ".*LeafSpec.*is deprecated",  # Lightning's use of torch
)


def check_trainer_options(
    options: Mapping[str, Any], configured: Mapping[str, str], *, owner: str
) -> None:
    """Refuse trainer options that a configuration determines.

    Parameters
    ----------
    options
        The user's ``trainer_kwargs``.
    configured
        Trainer options by name, with the field of the configuration that determines each.
    owner
        Name of the configuration class.

    Raises
    ------
    ConfigError
        If there are any. The message names the fields to set instead.
    """
    if found := sorted(set(options) & set(configured)):
        fields = ", ".join(sorted({configured[name] for name in found}))
        msg = f"trainer_kwargs contains {', '.join(found)}, which {owner} determines. Set there: {fields}."
        raise ConfigError(msg)


def as_callbacks(given: L.Callback | list[L.Callback] | None) -> list[L.Callback]:
    """Return the user's callbacks as a list."""
    return [given] if isinstance(given, L.Callback) else list(given or [])


def make_loggers(names: Sequence[str], folder: Path, *, run_name: str) -> list[Any]:
    """Return Lightning loggers that write to subfolders of a folder.

    Parameters
    ----------
    names
        Any of "csv", "tensorboard" and "wandb".
    folder
        Parent of their folders.
    run_name
        Name of the run in Weights & Biases.

    Raises
    ------
    ConfigError
        If a name is unknown.
    MissingExtraError
        If the package of a logger is not installed.
    """
    from lightning.pytorch import loggers

    made: list[Any] = []
    for name in dict.fromkeys(names):
        if name not in _LOGGER_PACKAGES:
            msg = f"loggers must be any of {', '.join(map(repr, _LOGGER_PACKAGES))}, got {name!r}"
            raise ConfigError(msg)
        packages = _LOGGER_PACKAGES[name]
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            what = f"loggers=[{name!r}]"
            raise MissingExtraError(what, extra="log")
        if name == "csv":
            made.append(loggers.CSVLogger(folder, name="csv"))
        elif name == "tensorboard":
            made.append(loggers.TensorBoardLogger(folder, name="tensorboard", version=""))
        else:
            made.append(loggers.WandbLogger(name=run_name, save_dir=folder))
    return made


def adamw(
    matrices: list[torch.nn.Parameter],
    vectors: list[torch.nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    n_warmup: int,
    n_steps: int,
    decay: Literal["linear", "cosine"],
    betas: tuple[float, float] = (0.9, 0.999),
) -> OptimizerLRScheduler:
    """Return AdamW with linear warm-up and decay to zero; biases and LayerNorm parameters have no weight decay.

    Parameters
    ----------
    matrices, vectors
        Parameters with and without weight decay.
    learning_rate
        Peak learning rate.
    weight_decay
        Weight decay of the matrices.
    n_warmup, n_steps
        Steps of the warm-up and of the whole run.
    decay
        Shape of the decay.
    betas
        Moment coefficients.
    """

    def rate(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        n_decay = max(1, n_steps - n_warmup)
        if decay == "linear":
            return max(0.0, (n_steps - step) / n_decay)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / n_decay)))

    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=betas)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@contextmanager
def lightning_session(seed: int) -> Iterator[None]:
    """Run Lightning with a seeded random state that is restored afterwards, without its hints, and with Ctrl-C intact."""
    with (
        torch.random.fork_rng(range(torch.cuda.device_count())),
        _without_hints(),
        keyboard_interrupts(),
    ):
        torch.manual_seed(seed)
        yield


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C; Lightning raises SystemExit instead and leaves SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error


@contextmanager
def _without_hints() -> Iterator[None]:
    """Silence Lightning's tips and irrelevant warnings; all other warnings are shown."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _IRRELEVANT_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
