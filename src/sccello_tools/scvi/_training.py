"""The two stages of training on scvi-tools' TrainRunner: a linear probe, then the encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scvi.train import TrainRunner

from sccello_tools.engine import encode
from sccello_tools.training.finetune.callbacks import BestEpoch
from sccello_tools.training.finetune.data import FinetuneData
from sccello_tools.training.finetune.fit import (
    freeze_heads,
    head_of,
    held_out_scores,
    label_weights,
)
from sccello_tools.training.finetune.lora import add_lora, merge_lora
from sccello_tools.training.finetune.module import FinetuneModule

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.tokens import RaggedTokens
    from sccello_tools.training.finetune import FinetuneConfig
    from sccello_tools.training.finetune.config import Mode
    from sccello_tools.training.finetune.split import Split

    from ._cells import TrainingCells
    from ._model import ScCello


class CellSplitter(FinetuneData):
    """Training and held-out cells, with what TrainRunner wants to know of them.

    Parameters
    ----------
    cells, codes, split, batch_cells, seed
        As :class:`~sccello_tools.training.finetune.data.FinetuneData`.
    rows
        (n_cells,) row of each cell in the AnnData.
    n_obs
        Rows of the AnnData.
    """

    def __init__(
        self,
        cells: NDArray[np.float32] | RaggedTokens,
        codes: NDArray[np.intp],
        split: Split,
        *,
        rows: NDArray[np.intp],
        n_obs: int,
        batch_cells: int,
        seed: int,
    ) -> None:
        super().__init__(cells, codes, split, batch_cells=batch_cells, seed=seed)
        self.train_idx, self.val_idx = rows[split.train], rows[split.held_out]
        self.test_idx = np.setdiff1d(np.arange(n_obs), rows)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)


def run_training(
    model: ScCello,
    cells: TrainingCells,
    *,
    mode: Mode,
    config: FinetuneConfig,
    options: dict[str, Any],
) -> None:
    """Train the classifier of a model, and its encoder if the mode says so.

    Parameters
    ----------
    model
        Changed in place.
    cells
        What to train on, and what is held out.
    mode
        "linear", "lora" or "full".
    config
        Schedule of that mode.
    options
        Passed to TrainRunner and by it to scvi-tools' Trainer.
    """
    tokens, codes, rows, split = cells
    # a rate or a number of epochs that was given is meant for the mode that was asked for
    probing = config if mode == "linear" else replace(config, learning_rate=None, max_epochs=None)
    module, n_obs = model.module, model.adata.n_obs
    n_labels = module.classifier.out_features
    weights = label_weights(codes[split.train], n_labels, balance=config.balance)

    def run(inputs: NDArray[np.float32] | RaggedTokens, floor: tuple[float, float] | None) -> None:
        learning = None if floor is None else module.network
        stage, schedule = (mode, config) if learning is not None else ("linear", probing)
        plan = FinetuneModule(
            module.classifier,
            schedule,
            learning_rate=schedule.rate(stage),
            network=learning,
            label_weights=weights,
        )
        splitter = CellSplitter(
            inputs,
            codes,
            split,
            rows=rows,
            n_obs=n_obs,
            batch_cells=schedule.batch_cells,
            seed=schedule.seed,
        )
        chosen = {
            "early_stopping": True,
            "early_stopping_monitor": f"validation_{schedule.monitor}",
            "early_stopping_mode": "min" if schedule.monitor == "loss" else "max",
            "early_stopping_patience": schedule.patience,
            "gradient_clip_val": schedule.gradient_clip,
            "log_every_n_steps": 1,
            **options,
            "callbacks": [BestEpoch(schedule.monitor, floor), *(options.get("callbacks") or [])],
        }
        TrainRunner(
            model,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=schedule.epochs(stage),
            **chosen,
        )()

    held_out = split.held_out
    features = encode(module.network, tokens)
    run(features, None)
    if mode != "linear":
        scores = held_out_scores(head_of(module.classifier), features[held_out], codes[held_out])
        if mode == "lora":
            add_lora(module.network, rank=config.lora_rank, alpha=config.lora_alpha)
        freeze_heads(module.network)
        try:
            run(tokens, (scores[config.monitor], scores["loss"]))
        finally:
            merge_lora(module.network)
    seen = features[held_out] if mode == "linear" else encode(module.network, tokens.take(held_out))
    right = np.arange(n_labels) == codes[held_out][:, None]
    calibrated = head_of(module.classifier).calibrated(seen, right)
    module.temperature.fill_(calibrated.temperature)
    model.held_out_scores_ = held_out_scores(calibrated, seen, codes[held_out])
    model.held_out_batches_ = split.donors
