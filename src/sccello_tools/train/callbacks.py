"""What a run remembers of itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import lightning as L
import pandas as pd

from sccello_tools._logging import logger

if TYPE_CHECKING:
    from typing import Any

    from .datamodule import Batch


class LossCurve(L.Callback):
    """Keeps losses and accuracies by step, with seconds since the start, and survives a resumed run."""

    def __init__(self, log_every: int = 50) -> None:
        self.rows: list[dict[str, float]] = []
        self._log_every = log_every
        self._started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Take down the step's values."""
        del pl_module, outputs, batch_idx
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        step = trainer.global_step
        self.rows.append(
            {
                "step": step,
                "seconds": time.monotonic() - self._started,
                "cells": len(batch.cell_types),
                **row,
            }
        )
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
