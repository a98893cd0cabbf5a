"""Training on scvi-tools' TrainRunner: the cells that can be trained on, and the two stages of fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.train import TrainRunner

from sccello_tools._anndata.counts import iter_token_chunks
from sccello_tools.errors import ConfigError, LabelError
from sccello_tools.tokens import RaggedTokens, Tokenizer
from sccello_tools.training.finetune.data import FinetuneData, hold_out
from sccello_tools.training.finetune.fit import train_stages
from sccello_tools.training.finetune.module import BestEpoch
from sccello_tools.training.trainer import as_callbacks, keyboard_interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.training.finetune import FinetuneConfig
    from sccello_tools.training.finetune.config import Mode
    from sccello_tools.training.finetune.data import Split
    from sccello_tools.training.finetune.fit import Stage

    from ._model import ScCello


class TrainingCells(NamedTuple):
    """Cells with a label and tokens."""

    tokens: RaggedTokens
    """Tokens of the cells."""
    codes: NDArray[np.intp]
    """(n_cells,) label of each cell."""
    rows: NDArray[np.intp]
    """(n_cells,) row of each cell in the AnnData."""
    split: Split
    """Training and validation cells."""


class CellSplitter(FinetuneData):
    """Training and validation cells with the attributes that TrainRunner reads.

    Parameters
    ----------
    stage
        Provides the cached embeddings or tokens.
    cells
        Training cells.
    n_obs
        Number of rows of the AnnData.
    config
        Batch size and seed.
    """

    def __init__(
        self, stage: Stage, cells: TrainingCells, *, n_obs: int, config: FinetuneConfig
    ) -> None:
        super().__init__(
            stage.cells, cells.codes, cells.split, batch_cells=config.batch_cells, seed=config.seed
        )
        rows = cells.rows
        self.train_idx, self.val_idx = rows[cells.split.train], rows[cells.split.validation]
        self.test_idx = np.setdiff1d(np.arange(n_obs), rows)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)


def tokens_of(
    model: ScCello,
    adata: AnnData,
    indices: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> RaggedTokens:
    """Tokenize cells, matching their genes by name.

    Parameters
    ----------
    model
        Provides the counts source of its setup and the number of positions.
    adata
        Cells; they need not be registered.
    indices
        Rows to tokenize; all by default.
    batch_size
        Rows of counts in memory at a time.

    Raises
    ------
    GeneMatchError, NotCountsError
        If the matrix does not hold raw counts of human genes.
    """
    source = model.counts_source
    tokenizer = Tokenizer(source.gene_match(adata), model.module.network.config.max_positions)
    chunks = iter_token_chunks(
        adata if indices is None else adata[np.asarray(indices)],
        tokenizer,
        source,
        chunk_cells=batch_size,
    )
    return RaggedTokens.concatenate(chunk.tokens for chunk in chunks)


def cells_to_train(model: ScCello, config: FinetuneConfig) -> TrainingCells:
    """Tokenize the cells of a model and hold some out: whole batches if there are several, otherwise a fraction of each label.

    Raises
    ------
    ConfigError
        If the model has no cells.
    LabelError
        If there are fewer than two labels.
    GroupError
        If no batch can be held out.
    """
    if model.adata is None:
        msg = "The model was loaded without cells. Pass them to train: ScCello.load(folder, adata=...)."
        raise ConfigError(msg)
    labels = model.labels_
    if len(labels) < 2:
        msg = f"Training needs cells of at least two labels, found {labels}. Pass their column to setup_anndata(adata, labels_key=...)."
        raise LabelError(msg)
    tokens = tokens_of(model, model.adata)
    codes, batches = (
        np.asarray(model.data_registry(key)).ravel().astype(np.intp)
        for key in (REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.BATCH_KEY)
    )
    rows = np.flatnonzero((codes < len(labels)) & (tokens.lengths > 0))
    if (n_labels := len(np.unique(codes[rows]))) < 2:
        msg = (
            f"Training needs cells of at least two labels; the {len(rows):,} cells with a label and tokens have {n_labels}. "
            f"Cells labelled {model.unlabeled_category_!r} are not trained on."
        )
        raise LabelError(msg)
    mapping = model.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
    names = np.array([str(name) for name in mapping])
    split = hold_out(
        codes[rows],
        validation=config.validation,
        groups=names[batches[rows]] if len(np.unique(batches[rows])) > 1 else None,
        labels=labels,
        seed=config.seed,
    )
    return TrainingCells(tokens.take(rows), codes[rows], rows, split)


def run_training(
    model: ScCello,
    cells: TrainingCells,
    *,
    mode: Mode,
    config: FinetuneConfig,
    options: dict[str, Any],
) -> None:
    """Train the classifier of a model and, depending on the mode, its encoder.

    Parameters
    ----------
    model
        Modified in place.
    cells
        Training and validation cells.
    mode
        "linear", "lora" or "full".
    config
        Schedule of that mode.
    options
        Passed to TrainRunner, which passes them to scvi-tools' Trainer.
    """
    module, n_obs = model.module, model.adata.n_obs

    def train(stage: Stage) -> None:
        chosen = {
            "early_stopping": True,
            "early_stopping_monitor": f"validation_{config.monitor}",
            "early_stopping_mode": "min" if config.monitor == "loss" else "max",
            "early_stopping_patience": config.patience,
            "gradient_clip_val": config.gradient_clip,
            "log_every_n_steps": 1,
            **options,
            "callbacks": [
                BestEpoch(config.monitor, stage.floor),
                *as_callbacks(options.get("callbacks")),
            ],
        }
        TrainRunner(
            model,
            training_plan=stage.module,
            data_splitter=CellSplitter(stage, cells, n_obs=n_obs, config=config),
            max_epochs=stage.n_epochs,
            **chosen,
        )()

    with keyboard_interrupts():
        head, scores = train_stages(
            module.network,
            module.classifier,
            cells.tokens,
            cells.codes,
            cells.split,
            mode=mode,
            config=config,
            train=train,
        )
    module.temperature.fill_(head.temperature)
    model.validation_scores_ = scores
    model.validation_batches_ = cells.split.groups
