"""The training step: three losses and a regulariser on packed cells (arXiv 2408.12373, section 3.3)."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from sccello_tools.errors import ConfigError, TrainingError
from sccello_tools.nn import losses, resolve_attention
from sccello_tools.training.trainer import adamw

from .batch import describe_cells
from .config import PretrainConfig
from .parallel import gather_rows, n_processes, sum_over_processes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from sccello_tools.nn import AttentionFn, Encoder, ScCelloModel
    from sccello_tools.nn.losses import MaskedTokens

    from .batch import Batch


_DEFAULTS = PretrainConfig().to_dict()


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return a distinct seed for each combination of run seed, step and rank."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


class PretrainModule(L.LightningModule):
    """scCello's pretraining objective.

    Each step seeds torch's global generator, which determines dropout, from the seed of the run and its number.

    Parameters
    ----------
    network
        The model to train.
    config
        Losses and schedule.
    levels
        (n_types, n_types) int: ontology similarity level of the column type to the row type.
    ancestors
        (n_types, n_types) bool: whether the column type is an ancestor of the row type, or the same.
    source_names
        Names of the sources, for messages.
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
                # unused; DDP waits for the gradients of all parameters that require one
                parameter.requires_grad_(False)  # noqa: FBT003 - torch's signature
        self._matrices = frozenset(name for name, p in self.named_parameters() if p.ndim >= 2)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("ancestors", ancestors, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the weighted sum of the losses of one batch."""
        step, part = self.global_step, batch_idx % self.config.accumulate
        # the same dropout in a resumed run, different dropout on each device
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
        # over all processes, so that all of them stop at a non-finite loss
        sizes = total.new_tensor([len(batch.cell_types), len(batch.ids)])
        values = torch.cat([torch.stack([total, *parts.values()]).detach(), sizes])
        *sums, n_cells, n_tokens = sum_over_processes(values).tolist()
        found = {
            name: value / n_processes() for name, value in zip(["loss", *parts], sums, strict=True)
        }
        if not math.isfinite(found["loss"]):
            parts_of_loss = {name: found[name] for name in weights}
            raise TrainingError(self._non_finite(batch, step, total, parts_of_loss))
        self.log_dict(
            {**found, "cells": n_cells, "tokens": n_tokens}, batch_size=len(batch.cell_types)
        )
        return total

    def losses(self, batch: Batch, *, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """Compute the losses and accuracies of one batch.

        All losses are computed from one forward pass over the masked cells, as published. With several processes, the mean of this
        method's values over processes equals the value over all cells: a process with more masked tokens has more weight, and cells are
        aligned to the cells of all processes.
        """
        network, config = self.network, self.config
        masked, generator = self._masked(batch, step, part)
        nothing_masked = not config.mask_probability
        hidden = self._hidden(batch, masked.inputs, cls_only=nothing_masked)
        masked_gene, gene_accuracy = losses.masked_gene_loss(
            hidden[masked.positions],
            masked.targets,
            head=network.cls,
            word_embeddings=network.word_embeddings,
            tau=config.tau,
            negatives=config.n_negatives,
            generator=generator,
        )
        if not len(masked.positions):  # all processes need gradients for the same weights
            masked_gene = masked_gene + 0 * sum(p.sum() for p in network.cls.parameters())
        at_cls = hidden if nothing_masked else hidden[batch.cu_seqlens[:-1].long()]
        cells = network.cell_representation(at_cls)
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
        if config.coherence == "ontology":
            strict = self.ancestors & ~torch.eye(
                len(self.ancestors), dtype=torch.bool, device=cells.device
            )
            coherence, type_accuracy = losses.ontology_coherence_loss(
                cells, prototypes, self.ancestors.T[types], strict[types], tau=config.tau
            )
        else:
            coherence, type_accuracy = losses.coherence_loss(
                cells, prototypes, types, tau=config.tau
            )
        regularization = losses.prototype_regularization(
            cells, prototypes, types, affine=network.affine_projection, tau=config.tau
        )
        counts = torch.tensor(
            [len(masked.positions), len(types)], dtype=torch.float32, device=cells.device
        )
        totals = sum_over_processes(torch.cat([counts, alignment.n_terms[None]]))
        n = n_processes()
        token_weight, cell_weight = (n * counts / totals[:2].clamp(min=1)).unbind()
        return {
            "masked_gene": masked_gene * token_weight,
            "alignment": alignment.total * n / totals[2].clamp(min=1),
            "coherence": coherence * cell_weight,
            "regularization": regularization * cell_weight,
            "gene_accuracy": gene_accuracy * token_weight,
            "type_accuracy": type_accuracy * cell_weight,
        }

    def _masked(self, batch: Batch, step: int, part: int) -> tuple[MaskedTokens, torch.Generator]:
        """Mask tokens, and return the generator for the other random choices of the step."""
        # seeded by step and on the CPU: the same masks in a resumed run and on every device
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

    def _non_finite(
        self, batch: Batch, step: int, total: torch.Tensor, found: dict[str, float]
    ) -> str:
        where = "the batch of another process"
        if not torch.isfinite(total):
            where = f"the batch with {describe_cells(batch, self.source_names)}"
        loss = sum(found.values())
        return (
            f"The loss is {loss} at step {step} ({found}), in {where}. "
            "Reduce learning_rate or increase warmup_steps; if the same cells fail repeatedly, check their counts."
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient, which FSDP shards over the devices."""
        clip = getattr(self.trainer.model, "clip_grad_norm_", None)
        if clip is None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip(gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the configuration and the identity of the ontology in the checkpoint."""
        checkpoint["pretrain_config"] = self.config.to_dict()
        checkpoint["ontology_sha256"] = self._ontology_sha256()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another run.

        Raises
        ------
        ConfigError
            If its configuration or its kind of data source differs, or it is not a checkpoint of this package.
        """
        stored = checkpoint.get("pretrain_config")
        if stored is None:
            msg = "The checkpoint was not written by sccello_tools pretraining. Pass another checkpoint_dir."
            raise ConfigError(msg)
        stored = {**_DEFAULTS, **stored}  # fields added since have their defaults
        differing = [
            f"{name}: {stored[name]!r} instead of {value!r}"
            for name, value in self.config.to_dict().items()
            if stored[name] != value
        ]
        if differing:
            msg = (
                f"The checkpoint belongs to a run with other settings ({', '.join(differing)}). "
                "Pass another checkpoint_dir, or the settings of that run."
            )
            raise ConfigError(msg)
        data = type(self.trainer.datamodule).__qualname__  # type: ignore[attr-defined]
        same_ontology = checkpoint["ontology_sha256"] == self._ontology_sha256()
        if data not in checkpoint or not same_ontology:
            what = "cell types, ontology" if not same_ontology else "data in memory or on disk"
            msg = f"The checkpoint belongs to a run with other data ({what}). Pass another checkpoint_dir, or the data of that run."
            raise ConfigError(msg)

    def _ontology_sha256(self) -> str:
        tables = (self.levels, self.ancestors)
        return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in tables)).hexdigest()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and cosine decay; matrices are decayed, vectors are not."""
        # by name: FSDP flattens parameters
        learning = [
            (name.replace("_fsdp_wrapped_module.", ""), p)
            for name, p in self.named_parameters()
            if p.requires_grad
        ]
        return adamw(
            [p for name, p in learning if name in self._matrices],
            [p for name, p in learning if name not in self._matrices],
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            n_warmup=self.config.warmup_steps,
            n_steps=self.config.max_steps,
            decay="cosine",
            betas=(0.9, 0.98),
        )


def encode_hidden(
    encoder: Encoder,
    ids: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    attention: AttentionFn,
    cls_only: bool = False,
    recompute: bool = False,
) -> torch.Tensor:
    """Return the last hidden states, like the encoder.

    Parameters
    ----------
    encoder
        The encoder.
    ids, cu_seqlens, max_seqlen, attention, cls_only
        See :class:`~sccello_tools.nn.Encoder`.
    recompute
        Store only the input of each layer and recompute the layer in the backward pass.
    """
    if not recompute:
        out: torch.Tensor = encoder(
            ids, cu_seqlens, max_seqlen, attention=attention, cls_only=cls_only
        )
        return out
    x = checkpoint(encoder.embed, ids, cu_seqlens, max_seqlen, use_reentrant=False)
    for number, layer in enumerate(encoder.layers, start=1):
        if cls_only and number == len(encoder.layers):
            x = checkpoint(layer.forward_first, x, cu_seqlens, max_seqlen, use_reentrant=False)
        else:
            x = checkpoint(layer, x, cu_seqlens, max_seqlen, attention, use_reentrant=False)
    hidden: torch.Tensor = x
    return hidden


def cell_by_cell(attention: AttentionFn) -> AttentionFn:
    """Run an attention backend on one cell at a time, and recompute it in the backward pass.

    A backend that stores a (length x length) matrix per head and cell, such as torch on a CPU with dropout, then stores those of one
    cell only.
    """

    def run(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        dropout_p: float = 0.0,
    ) -> torch.Tensor:
        del max_seqlen
        outputs = []
        lengths = cu_seqlens.diff().tolist()
        for length, *parts in zip(
            lengths, *(torch.split(x, lengths) for x in (q, k, v)), strict=True
        ):
            bounds = torch.tensor([0, length], dtype=torch.int32, device=q.device)
            outputs.append(
                checkpoint(
                    attention, *parts, bounds, length, dropout_p=dropout_p, use_reentrant=False
                )
            )
        return torch.cat(outputs)

    return run
