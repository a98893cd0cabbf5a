"""The fine-tuning step: cross-entropy of a linear layer on ``<cls>`` rows, frozen or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from torch.nn import functional

from sccello_tools.errors import TrainingError
from sccello_tools.nn import resolve_attention

from .data import FeatureBatch

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import nn

    from sccello_tools.nn import ScCelloModel

    from .config import FinetuneConfig
    from .data import TokenBatch


class FinetuneModule(L.LightningModule):
    """A classifier of cells.

    Logs ``train_loss``, ``validation_loss``, ``validation_accuracy`` and ``validation_macro_f1`` once an epoch.

    Parameters
    ----------
    head
        The linear layer: a row a label.
    config
        Schedule.
    learning_rate
        Its peak.
    network
        The encoder, where it is to learn too; its parameters that need a gradient are trained.
    label_weights
        (n_labels,) what a cell of each label counts.
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
        # truth by prediction, and summed cross-entropy and cells, of the held-out cells of an epoch
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
            msg = f"The loss is {float(loss.detach())} at step {self.global_step}. Lower learning_rate, or raise warmup."
            raise TrainingError(msg)
        n_cells = len(batch.codes)
        self.log("train_loss", loss.detach(), batch_size=n_cells, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: FeatureBatch | TokenBatch, batch_idx: int) -> None:
        """Count right and wrong answers for held-out cells."""
        del batch_idx
        logits = self(batch)
        n_labels = self.head.out_features
        pairs = batch.codes * n_labels + logits.argmax(dim=1)
        self.confusion += torch.bincount(pairs, minlength=n_labels**2).view(n_labels, n_labels)
        loss = functional.cross_entropy(logits, batch.codes, reduction="sum")
        self.losses += torch.stack([loss, loss.new_tensor(float(len(batch.codes)))])

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the held-out cells, over all devices."""
        # cells that a parallel run repeats to give each device as many count twice; of hundreds that is next to nothing
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
        """AdamW with warm-up and linear decay; matrices decay, vectors do not."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {
                "params": [p for p in trained if p.ndim >= 2],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        n_steps = int(self.trainer.estimated_stepping_batches)
        n_warmup = round(self.config.warmup * n_steps)

        def rate(step: int) -> float:
            if step < n_warmup:
                return (step + 1) / n_warmup
            return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def macro_f1(confusion: torch.Tensor) -> torch.Tensor:
    """Mean F1 over the labels that (n_labels, n_labels) counts of truth by prediction hold, in truth or prediction."""
    right = confusion.diagonal()
    given_or_found = confusion.sum(dim=0) + confusion.sum(dim=1)
    there = given_or_found > 0
    return (2 * right[there] / given_or_found[there]).mean()
