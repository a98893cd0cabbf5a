"""The training step: the squared error over all measured responses of a batch of lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from sccello_tools.errors import TrainingError

from .drugs import DrugInputs

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from .network import DrugResponseNetwork

_WARMUP = 0.1  # share of the steps


class DrugResponseModule(L.LightningModule):
    """One network of the ensemble in training. Logs ``train_loss`` once an epoch.

    All drugs are encoded once a step, and every line of the batch is compared with every drug at once: a step on 32 lines of 228 drugs sees up to
    7,296 responses at the cost of 32 lines and 228 drugs, but for the last layers.

    Parameters
    ----------
    network
        What to train.
    drugs
        Its drugs, in the order of the responses' columns.
    """

    def __init__(self, network: DrugResponseNetwork, drugs: DrugInputs) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        for name, value in drugs._asdict().items():
            self.register_buffer(f"drug_{name}", value, persistent=False)
        self.losses: list[float] = []
        self._squares, self._n_pairs = 0.0, 0.0
        self.train()

    @property
    def drugs(self) -> DrugInputs:
        """The drugs, on the device of the network."""
        return DrugInputs(*(getattr(self, f"drug_{name}") for name in DrugInputs._fields))

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        """Return the mean squared error of a batch."""
        del batch_idx
        features, responses, measured = batch
        drugs, told = self.network.drug_vectors(self.drugs)
        errors = (self.network.respond(features, drugs) - responses)[measured]
        # what a structure says of a drug's mean is learned beside, for the drugs to come
        loss = (errors**2).mean() + ((told - drugs.offsets) ** 2).mean()
        if not torch.isfinite(loss):
            msg = f"The loss is {float(loss.detach())} at step {self.global_step}. Lower learning_rate."
            raise TrainingError(msg)
        self._squares += float((errors.detach() ** 2).sum())
        self._n_pairs += len(errors)
        return loss

    def on_train_epoch_end(self) -> None:
        """Take down the loss of the epoch."""
        self.losses.append(self._squares / self._n_pairs)
        self.log("train_loss", self.losses[-1])
        self._squares, self._n_pairs = 0.0, 0.0

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay; matrices decay, vectors do not."""
        groups = [
            {
                "params": [p for p in self.parameters() if p.ndim >= 2],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p in self.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate)
        n_steps = int(self.trainer.estimated_stepping_batches)
        n_warmup = max(1, round(_WARMUP * n_steps))

        def rate(step: int) -> float:
            if step < n_warmup:
                return (step + 1) / n_warmup
            return 0.5 + 0.5 * math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def batches_of_lines(
    features: torch.Tensor,
    responses: torch.Tensor,
    measured: torch.Tensor,
    *,
    batch_lines: int,
    seed: int,
) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Walk lines in an order of the seed: (B, n_features), (B, n_drugs) responses and which of them are measured."""
    generator = torch.Generator().manual_seed(seed)
    lines = TensorDataset(features, responses, measured)
    return DataLoader(lines, batch_lines, shuffle=True, generator=generator)
