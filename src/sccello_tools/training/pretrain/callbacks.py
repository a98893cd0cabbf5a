"""Callbacks of a pretraining run: loss curve, stream position, divergence, sharded weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import lightning as L
import pandas as pd

from sccello_tools._logging import logger
from sccello_tools.errors import TrainingError
from sccello_tools.nn import ScCelloModel

from .batch import describe_cells

if TYPE_CHECKING:
    from typing import Any

    from .batch import Batch
    from .datamodule import StreamDataModule

LOSSES = (
    "loss",
    "masked_gene",
    "alignment",
    "coherence",
    "regularization",
    "gene_accuracy",
    "type_accuracy",
)
_LOG_EVERY = 50  # steps
_MEMORY = 50  # batches over which the running mean of the loss is taken


class LossCurve(L.Callback):
    """Records losses and accuracies by step with the elapsed seconds; restored when a run is resumed."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._parts: list[dict[str, float]] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Record the step's values, averaged over its accumulated batches."""
        del pl_module, outputs, batch
        metrics = trainer.callback_metrics
        values = {name: float(metrics[name]) for name in LOSSES if name in metrics}
        sizes = {name: float(metrics[name]) for name in ("cells", "tokens")}  # of all processes
        self._parts.append({**sizes, **values})
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        parts, self._parts = pd.DataFrame(self._parts), []
        row = {name: float(parts[name].mean()) for name in values}
        step = trainer.global_step
        self.rows.append({
            "step": step,
            "seconds": time.monotonic() - self._started,
            "cells": int(parts["cells"].sum()),
            "tokens": int(parts["tokens"].sum()),
            **row,
        })  # fmt: skip
        if step % _LOG_EVERY == 0:
            logger.info("step %d: %s", step, format_scores(row))

    def state_dict(self) -> dict[str, Any]:
        """Return the state stored in a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.rows = list(state_dict["rows"])
        if self.rows:
            self._started = time.monotonic() - self.rows[-1]["seconds"]

    def table(self) -> pd.DataFrame:
        """Return the curve, one row per step."""
        return pd.DataFrame(self.rows)


class StreamPosition(L.Callback):
    """Stores the position of the stream after each batch, so that a checkpoint contains it."""

    def __init__(self, stream: StreamDataModule) -> None:
        self._stream = stream

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Store the position of the next batch."""
        del trainer, pl_module, outputs, batch_idx
        self._stream.position = batch.position


class DivergenceStop(L.Callback):
    """Stops a run whose loss has increased far above its minimum.

    Parameters
    ----------
    factor
        Maximum ratio of the running mean of the loss to its minimum.
    after
        Number of steps without a check: the warm-up.
    source_names
        Names of the sources, for the message.
    """

    def __init__(self, factor: float, *, after: int, source_names: tuple[str, ...]) -> None:
        self._factor, self._after, self._names = factor, after, source_names
        self._mean, self._lowest, self._n = 0.0, float("inf"), 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Check the running mean of the loss.

        Raises
        ------
        TrainingError
            If it is too high.
        """
        del pl_module, outputs, batch_idx
        loss = float(trainer.callback_metrics["loss"])
        self._n += 1
        # an ordinary mean of the first batches, then an exponential one
        self._mean += (loss - self._mean) / min(self._n, _MEMORY)
        step = trainer.global_step
        if self._n < _MEMORY // 2 or step <= self._after:
            return
        self._lowest = min(self._lowest, self._mean)
        if self._mean > self._factor * self._lowest:
            msg = (
                f"The loss diverges at step {step}: its mean over the last {_MEMORY} batches is {self._mean:.4g}, the minimum was "
                f"{self._lowest:.4g}. The last batch, with loss {loss:.4g}, contains {describe_cells(batch, self._names)}. "
                "Reduce learning_rate or gradient_clip and restart from an earlier checkpoint, or increase divergence."
            )
            raise TrainingError(msg)

    def state_dict(self) -> dict[str, Any]:
        """Return the state stored in a checkpoint."""
        return {"mean": self._mean, "lowest": self._lowest, "n": self._n}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self._mean, self._lowest = state_dict["mean"], state_dict["lowest"]
        self._n = state_dict["n"]


class FullWeights(L.Callback):
    """Gathers the whole model at the end of a run with sharded weights (FSDP)."""

    def __init__(self) -> None:
        self.network: ScCelloModel | None = None
        """The trained model on the main process of a sharded run, otherwise None."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather the shards while the processes are still connected."""
        if not isinstance(trainer.strategy, L.pytorch.strategies.FSDPStrategy):
            return
        weights = trainer.strategy.lightning_module_state_dict()  # all processes take part
        if not trainer.is_global_zero:
            return
        network = ScCelloModel(cast("ScCelloModel", pl_module.network).config)
        network.load_state_dict({
            name.removeprefix("network."): value
            for name, value in weights.items()
            if name.startswith("network.")
        })  # fmt: skip
        self.network = network


def format_scores(scores: dict[str, float]) -> str:
    """Return scores as text for the log."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
