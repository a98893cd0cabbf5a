"""The training step: three losses and a regulariser on packed cells (METHOD: Losses)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch

from sccello_tools._errors import ConfigError, TrainingError
from sccello_tools.nn import losses, resolve_attention

if TYPE_CHECKING:
    from typing import Any

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from sccello_tools.nn import ScCelloModel

    from .config import PretrainConfig
    from .datamodule import Batch


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix seed, step and rank into a seed that is unlike that of any other step."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


class PretrainModule(L.LightningModule):
    """scCello's pretraining objective.

    Each step seeds torch's global generator, from which dropout draws, by its number.

    Parameters
    ----------
    network
        The model to train.
    config
        Losses and schedule.
    levels
        (n_types, n_types) int: ontology similarity level of the column type to the row type.
    ancestors
        (n_types, n_types) bool: whether the column type is an ancestor of the row type, or itself.
    """

    levels: torch.Tensor
    ancestors: torch.Tensor

    def __init__(
        self,
        network: ScCelloModel,
        config: PretrainConfig,
        levels: torch.Tensor,
        ancestors: torch.Tensor,
    ) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("ancestors", ancestors, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the weighted sum of the losses of one batch."""
        del batch_idx  # starts anew in a resumed run; the global step goes on
        step = self.global_step
        # dropout by step: a resumed run drops what it would have; other on each device of a parallel run
        torch.manual_seed(step_seed(self.config.seed, step, self.global_rank))
        parts = self.losses(batch, step=step)
        weights = {
            "masked_gene": self.config.weight_masked_gene,
            "alignment": self.config.weight_alignment,
            "coherence": self.config.weight_coherence,
            "regularization": self.config.weight_regularization,
        }
        total = torch.stack([weights[name] * parts[name] for name in weights]).sum()
        if not torch.isfinite(total):
            found = {name: float(parts[name].detach()) for name in weights}
            msg = f"The loss is {float(total.detach())} at step {step} ({found}). Lower learning_rate, or raise warmup_steps."
            raise TrainingError(msg)
        self.log_dict(
            {"loss": total.detach(), **{name: value.detach() for name, value in parts.items()}},
            batch_size=len(batch.cell_types),
        )
        return total

    def losses(self, batch: Batch, *, step: int) -> dict[str, torch.Tensor]:
        """Compute the losses and accuracies of one batch.

        The gene loss and the cell losses share one pass over the masked cells, as published.
        """
        network, config = self.network, self.config
        # a generator by step: the same batch is masked alike in a resumed run
        # on the CPU, so that it is masked alike on every device
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        special = network.config
        masked = losses.mask_tokens(
            batch.ids,
            generator=generator,
            mask_id=special.mask_token_id,
            protected_ids=(special.pad_token_id, special.cls_token_id),
            random_range=(special.mask_token_id + 1, special.cls_token_id),
            probability=config.mask_probability,
        )
        hidden = self._hidden(batch, masked.inputs)
        masked_gene, gene_accuracy = losses.masked_gene_loss(
            hidden[masked.positions],
            masked.targets,
            head=network.cls,
            word_embeddings=network.word_embeddings,
            tau=config.tau,
            negatives=config.n_negatives,
            generator=generator,
        )
        at_cls = batch.cu_seqlens[:-1].long()
        cells = network.cell_representation(hidden[at_cls])
        again = (
            network.cell_representation(self._hidden(batch, masked.inputs)[at_cls])
            if config.second_pass
            else cells
        )
        types = batch.cell_types
        alignment = losses.ontology_alignment_loss(
            cells,
            again,
            self.levels[types][:, types],
            self.ancestors[types][:, types],
            tau=config.tau,
        )
        prototypes = network.learned_centroid.weight[: len(self.levels)]
        coherence, type_accuracy = losses.coherence_loss(cells, prototypes, types, tau=config.tau)
        regularization = losses.prototype_regularization(
            cells, prototypes, types, affine=network.affine_projection, tau=config.tau
        )
        return {
            "masked_gene": masked_gene,
            "alignment": alignment,
            "coherence": coherence,
            "regularization": regularization,
            "gene_accuracy": gene_accuracy,
            "type_accuracy": type_accuracy,
        }

    def _hidden(self, batch: Batch, inputs: torch.Tensor) -> torch.Tensor:
        dtype = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32
        dropout_p = self.config.attention_dropout
        attention = resolve_attention("auto", inputs.device, dtype, dropout_p=dropout_p)
        hidden: torch.Tensor = self.network.encoder(
            inputs, batch.cu_seqlens, batch.max_seqlen, attention=attention
        )
        return hidden

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store with a checkpoint what run it belongs to."""
        checkpoint["pretrain_config"] = self.config.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another run."""
        found, expected = checkpoint.get("pretrain_config", {}), self.config.to_dict()
        differing = {
            key: (found.get(key), value)
            for key, value in expected.items()
            if found.get(key) != value
        }
        if differing:
            msg = (
                f"The checkpoint belongs to another run; settings (there, here): {differing}. "
                "Give another checkpoint_dir, or the settings of that run."
            )
            raise ConfigError(msg)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and cosine decay; matrices decay, vectors do not."""
        matrices = [p for p in self.network.parameters() if p.ndim >= 2]
        vectors = [p for p in self.network.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=self.config.learning_rate,
            betas=(0.9, 0.98),
        )
        warmup, total = self.config.warmup_steps, self.config.max_steps

        def rate(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (
                1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))
            )

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
