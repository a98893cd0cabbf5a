"""One call from labelled tokens to a trained network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch

from sccello_tools._errors import LabelError
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.ontology import ancestor_mask, pagerank_rows, similarity_levels

from .callbacks import LossCurve
from .datamodule import TokenDataModule
from .module import PretrainModule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from sccello_tools.ontology import CellOntology

    from .config import PretrainConfig
    from .datamodule import LabelledTokens


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a pretraining run leaves."""

    network: ScCelloModel
    """The trained model, in evaluation mode."""

    labels: tuple[str, ...]
    """Cell Ontology id of each prototype."""

    curve: pd.DataFrame
    """Losses and accuracies by step."""


def fit(
    sources: Sequence[LabelledTokens],
    ontology: CellOntology,
    config: PretrainConfig,
    *,
    checkpoint_dir: Path | None = None,
    trainer_kwargs: dict[str, Any] | None = None,
) -> TrainingResult:
    """Pretrain a model from scratch.

    Parameters
    ----------
    sources
        Labelled tokens of one or more sources. Ids must be current terms of ``ontology``.
    ontology
        The Cell Ontology that the losses align to.
    config
        Size, losses, schedule.
    checkpoint_dir
        Folder for Lightning checkpoints; a run that finds ``last.ckpt`` there goes on from it.
    trainer_kwargs
        Passed to ``lightning.Trainer``: devices, strategy, loggers, callbacks.

    Returns
    -------
    The trained network, its labels and the loss curve.

    Raises
    ------
    LabelError
        If there are no cells with tokens, or fewer than two cell types.
    """
    sources = [source for source in sources if (source.tokens.lengths > 0).any()]
    types = tuple(sorted({str(t) for source in sources for t in source.cell_types}))
    if len(types) < 2:
        msg = f"Pretraining needs cells of at least two cell types, found {list(types)}. Pass more data, or check label_key."
        raise LabelError(msg)
    L.seed_everything(config.seed, verbose=False)
    network = ScCelloModel(
        EncoderConfig(
            hidden_size=config.hidden_size,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            intermediate_size=config.intermediate_size,
            max_positions=config.max_length,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            n_prototypes=max(600, len(types)),  # published: 600 rows, the first n used
            tau=config.tau,
            initializer_range=config.initializer_range,
        )
    )
    if config.embedding_std is not None:
        _let_genes_speak(network, config.embedding_std)
    levels = similarity_levels(pagerank_rows(ontology, types, columns=types))
    module = PretrainModule(
        network,
        config,
        torch.from_numpy(np.asarray(levels, dtype=np.int64)),
        torch.from_numpy(np.asarray(ancestor_mask(ontology, types, types), dtype=bool)),
    )
    curve = LossCurve()
    callbacks: list[Any] = [curve, *(trainer_kwargs or {}).get("callbacks", [])]
    resume = None
    if checkpoint_dir is not None:
        callbacks.append(
            L.pytorch.callbacks.ModelCheckpoint(
                checkpoint_dir, every_n_train_steps=200, save_top_k=0, save_last=True
            )
        )
        resume = checkpoint_dir / "last.ckpt"
    options: dict[str, Any] = {
        "max_steps": config.max_steps,
        "precision": "bf16-mixed" if config.precision == "bfloat16" else "32-true",
        "gradient_clip_val": config.gradient_clip,
        "logger": False,
        "enable_checkpointing": checkpoint_dir is not None,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
        **(trainer_kwargs or {}),
        "callbacks": callbacks,
    }
    trainer = L.Trainer(**options)
    trainer.fit(
        module,
        datamodule=TokenDataModule(sources, types, config),
        ckpt_path=resume if resume is not None and resume.exists() else None,
    )
    return TrainingResult(network.eval(), types, curve.table())


@torch.no_grad()
def _let_genes_speak(network: ScCelloModel, std: float) -> None:
    """Draw embeddings so that a token is first of all its gene, then its position; see ``PretrainConfig.embedding_std``."""
    encoder = network.encoder
    encoder.word_embeddings.weight.normal_(std=std)
    encoder.word_embeddings.weight[network.config.pad_token_id] = 0
    encoder.position_embeddings.weight.normal_(std=std / 10)
    encoder.legacy_embeddings.zero_()
