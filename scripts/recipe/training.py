"""Training of the encoder on a stream of sampled cells."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from labels.label_space import term_of
from recipe.sampling import Batch

from sccello_tools.engine import autocast, cell_representation, encode
from sccello_tools.nn import (
    EncoderConfig,
    ScCelloModel,
    mask_tokens,
    masked_gene_loss,
    ontology_alignment_loss,
    ontology_coherence_loss,
    prototype_regularization,
)
from sccello_tools.nn.attention import resolve_attention
from sccello_tools.ontology import ancestor_mask, pagerank_rows, similarity_levels
from sccello_tools.tokens import CLS_ID, MASK_ID, PAD_ID, RaggedTokens
from sccello_tools.training.pretrain.initialize import start_spectral

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Literal

    from labels.label_space import Targets
    from recipe.sampling import Sampler

    from sccello_tools.ontology import CellOntology

_START_CELLS = 8_000  # cells of the spectral start
_START_STEP = 10_000_000  # steps from here on are never trained on
LOSSES = ("loss", "masked_gene", "alignment", "coherence", "regularization", "gene_accuracy", "type_accuracy")  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """Size of the encoder, losses and schedule."""

    hidden_size: int = 256
    n_layers: int = 1
    n_heads: int = 4
    max_length: int = 512
    dropout: float = 0.0
    tau: float = 0.05
    embedding_std: float = 0.2
    mask_probability: float = 0.15
    gene_every: int = 2
    """The masked gene loss is computed in every n-th step, and for a part of the cells: it needs all hidden states, the other losses
    `<cls>` only."""
    gene_cells: int = 32
    """Cells of the masked gene loss."""
    n_negatives: int = 2048
    steps: int = 5_000
    batch_cells: int = 128
    crop: float = 0.5
    """Fraction of steps in which cells are truncated to the 25 % quantile of their lengths."""
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    weight_alignment: float = 1.0
    coherence: Literal["published", "ontology"] = "ontology"
    """"published" treats the types of labels as exclusive."""
    seed: int = 0


PRESETS: dict[str, dict[str, Any]] = {
    "sccello-small": {},
    # the published size, with the published number of tokens
    "sccello-base": {"n_layers": 6, "max_length": 2048, "steps": 20_000, "gene_every": 1, "learning_rate": 5e-4},
}  # fmt: skip
"""Fields of :class:`TrainingConfig` by model. `sccello-base` has not been trained: it needs a GPU."""


def new_network(config: TrainingConfig, sampler: Sampler, device: str = "cpu") -> ScCelloModel:
    """Return a network on a device whose gene embeddings are rotated towards the principal components of gene ranks."""
    torch.manual_seed(config.seed)
    network = ScCelloModel(
        EncoderConfig(
            hidden_size=config.hidden_size,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            intermediate_size=2 * config.hidden_size,
            max_positions=config.max_length,
            dropout=config.dropout,
            attention_dropout=0.0,
            n_prototypes=600,
            tau=config.tau,
            initializer_range=0.05,
        )
    )
    encoder = network.encoder
    with torch.no_grad():
        encoder.word_embeddings.weight.normal_(std=config.embedding_std)
        encoder.word_embeddings.weight[PAD_ID] = 0
        encoder.position_embeddings.weight.normal_(std=config.embedding_std / 10)
        encoder.legacy_embeddings.zero_()
    drawn = [sampler(_START_STEP + i, 400) for i in range(_START_CELLS // 400)]
    ids = np.concatenate([row[:n] for batch in drawn for row, n in zip(batch.ids, batch.lengths, strict=True)])  # fmt: skip
    lengths = np.concatenate([batch.lengths for batch in drawn])
    tokens = RaggedTokens(np.concatenate([[0], np.cumsum(lengths)]), ids)
    start_spectral(network, tokens, std=config.embedding_std, seed=config.seed)
    return network.to(device)


def pack(batch: Batch, device: torch.device, *, cropped: bool = False) -> tuple[torch.Tensor, torch.Tensor, int, np.ndarray]:  # fmt: skip
    """Pack cells by decreasing length; also return their order."""
    lengths = batch.lengths
    if cropped:
        lengths = np.minimum(lengths, max(32, int(np.quantile(lengths, 0.25))))
    order = np.argsort(-lengths, kind="stable")
    ids = np.concatenate([batch.ids[i, : lengths[i]] for i in order]).astype(np.int64)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int32)
    return torch.from_numpy(ids).to(device), torch.from_numpy(cu_seqlens).to(device), int(lengths.max()), order  # fmt: skip


def embed(network: ScCelloModel, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return the `cls` and the `cell` representation of ranked cells, (n_cells, d) float32 each."""
    ids = np.concatenate([row[:n] for row, n in zip(batch.ids, batch.lengths, strict=True)])
    tokens = RaggedTokens(np.concatenate([[0], np.cumsum(batch.lengths)]), ids)
    hidden = encode(network, tokens)
    return hidden, cell_representation(network, hidden)


class Trainer:
    """Optimises a network.

    Parameters
    ----------
    network
        The network, modified in place; trained on its device, in bfloat16 where the losses allow it.
    sampler
        Batches.
    targets
        What labels say about types.
    ontology
        For the similarity of types.
    config
        Losses and schedule.
    """

    def __init__(self, network: ScCelloModel, sampler: Sampler, targets: Targets, ontology: CellOntology, config: TrainingConfig) -> None:  # fmt: skip
        self.network, self.sampler, self.config = network, sampler, config
        self.device = next(network.parameters()).device
        self.attention = resolve_attention("auto", self.device, torch.bfloat16)
        terms = tuple(term_of(label) for label in targets.labels)
        unique = tuple(sorted(set(terms)))
        at = np.array([unique.index(term) for term in terms])
        levels = np.asarray(similarity_levels(pagerank_rows(ontology, unique, columns=unique)))
        ancestors = np.asarray(ancestor_mask(ontology, unique, unique))
        self.levels = torch.from_numpy(levels[at][:, at].astype(np.int64)).to(self.device)
        self.ancestors = torch.from_numpy(ancestors[at][:, at].astype(bool)).to(self.device)
        published = config.coherence == "published"
        correct = targets.exact() if published else targets.correct
        self.correct = torch.from_numpy(correct).to(self.device)
        self.ignored = torch.from_numpy(targets.ignored & (not published)).to(self.device)
        named = [(n, p) for n, p in network.named_parameters() if not n.startswith("binary_ce")]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": config.weight_decay},
                {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )  # fmt: skip
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0

    def _rate(self, step: int) -> float:
        warmup = self.config.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.config.steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Compute the losses of one batch."""
        config, network, seed = self.config, self.network, (self.config.seed, self.step)
        cropped = np.random.default_rng((*seed, 7)).random() < config.crop
        ids, cu_seqlens, longest, order = pack(batch, self.device, cropped=cropped)
        labels = torch.from_numpy(batch.labels[order]).to(self.device)
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        at_cls = network.encoder(ids, cu_seqlens, longest, attention=self.attention, cls_only=True)
        cells = network.cell_representation(at_cls).float()
        prototypes = network.learned_centroid.weight[: self.correct.shape[1]]
        correct, ignored = self.correct[labels], self.ignored[labels]
        found = {}
        if self.config.gene_every and self.step % self.config.gene_every == 0:
            found["masked_gene"], found["gene_accuracy"] = self._masked_gene(batch)
        found["alignment"] = ontology_alignment_loss(
            cells, cells, self.levels[labels][:, labels], self.ancestors[labels][:, labels], tau=config.tau
        )  # fmt: skip
        found["coherence"], found["type_accuracy"] = ontology_coherence_loss(
            cells, prototypes, correct, ignored, tau=config.tau
        )
        with (
            torch.no_grad()
        ):  # a cell with a coarse label belongs to the most similar of its possible types
            cosines = cells @ torch.nn.functional.normalize(prototypes.float(), dim=-1).T
            types = cosines.masked_fill(~correct, -2).argmax(1)
        found["regularization"] = prototype_regularization(
            cells, prototypes, types, affine=network.affine_projection, tau=config.tau
        )
        return found

    def _masked_gene(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        config, network = self.config, self.network
        part = np.random.default_rng((config.seed, self.step, 8)).permutation(len(batch.labels))[
            : config.gene_cells
        ]
        ids, cu_seqlens, longest, _ = pack(
            Batch(batch.ids[part], batch.lengths[part], batch.labels[part], batch.counts),
            self.device,
        )
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        masked = mask_tokens(
            ids, generator=generator, mask_id=MASK_ID, protected_ids=(PAD_ID, CLS_ID), random_range=(MASK_ID + 1, CLS_ID),
            probability=config.mask_probability,
        )  # fmt: skip
        hidden = network.encoder(masked.inputs, cu_seqlens, longest, attention=self.attention)
        return masked_gene_loss(
            hidden[masked.positions], masked.targets, head=network.cls, word_embeddings=network.word_embeddings, tau=config.tau,
            negatives=config.n_negatives, generator=generator,
        )  # fmt: skip

    def train(self, *, checkpoint: Path, log_every: int = 200) -> pd.DataFrame:
        """Train until the last step, from the checkpoint if there is one; return the curve."""
        if checkpoint.exists():
            self._load(checkpoint)
        self.network.train()
        while self.step < self.config.steps:
            started = time.monotonic()
            batch = self.sampler(self.step, self.config.batch_cells)
            with autocast(self.device, torch.bfloat16):
                parts = self.losses(batch)
            weights = {"masked_gene": 1.0, "alignment": self.config.weight_alignment, "coherence": 1.0, "regularization": 1.0}  # fmt: skip
            loss = torch.stack([weights[k] * v for k, v in parts.items() if k in weights]).sum()
            if not math.isfinite(loss.item()):
                msg = f"The loss is {loss.item()} at step {self.step}."
                raise FloatingPointError(msg)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            self.seconds += time.monotonic() - started
            values = {name: value.item() for name, value in {"loss": loss, **parts}.items()}
            self.curve.append({"step": self.step, "seconds": self.seconds, "cells": len(batch.labels), "tokens": int(batch.lengths.sum()), **values})  # fmt: skip
            if self.step % log_every == 0:
                self._save(checkpoint)
                recent = pd.DataFrame(self.curve[-log_every:])
                means = {name: round(float(recent[name].mean()), 3) for name in LOSSES if name in recent}  # fmt: skip
                print(f"step {self.step}, {self.seconds:.0f} s: {means}", flush=True)
        columns = ["step", "seconds", "cells", "tokens", *LOSSES]
        return pd.DataFrame(self.curve).reindex(columns=columns)

    def _save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "step": self.step, "curve": self.curve, "seconds": self.seconds, "config": self.config,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def _load(self, path: Path) -> None:
        state = torch.load(
            path, map_location=self.device, weights_only=False
        )  # written by this script
        if state["config"] != self.config:
            msg = f"{path} belongs to a run with {state['config']}; remove it or change --work."
            raise ValueError(msg)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.curve, self.seconds = state["step"], state["curve"], state["seconds"]
