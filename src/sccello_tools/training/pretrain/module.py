"""The training step: three losses and a regulariser on packed cells (METHOD: Losses)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch

from sccello_tools.errors import ConfigError, TrainingError
from sccello_tools.nn import losses, resolve_attention

from .activations import cell_by_cell, encode_hidden
from .config import PretrainConfig
from .parallel import gather_rows, n_processes, sum_over_processes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.nn.losses import MaskedTokens

    from .batch import Batch


_DEFAULTS = PretrainConfig().to_dict()


def describe_cells(batch: Batch, names: Sequence[str], *, at_most: int = 5) -> str:
    """Name the first cells of a batch by source and row."""
    rows: dict[str, list[int]] = {}
    for source, row in zip(batch.sources.tolist(), batch.rows.tolist(), strict=True):
        name = names[source] if source < len(names) else f"source {source}"
        rows.setdefault(name, []).append(row)
    said = []
    for name, found in rows.items():
        more = f" and {len(found) - at_most} more" if len(found) > at_most else ""
        said.append(f"{name} rows {', '.join(map(str, found[:at_most]))}{more}")
    return "; ".join(said)


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
    source_names
        Names of the sources of cells by number, for messages.
    """

    levels: torch.Tensor
    ancestors: torch.Tensor

    def __init__(
        self,
        network: ScCelloModel,
        config: PretrainConfig,
        levels: torch.Tensor,
        ancestors: torch.Tensor,
        source_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.network, self.config, self.source_names = network, config, tuple(source_names)
        for name, parameter in network.named_parameters():
            if name.startswith("binary_ce_loss_"):
                # nothing uses them, and DDP waits for the gradient of whatever wants one
                parameter.requires_grad_(False)  # noqa: FBT003 - torch's signature
        self._matrices = frozenset(name for name, p in self.named_parameters() if p.ndim >= 2)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("ancestors", ancestors, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the weighted sum of the losses of one batch."""
        step, part = self.global_step, batch_idx % self.config.accumulate
        # dropout by step: a resumed run drops what it would have; other on each device of a parallel run
        torch.manual_seed(
            step_seed(self.config.seed, step * self.config.accumulate + part, self.global_rank)
        )
        parts = self.losses(batch, step=step, part=part)
        weights = {
            "masked_gene": self.config.weight_masked_gene,
            "alignment": self.config.weight_alignment,
            "coherence": self.config.weight_coherence,
            "regularization": self.config.weight_regularization,
        }
        total = torch.stack([weights[name] * parts[name] for name in weights]).sum()
        # of all processes, so that all of them stop at a loss that is no number
        sizes = total.new_tensor([len(batch.cell_types), len(batch.ids)])
        values = torch.cat([torch.stack([total, *parts.values()]).detach(), sizes])
        *sums, n_cells, n_tokens = sum_over_processes(values).tolist()
        found = {
            name: value / n_processes() for name, value in zip(["loss", *parts], sums, strict=True)
        }
        if not math.isfinite(found["loss"]):
            raise TrainingError(self._no_number(batch, step, total, {n: found[n] for n in weights}))
        self.log_dict(
            {**found, "cells": n_cells, "tokens": n_tokens}, batch_size=len(batch.cell_types)
        )
        return total

    def losses(self, batch: Batch, *, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """Compute the losses and accuracies of one batch.

        The gene loss and the cell losses share one pass over the masked cells, as published. With several processes, each value is this
        process's share, and the mean of the shares is the value over the cells of all: a process with more masked tokens counts for
        more, and cells are aligned to those of all processes.
        """
        network, config = self.network, self.config
        masked, generator = self._masked(batch, step, part)
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
        if not len(masked.positions):  # all processes must have gradients for the same weights
            masked_gene = masked_gene + 0 * sum(p.sum() for p in network.cls.parameters())
        at_cls = batch.cu_seqlens[:-1].long()
        cells = network.cell_representation(hidden[at_cls])
        again = cells
        if config.second_pass:
            again = network.cell_representation(self._hidden(batch, masked.inputs, cls_only=True))
        types = batch.cell_types
        others, all_types = gather_rows(cells), gather_rows(types)
        alignment = losses.ontology_alignment_terms(
            cells,
            others.rows,
            again,
            self.levels[types][:, all_types.rows],
            self.ancestors[types][:, all_types.rows],
            tau=config.tau,
            first=others.first,
        )
        prototypes = network.learned_centroid.weight[: len(self.levels)]
        coherence, type_accuracy = losses.coherence_loss(cells, prototypes, types, tau=config.tau)
        regularization = losses.prototype_regularization(
            cells, prototypes, types, affine=network.affine_projection, tau=config.tau
        )
        counts = torch.tensor(
            [len(masked.positions), len(types)], dtype=torch.float32, device=cells.device
        )
        totals = sum_over_processes(torch.cat([counts, alignment.n_terms[None]]))
        n = n_processes()
        tokens_share, cells_share = (n * counts / totals[:2].clamp(min=1)).unbind()
        return {
            "masked_gene": masked_gene * tokens_share,
            "alignment": alignment.total * n / totals[2].clamp(min=1),
            "coherence": coherence * cells_share,
            "regularization": regularization * cells_share,
            "gene_accuracy": gene_accuracy * tokens_share,
            "type_accuracy": type_accuracy * cells_share,
        }

    def _masked(self, batch: Batch, step: int, part: int) -> tuple[MaskedTokens, torch.Generator]:
        """Choose the tokens to be told, and return the generator for what else is drawn."""
        # a generator by step: the same batch is masked alike in a resumed run
        # on the CPU, so that it is masked alike on every device
        seed = self.config.seed * 1_000_003 + step + (self.global_rank << 40) + (part << 52)
        generator = torch.Generator().manual_seed(seed)
        special = self.network.config
        masked = losses.mask_tokens(
            batch.ids,
            generator=generator,
            mask_id=special.mask_token_id,
            protected_ids=(special.pad_token_id, special.cls_token_id),
            random_range=(special.mask_token_id + 1, special.cls_token_id),
            probability=self.config.mask_probability,
        )
        return masked, generator

    def _hidden(
        self, batch: Batch, inputs: torch.Tensor, *, cls_only: bool = False
    ) -> torch.Tensor:
        dtype = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32
        dropout_p = self.config.attention_dropout
        attention = resolve_attention("auto", inputs.device, dtype, dropout_p=dropout_p)
        if self.config.checkpoint_activations and dropout_p and inputs.device.type == "cpu":
            attention = cell_by_cell(attention)
        return encode_hidden(
            self.network.encoder,
            inputs,
            batch.cu_seqlens,
            batch.max_seqlen,
            attention=attention,
            cls_only=cls_only,
            recompute=self.config.checkpoint_activations,
        )

    def _no_number(
        self, batch: Batch, step: int, total: torch.Tensor, found: dict[str, float]
    ) -> str:
        where = "another process's batch"
        if not torch.isfinite(total):
            where = f"the batch of {describe_cells(batch, self.source_names)}"
        loss = sum(found.values())
        return (
            f"The loss is {loss} at step {step} ({found}), on {where}. "
            "Lower learning_rate, or raise warmup_steps; if it is always these cells, look at their counts."
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient, which under FSDP lies in pieces on the devices."""
        clip = getattr(self.trainer.model, "clip_grad_norm_", None)
        if clip is None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip(gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store with a checkpoint what run it belongs to."""
        checkpoint["pretrain_config"] = self.config.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another run."""
        # settings that came after the checkpoint was written had their defaults
        found = {**_DEFAULTS, **checkpoint.get("pretrain_config", {})}
        differing = {
            key: (found[key], value)
            for key, value in self.config.to_dict().items()
            if found[key] != value
        }
        if differing:
            msg = (
                f"The checkpoint belongs to another run; settings (there, here): {differing}. "
                "Give another checkpoint_dir, or the settings of that run."
            )
            raise ConfigError(msg)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and cosine decay; matrices decay, vectors do not."""
        # by name: under FSDP parameters have lost their shape by now
        learning = [
            (name.replace("_fsdp_wrapped_module.", ""), p)
            for name, p in self.named_parameters()
            if p.requires_grad
        ]
        matrices = [p for name, p in learning if name in self._matrices]
        vectors = [p for name, p in learning if name not in self._matrices]
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
