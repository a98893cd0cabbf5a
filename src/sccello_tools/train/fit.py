"""One call from labelled tokens to a trained network."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch

from sccello_tools._errors import ConfigError, LabelError
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.ontology import ancestor_mask, pagerank_rows, similarity_levels

from .callbacks import LossCurve
from .datamodule import TokenDataModule, draw_cells
from .gene_start import N_CELLS, start_spectral
from .module import PretrainModule
from .warm_start import start_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from sccello_tools.ontology import CellOntology

    from .config import PretrainConfig
    from .datamodule import LabelledTokens

# What the configuration decides, and a trainer may not decide otherwise: the sampler and a resumed run count on it.
_DECIDED = {
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "precision": "precision",
    "gradient_clip_val": "gradient_clip",
    "accumulate_grad_batches": "batch_cells",
}


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
    checkpoint_every: int = 200,
    earlier: tuple[ScCelloModel, Sequence[str]] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Pretrain a model, from scratch or from the weights of an earlier one.

    The result depends on the sources, the ontology and the configuration only. A resumed run goes on as if it had never stopped.
    The global state of random number generators is left as it was.

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
    checkpoint_every
        Steps between two checkpoints.
    earlier
        A model to start from, and the Cell Ontology ids of its prototypes. Its sizes must be those of ``config``.
    trainer_kwargs
        Passed to ``lightning.Trainer``: devices, strategy, loggers, callbacks.

    Returns
    -------
    The trained network, its labels and the loss curve.

    Raises
    ------
    LabelError
        If there are no cells with tokens, or fewer than two cell types.
    ConfigError
        If ``source_weights``, ``trainer_kwargs`` or ``earlier`` do not fit, or the checkpoint belongs to another run.
    TrainingError
        If the loss is no longer a number.
    """
    trainer_kwargs = dict(trainer_kwargs or {})
    _check_options(sources, config, trainer_kwargs)
    sources = [source for source in sources if (source.tokens.lengths > 0).any()]
    types = tuple(sorted({str(t) for source in sources for t in source.cell_types}))
    if len(types) < 2:
        msg = f"Pretraining needs cells of at least two cell types, found {list(types)}. Pass more data, or check label_key."
        raise LabelError(msg)
    levels = similarity_levels(pagerank_rows(ontology, types, columns=types))
    ancestors = ancestor_mask(ontology, types, types)
    curve = LossCurve()
    given = trainer_kwargs.pop("callbacks", None) or []
    callbacks: list[Any] = [curve, *([given] if isinstance(given, L.Callback) else given)]
    resume = None
    if checkpoint_dir is not None:
        callbacks.append(
            L.pytorch.callbacks.ModelCheckpoint(
                checkpoint_dir,
                every_n_train_steps=checkpoint_every,
                save_top_k=0,
                save_last=True,
                enable_version_counter=False,  # or a resumed run could write beside the file that the next one reads
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
        "use_distributed_sampler": False,  # ours draws other cells on each rank by itself
        **trainer_kwargs,
        "callbacks": callbacks,
    }
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), _lightning_quiet():
        torch.manual_seed(config.seed)
        network = _fresh_network(config, len(types))
        if earlier is None and config.gene_start == "spectral":
            std = config.embedding_std or config.initializer_range
            drawn = draw_cells(sources, config, n_cells=N_CELLS)
            start_spectral(network, drawn, std=std, seed=config.seed)
        if earlier is not None:
            start_from(network, types, earlier=earlier[0], earlier_types=earlier[1])
        module = PretrainModule(
            network,
            config,
            torch.from_numpy(np.asarray(levels, dtype=np.int64)),
            torch.from_numpy(np.asarray(ancestors, dtype=bool)),
        )
        L.Trainer(**options).fit(
            module,
            datamodule=TokenDataModule(sources, types, config),
            ckpt_path=resume if resume is not None and resume.exists() else None,
        )
    return TrainingResult(network.eval(), types, curve.table())


def _check_options(
    sources: Sequence[LabelledTokens], config: PretrainConfig, trainer_kwargs: Mapping[str, Any]
) -> None:
    if decided := sorted(set(trainer_kwargs) & set(_DECIDED)):
        fields = ", ".join(sorted({_DECIDED[name] for name in decided}))
        msg = f"trainer_kwargs holds {decided}, which PretrainConfig decides. Set there: {fields}."
        raise ConfigError(msg)
    names = [source.source for source in sources]
    if unknown := sorted(set(config.source_weights) - set(names)):
        msg = f"source_weights name sources that are not there: {unknown}. There are: {names}."
        raise ConfigError(msg)
    if config.source_weights and len(set(names)) < len(names):
        msg = f"source_weights need sources of different names, found {names}. Pass a mapping of names."
        raise ConfigError(msg)


@contextmanager
def _lightning_quiet() -> Iterator[None]:
    """Keep Lightning's tips and remarks from the user, but not its other warnings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # batches are cut from memory, which takes no workers
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            # batches depend on the step alone, which the checkpoint holds
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
            # of checkpoints written at another interval
            warnings.filterwarnings(
                "ignore", message=r".*callbacks used to create the checkpoint.*\[\"ModelCheckpoint"
            )
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _fresh_network(config: PretrainConfig, n_types: int) -> ScCelloModel:
    network = ScCelloModel(
        EncoderConfig(
            hidden_size=config.hidden_size,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            intermediate_size=config.intermediate_size,
            max_positions=config.max_length,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            n_prototypes=max(600, n_types),  # published: 600 rows, the first n used
            tau=config.tau,
            initializer_range=config.initializer_range,
        )
    )
    if config.embedding_std is not None:
        _let_genes_speak(network, config.embedding_std)
    return network


@torch.no_grad()
def _let_genes_speak(network: ScCelloModel, std: float) -> None:
    """Draw embeddings so that a token is first of all its gene, then its position; see ``PretrainConfig.embedding_std``."""
    encoder = network.encoder
    encoder.word_embeddings.weight.normal_(std=std)
    encoder.word_embeddings.weight[network.config.pad_token_id] = 0
    encoder.position_embeddings.weight.normal_(std=std / 10)
    encoder.legacy_embeddings.zero_()
