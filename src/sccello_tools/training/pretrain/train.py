"""Run pretraining: from labelled tokens to a trained network."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch

from sccello_tools._logging import logger
from sccello_tools.errors import ConfigError, LabelError
from sccello_tools.ontology import ancestor_mask, pagerank_rows, similarity_levels
from sccello_tools.training.trainer import (
    QUIET_OPTIONS,
    as_callbacks,
    check_trainer_options,
    lightning_session,
)

from .callbacks import DivergenceStop, FullWeights, LossCurve, StreamPosition
from .datamodule import StreamDataModule, TokenDataModule, is_streamed, sample_cells
from .initialize import N_CELLS, fresh_network, start_from, start_spectral
from .module import PretrainModule
from .sources import LabelledTokens
from .validation import N_REFERENCE, EarlyStopping, ZeroShotValidation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, Final

    import pandas as pd

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.ontology import CellOntology

    from .config import PretrainConfig
    from .sources import BlockSource

# Trainer options that the configuration determines: the sampler and resumed runs depend on them.
_CONFIGURED: Final = {
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "precision": "precision",
    "gradient_clip_val": "gradient_clip",
    "accumulate_grad_batches": "accumulate",
}


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Result of a pretraining run."""

    network: ScCelloModel
    """The trained model, in evaluation mode."""
    labels: tuple[str, ...]
    """Cell Ontology id of each prototype."""
    curve: pd.DataFrame
    """Losses and accuracies by step, with validation scores at the steps that have them."""
    is_main: bool = True
    """Whether this is the main process, which writes files; all processes have the same weights."""
    best_step: int = 0
    """Step whose weights were kept by early stopping; otherwise 0."""


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
    """Pretrain a model, from random weights or from those of another model.

    The result depends only on the sources, the ontology, the configuration and the number of processes. A resumed run gives the same
    result as an uninterrupted one. The global state of random number generators is restored.

    Parameters
    ----------
    sources
        Labelled tokens of one or more sources, or corpora on disk. Ids must be current terms of ``ontology``.
    ontology
        The Cell Ontology used by the alignment loss.
    config
        Model size, losses, schedule.
    validation
        Labelled cells that are not trained on, scored every ``config.validate_every`` steps.
    checkpoint_dir
        Folder for Lightning checkpoints; a run is resumed from its ``last.ckpt`` if there is one.
    checkpoint_every
        Steps between two checkpoints.
    earlier
        A model to start from and the Cell Ontology ids of its prototypes. Its sizes must be those of ``config``.
    n_workers
        Processes per device that read a stream; see :class:`~sccello_tools.training.pretrain.datamodule.StreamDataModule`.
    trainer_kwargs
        Passed to ``lightning.Trainer``: devices, num_nodes, strategy, loggers, callbacks.

    Returns
    -------
    The trained network, its labels and the loss curve.

    Raises
    ------
    LabelError
        If there are no cells with tokens, fewer than two cell types, or none of the validation types is in the training data.
    CorpusError
        If a corpus is damaged or has fewer blocks than there are processes.
    ConfigError
        If ``source_weights``, ``trainer_kwargs`` or ``earlier`` do not fit, or the checkpoint is damaged or belongs to another run.
    TrainingError
        If the loss is not finite or diverges.
    KeyboardInterrupt
        On Ctrl-C. The last checkpoint is kept.
    """
    trainer_kwargs = dict(trainer_kwargs or {})
    _check_options(sources, config, trainer_kwargs, validation)
    found = [_types_of(source) for source in sources]
    sources = [source for source, types in zip(sources, found, strict=True) if types]
    types = tuple(sorted(set().union(*found)))
    if len(types) < 2:
        msg = f"Pretraining needs cells of at least two cell types, found {list(types)}. Pass more data, or check label_key."
        raise LabelError(msg)
    levels = similarity_levels(pagerank_rows(ontology, types, columns=types))
    ancestors = ancestor_mask(ontology, types, types)
    data: StreamDataModule | TokenDataModule
    if is_streamed(sources, config):
        data = StreamDataModule(sources, types, config, n_workers=n_workers)
    else:
        in_memory = [source for source in sources if isinstance(source, LabelledTokens)]
        data = TokenDataModule(in_memory, types, config)
    curve, full_weights = LossCurve(), FullWeights()
    callbacks: list[L.Callback] = [curve]
    stopping = None
    if validation is not None:
        reference = sample_cells(sources, types, config, n_cells=N_REFERENCE)
        zero_shot = ZeroShotValidation(validation, reference, ontology, seed=config.seed)
        stopping = EarlyStopping(zero_shot, config)
        callbacks.append(stopping)
    if config.divergence:
        callbacks.append(
            DivergenceStop(
                config.divergence, after=config.warmup_steps, source_names=tuple(data.names)
            )
        )
    if isinstance(data, StreamDataModule):
        callbacks.append(StreamPosition(data))
    callbacks += [full_weights, *as_callbacks(trainer_kwargs.pop("callbacks", None))]
    checkpoint = None
    if checkpoint_dir is not None:
        callbacks.append(
            L.pytorch.callbacks.ModelCheckpoint(
                checkpoint_dir,
                every_n_train_steps=checkpoint_every,
                save_top_k=0,
                save_last=True,
                enable_version_counter=False,  # a resumed run must overwrite the file that the next one reads
            )
        )
        checkpoint = last_checkpoint(checkpoint_dir)
    options: dict[str, Any] = {
        **QUIET_OPTIONS,
        "max_steps": config.max_steps,
        "precision": "bf16-mixed" if config.precision == "bfloat16" else "32-true",
        "gradient_clip_val": config.gradient_clip,
        "accumulate_grad_batches": config.accumulate,
        "enable_checkpointing": checkpoint_dir is not None,
        "use_distributed_sampler": False,  # the data module draws different cells on each rank
        **trainer_kwargs,
        "callbacks": callbacks,
    }
    with lightning_session(config.seed):
        network = fresh_network(config, len(types))
        if earlier is None and config.gene_start == "spectral":
            std = config.embedding_std or config.initializer_range
            cells, _ = sample_cells(sources, types, config, n_cells=N_CELLS)
            start_spectral(network, cells, std=std, seed=config.seed)
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
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
            if checkpoint_dir is not None and (checkpoint_dir / "last.ckpt").exists():
                logger.warning("interrupted; the run can be resumed from %s", checkpoint_dir)
            raise
    network = full_weights.network or network
    table = curve.table()
    return TrainingResult(
        network.requires_grad_().eval(),
        types,
        table if stopping is None else stopping.add_to(table),
        trainer.is_global_zero,
        0 if stopping is None else stopping.best_step,
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint in a folder, or None if there is none.

    Raises
    ------
    ConfigError
        If the file is truncated or damaged.
    """
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        damaged = str(error)
    if damaged:
        msg = f"The checkpoint {path} is truncated or damaged ({damaged}). Restore it, or delete it to start from the first step."
        raise ConfigError(msg)
    return path


def _types_of(source: BlockSource) -> set[str]:
    return {t for by_type in source.n_cells_of.values() for t, n in by_type.items() if n}


def _check_options(
    sources: Sequence[BlockSource],
    config: PretrainConfig,
    trainer_kwargs: Mapping[str, Any],
    validation: LabelledTokens | None,
) -> None:
    check_trainer_options(trainer_kwargs, _CONFIGURED, owner="PretrainConfig")
    drawn = [s for s in sources if isinstance(s, LabelledTokens) and s.counts is not None]
    tokens_only = [
        name for s in sources if s not in drawn for name in dict.fromkeys(s.block_sources)
    ]
    if config.augments and tokens_only:
        msg = f"thinning and gene_dropout need counts, but {', '.join(tokens_only)} contain tokens only. Pass AnnData instead of corpora."
        raise ConfigError(msg)
    if drawn and is_streamed(sources, config):
        msg = "thinning, gene_dropout and synthetic cells need all cells in memory. Set stream=False, or leave out large corpora."
        raise ConfigError(msg)
    if config.patience is not None and validation is None:
        msg = f"patience={config.patience} needs validation cells. Pass validation=, or patience=None."
        raise ConfigError(msg)
    strategy = str(trainer_kwargs.get("strategy", ""))
    if validation is not None and "fsdp" in strategy.lower():
        msg = (
            f"validation is not available with strategy={strategy!r}, because no process has the whole model. "
            "Use strategy='ddp' (the published model fits on any device), or evaluate the finished model."
        )
        raise ConfigError(msg)
    names = [name for source in sources for name in dict.fromkeys(source.block_sources)]
    names = names or [source.source for source in sources if isinstance(source, LabelledTokens)]
    if unknown := sorted(set(config.source_weights) - set(names)):
        msg = f"source_weights name unknown sources: {', '.join(unknown)}. The sources are {', '.join(names)}."
        raise ConfigError(msg)
    if config.source_weights and len(set(names)) < len(names):
        msg = f"source_weights need distinct source names, got {', '.join(names)}. Pass a mapping from names to data."
        raise ConfigError(msg)
