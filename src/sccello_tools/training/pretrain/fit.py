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

from sccello_tools.errors import ConfigError, LabelError
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.ontology import ancestor_mask, pagerank_rows, similarity_levels

from .callbacks import Bookmark, DivergenceStop, FullWeights, LossCurve
from .datamodule import StreamDataModule, TokenDataModule, draw_cells, streams
from .gene_start import N_CELLS, start_spectral
from .module import PretrainModule
from .sources import LabelledTokens
from .validation import N_REFERENCE, Watch, ZeroShot
from .warm_start import start_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from sccello_tools.ontology import CellOntology

    from .config import PretrainConfig
    from .sources import BlockSource

# What the configuration decides, and a trainer may not decide otherwise: the sampler and a resumed run count on it.
_DECIDED = {
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "precision": "precision",
    "gradient_clip_val": "gradient_clip",
    "accumulate_grad_batches": "accumulate",
}


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a pretraining run leaves."""

    network: ScCelloModel
    """The trained model, in evaluation mode."""

    labels: tuple[str, ...]
    """Cell Ontology id of each prototype."""

    curve: pd.DataFrame
    """Losses and accuracies by step; scores of held-out cells at the steps that looked at them."""

    is_main: bool = True
    """Whether this process is the one that writes; all others of a parallel run have the same weights."""

    best_step: int = 0
    """The step whose weights were kept, if held-out cells decided; else 0."""


def fit(
    sources: Sequence[BlockSource],
    ontology: CellOntology,
    config: PretrainConfig,
    *,
    validation: LabelledTokens | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 200,
    earlier: tuple[ScCelloModel, Sequence[str]] | None = None,
    n_workers: int = 0,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Pretrain a model, from scratch or from the weights of an earlier one.

    The result depends on the sources, the ontology, the configuration and the number of processes only. A resumed run goes on as if it
    had never stopped. The global state of random number generators is left as it was.

    Parameters
    ----------
    sources
        Labelled tokens of one or more sources, or corpora on disk. Ids must be current terms of ``ontology``.
    ontology
        The Cell Ontology that the losses align to.
    config
        Size, losses, schedule.
    validation
        Labelled cells that do not train, to be scored every ``config.validate_every`` steps.
    checkpoint_dir
        Folder for Lightning checkpoints; a run that finds ``last.ckpt`` there goes on from it.
    checkpoint_every
        Steps between two checkpoints.
    earlier
        A model to start from, and the Cell Ontology ids of its prototypes. Its sizes must be those of ``config``.
    n_workers
        Processes on each device that read a stream; see :class:`~sccello_tools.training.pretrain.datamodule.StreamDataModule`.
    trainer_kwargs
        Passed to ``lightning.Trainer``: devices, num_nodes, strategy, loggers, callbacks.

    Returns
    -------
    The trained network, its labels and the loss curve.

    Raises
    ------
    LabelError
        If there are no cells with tokens, fewer than two cell types, or none of a type that trains in ``validation``.
    CorpusError
        If a corpus is damaged, or has fewer blocks than there are processes.
    ConfigError
        If ``source_weights``, ``trainer_kwargs`` or ``earlier`` do not fit, or the checkpoint belongs to another run.
    TrainingError
        If the loss is no longer a number, or diverges.
    """
    trainer_kwargs = dict(trainer_kwargs or {})
    _check_options(sources, config, trainer_kwargs, validation)
    counts = [_types_of(source) for source in sources]
    sources = [source for source, found in zip(sources, counts, strict=True) if found]
    types = tuple(sorted(set().union(*counts)))
    if len(types) < 2:
        msg = f"Pretraining needs cells of at least two cell types, found {list(types)}. Pass more data, or check label_key."
        raise LabelError(msg)
    levels = similarity_levels(pagerank_rows(ontology, types, columns=types))
    ancestors = ancestor_mask(ontology, types, types)
    data: StreamDataModule | TokenDataModule
    if streams(sources, config):
        data = StreamDataModule(sources, types, config, n_workers=n_workers)
    else:
        held = [source for source in sources if isinstance(source, LabelledTokens)]
        data = TokenDataModule(held, types, config)
    curve = LossCurve()
    callbacks: list[Any] = [curve]
    watch = None
    if validation is not None:
        reference = draw_cells(sources, types, config, n_cells=N_REFERENCE)
        watch = Watch(ZeroShot(validation, reference, ontology, seed=config.seed), config)
        callbacks.append(watch)
    if config.divergence:
        callbacks.append(
            DivergenceStop(
                config.divergence, after=config.warmup_steps, source_names=tuple(data.names)
            )
        )
    if isinstance(data, StreamDataModule):
        callbacks.append(Bookmark(data))
    sharded = FullWeights()
    callbacks.append(sharded)
    given = trainer_kwargs.pop("callbacks", None) or []
    callbacks += [given] if isinstance(given, L.Callback) else list(given)
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
        "accumulate_grad_batches": config.accumulate,
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
            drawn, _ = draw_cells(sources, types, config, n_cells=N_CELLS)
            start_spectral(network, drawn, std=std, seed=config.seed)
        if earlier is not None:
            start_from(network, types, earlier=earlier[0], earlier_types=earlier[1])
        module = PretrainModule(
            network,
            config,
            torch.from_numpy(np.asarray(levels, dtype=np.int64)),
            torch.from_numpy(np.asarray(ancestors, dtype=bool)),
            data.names,
        )
        trainer = L.Trainer(**options)
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=resume if resume is not None and resume.exists() else None,
        )
    network = sharded.network or network
    table = curve.table()
    return TrainingResult(
        network.requires_grad_().eval(),
        types,
        table if watch is None else watch.joined(table),
        trainer.is_global_zero,
        0 if watch is None else watch.best_step,
    )


def _types_of(source: BlockSource) -> set[str]:
    return {t for by_type in source.counts.values() for t, n in by_type.items() if n}


def _check_options(
    sources: Sequence[BlockSource],
    config: PretrainConfig,
    trainer_kwargs: Mapping[str, Any],
    validation: LabelledTokens | None,
) -> None:
    if decided := sorted(set(trainer_kwargs) & set(_DECIDED)):
        fields = ", ".join(sorted({_DECIDED[name] for name in decided}))
        msg = f"trainer_kwargs holds {decided}, which PretrainConfig decides. Set there: {fields}."
        raise ConfigError(msg)
    if config.patience is not None and validation is None:
        msg = f"patience is {config.patience}, but there are no held-out cells to look at. Pass validation=, or patience=None."
        raise ConfigError(msg)
    strategy = str(trainer_kwargs.get("strategy", ""))
    if validation is not None and "fsdp" in strategy.lower():
        msg = (
            f"strategy is {strategy!r}, which leaves no process with a whole model to look at held-out cells with. "
            "Take strategy='ddp' (the published model fits any device), or score the finished model."
        )
        raise ConfigError(msg)
    names = [name for source in sources for name in dict.fromkeys(source.block_sources)]
    names = names or [source.source for source in sources if isinstance(source, LabelledTokens)]
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
