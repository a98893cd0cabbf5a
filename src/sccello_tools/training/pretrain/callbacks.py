"""What a run remembers of itself, and when it gives up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import lightning as L
import pandas as pd

from sccello_tools._logging import logger
from sccello_tools.errors import TrainingError
from sccello_tools.nn import ScCelloModel

from .module import describe_cells

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
_MEMORY = 50  # steps over which the running mean of the loss forgets


class LossCurve(L.Callback):
    """Keeps losses and accuracies by step, with seconds since the start, and survives a resumed run."""

    def __init__(self, log_every: int = 50) -> None:
        self.rows: list[dict[str, float]] = []
        self._log_every = log_every
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
        """Take down the step's values, means over its batches."""
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
        if step % self._log_every == 0:
            logger.info(
                "step %d: %s", step, ", ".join(f"{name} {value:.3f}" for name, value in row.items())
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.rows = list(state_dict["rows"])
        if self.rows:
            self._started = time.monotonic() - self.rows[-1]["seconds"]

    def table(self) -> pd.DataFrame:
        """Return the curve, one row a step."""
        return pd.DataFrame(self.rows)


class Bookmark(L.Callback):
    """Tells the stream after each batch where it stands, so that a checkpoint can say so."""

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
        """Note the batch that comes next."""
        del trainer, pl_module, outputs, batch_idx
        self._stream.position = batch.position


class DivergenceStop(L.Callback):
    """Ends a run whose loss has climbed far above its lowest and stays there.

    Parameters
    ----------
    factor
        How many times its lowest the running mean of the loss may be.
    after
        Steps before which nothing is judged: the rise of the learning rate.
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
        """Look at the running mean of the loss.

        Raises
        ------
        TrainingError
            If it is too high.
        """
        del pl_module, outputs, batch_idx
        loss = float(trainer.callback_metrics["loss"])
        self._n += 1
        # a plain mean at first, which an exponential one grows out of
        self._mean += (loss - self._mean) / min(self._n, _MEMORY)
        step = trainer.global_step
        if self._n < _MEMORY // 2 or step <= self._after:
            return
        self._lowest = min(self._lowest, self._mean)
        if self._mean > self._factor * self._lowest:
            msg = (
                f"The loss diverges: over the last {_MEMORY} batches it is {self._mean:.4g} on average, and was {self._lowest:.4g}, "
                f"at step {step}. The last batch, with loss {loss:.4g}, is of {describe_cells(batch, self._names)}. "
                "Lower learning_rate or gradient_clip and go on from an earlier checkpoint, or raise divergence."
            )
            raise TrainingError(msg)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"mean": self._mean, "lowest": self._lowest, "n": self._n}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self._mean, self._lowest = state_dict["mean"], state_dict["lowest"]
        self._n = state_dict["n"]


class FullWeights(L.Callback):
    """Collects the whole model at the end of a run whose weights lie in pieces on the devices (FSDP)."""

    def __init__(self) -> None:
        self.network: ScCelloModel | None = None
        """The trained model, on the main process of such a run; else None."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the pieces together, while the processes still talk to each other."""
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
