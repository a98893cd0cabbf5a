"""Keep the best epoch's weights, and take down the curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
import pandas as pd
import torch

from sccello_tools._logging import logger

if TYPE_CHECKING:
    from .config import Monitor


class BestEpoch(L.Callback):
    """Holds the trained weights of the best epoch in memory and puts them back at the end.

    Parameters
    ----------
    monitor
        Which score of the held-out cells decides.
    floor
        Score and loss to be better than, where the weights at the start are already good; those are then kept unless an epoch beats
        them. The loss decides between equal scores.
    """

    def __init__(self, monitor: Monitor, floor: tuple[float, float] | None = None) -> None:
        self._name, self._sign = f"validation_{monitor}", -1.0 if monitor == "loss" else 1.0
        self._has_floor = floor is not None
        self._best = (-float("inf"), -float("inf"))
        if floor is not None:
            self._best = (self._sign * floor[0], -floor[1])
        self._weights: dict[str, torch.Tensor] = {}
        self.epoch = 0
        """The epoch that is kept, from 1; 0 is the start."""
        self.rows: list[dict[str, float]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights of the start, where they have to be beaten."""
        del trainer
        if self._has_floor:
            self._keep(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take down the epoch's scores, and its weights if it is the best so far."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **values})
        logger.info(
            "epoch %d: %s",
            epoch,
            ", ".join(f"{name} {value:.3f}" for name, value in values.items()),
        )
        found = (self._sign * values[self._name], -values["validation_loss"])
        if found > self._best:
            self._best, self.epoch = found, epoch
            self._keep(pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the best weights back."""
        del trainer
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if name in self._weights:
                    parameter.copy_(self._weights[name])

    def table(self) -> pd.DataFrame:
        """Return the curve, one row an epoch."""
        return pd.DataFrame(self.rows)

    def _keep(self, module: L.LightningModule) -> None:
        self._weights = {
            name: parameter.detach().clone()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
