"""The fine-tuning step: cross-entropy of a linear layer on ``<cls>`` embeddings, with a frozen or trained encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import lightning as L
import pandas as pd
import torch
from torch.nn import functional

from sccello_tools._logging import logger
from sccello_tools.errors import TrainingError
from sccello_tools.nn import resolve_attention
from sccello_tools.training.trainer import adamw

from .data import FeatureBatch

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import nn

    from sccello_tools.nn import ScCelloModel

    from .config import FinetuneConfig, Monitor
    from .data import TokenBatch


class FinetuneModule(L.LightningModule):
    """A classifier of cells.

    Logs ``train_loss``, ``validation_loss``, ``validation_accuracy`` and ``validation_macro_f1`` per epoch.

    Parameters
    ----------
    head
        The linear layer, with one row per label.
    config
        Schedule.
    learning_rate
        Peak learning rate.
    network
        The encoder if it is trained too; its parameters that require a gradient are updated.
    label_weights
        (n_labels,) weight of the cells of each label.
    """

    label_weights: torch.Tensor
    confusion: torch.Tensor
    losses: torch.Tensor

    def __init__(
        self,
        head: nn.Linear,
        config: FinetuneConfig,
        *,
        learning_rate: float,
        network: ScCelloModel | None,
        label_weights: torch.Tensor,
    ) -> None:
        super().__init__()
        self.head, self.network = head, network
        self.config, self.learning_rate = config, learning_rate
        n_labels = head.out_features
        self.register_buffer("label_weights", label_weights.float(), persistent=False)
        # of one epoch's validation cells: truth by prediction; summed cross-entropy and number of cells
        self.register_buffer("confusion", torch.zeros(n_labels, n_labels), persistent=False)
        self.register_buffer("losses", torch.zeros(2), persistent=False)
        self.train()

    def forward(self, batch: FeatureBatch | TokenBatch) -> torch.Tensor:
        """Return (B, n_labels) logits."""
        if isinstance(batch, FeatureBatch):
            hidden = batch.features
        else:
            network = cast("ScCelloModel", self.network)
            dtype = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32
            dropout_p = network.config.attention_dropout if self.training else 0.0
            attention = resolve_attention("auto", batch.ids.device, dtype, dropout_p=dropout_p)
            hidden = network.encode(
                batch.ids, batch.cu_seqlens, batch.max_seqlen, attention=attention
            )
        hidden = functional.dropout(hidden, self.config.dropout, self.training)
        logits: torch.Tensor = self.head(hidden)
        return logits.float()

    def training_step(self, batch: FeatureBatch | TokenBatch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        del batch_idx
        loss = functional.cross_entropy(self(batch), batch.codes, weight=self.label_weights)
        if not torch.isfinite(loss):
            msg = f"The loss is {float(loss.detach())} at step {self.global_step}. Reduce learning_rate or increase warmup."
            raise TrainingError(msg)
        n_cells = len(batch.codes)
        self.log("train_loss", loss.detach(), batch_size=n_cells, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: FeatureBatch | TokenBatch, batch_idx: int) -> None:
        """Update the confusion matrix and the loss of the validation cells."""
        del batch_idx
        logits = self(batch)
        n_labels = self.head.out_features
        pairs = batch.codes * n_labels + logits.argmax(dim=1)
        self.confusion += torch.bincount(pairs, minlength=n_labels**2).view(n_labels, n_labels)
        loss = functional.cross_entropy(logits, batch.codes, reduction="sum")
        self.losses += torch.stack([loss, loss.new_tensor(float(len(batch.codes)))])

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation cells, over all devices."""
        # with several devices, a few cells are repeated to give each device the same number; negligible
        confusion = self.trainer.strategy.reduce(self.confusion.clone(), reduce_op="sum")
        losses = self.trainer.strategy.reduce(self.losses.clone(), reduce_op="sum")
        self.confusion.zero_()
        self.losses.zero_()
        self.log_dict(
            {
                "validation_loss": losses[0] / losses[1],
                "validation_accuracy": confusion.diagonal().sum() / confusion.sum(),
                "validation_macro_f1": macro_f1(confusion),
            }
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and linear decay; matrices are decayed, vectors are not."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        n_steps = int(self.trainer.estimated_stepping_batches)
        return adamw(
            [p for p in trained if p.ndim >= 2],
            [p for p in trained if p.ndim < 2],
            learning_rate=self.learning_rate,
            weight_decay=self.config.weight_decay,
            n_warmup=round(self.config.warmup * n_steps),
            n_steps=n_steps,
            decay="linear",
        )


class BestEpoch(L.Callback):
    """Keeps the weights of the best epoch and restores them at the end; without validation the last weights remain.

    Parameters
    ----------
    monitor
        Validation score that is compared.
    floor
        Score and loss of the initial weights, if they are already trained; they are kept unless an epoch is better. The loss decides
        between equal scores.
    """

    def __init__(self, monitor: Monitor, floor: tuple[float, float] | None = None) -> None:
        self._name, self._sign = f"validation_{monitor}", -1.0 if monitor == "loss" else 1.0
        self._has_floor = floor is not None
        self._best = (-float("inf"), -float("inf"))
        if floor is not None:
            self._best = (self._sign * floor[0], -floor[1])
        self._weights: dict[str, torch.Tensor] = {}
        self._was_validated = self._is_validated = False  # in any epoch; in this epoch
        self.epoch = 0
        """Epoch whose weights are kept, from 1; 0 means the initial weights, or no validation."""
        self.rows: list[dict[str, float]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the initial weights if they have a score."""
        del trainer
        if self._has_floor:
            self._keep(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that this epoch has scores; between validations Lightning reports the previous ones."""
        del pl_module
        if not trainer.sanity_checking:
            self._was_validated = self._is_validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the epoch's scores, and keep its weights if they are the best so far."""
        values = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if self._is_validated or not name.startswith("validation_")
        }
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **values})
        logger.info(
            "epoch %d: %s",
            epoch,
            ", ".join(f"{name} {value:.3f}" for name, value in values.items()),
        )
        if self._is_validated:
            found = (self._sign * values[self._name], -values["validation_loss"])
            if found > self._best:
                self._best, self.epoch = found, epoch
                self._keep(pl_module)
        self._is_validated = False

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the best weights."""
        del trainer
        if not self._was_validated:
            return
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if name in self._weights:
                    parameter.copy_(self._weights[name])

    def table(self) -> pd.DataFrame:
        """Return the curve, one row per epoch."""
        return pd.DataFrame(self.rows)

    def _keep(self, module: L.LightningModule) -> None:
        self._weights = {
            name: parameter.detach().clone()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }


def macro_f1(confusion: torch.Tensor) -> torch.Tensor:
    """Return the mean F1 over labels that occur in truth or prediction, from (n_labels, n_labels) counts of truth by prediction."""
    correct = confusion.diagonal()
    n_cells = confusion.sum(dim=0) + confusion.sum(dim=1)
    used = n_cells > 0
    return (2 * correct[used] / n_cells[used]).mean()
