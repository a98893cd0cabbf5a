"""Run fine-tuning: from labelled tokens to a classifier and, on request, a trained encoder."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch import nn

from sccello_tools.annotation.head import LinearHead
from sccello_tools.engine import encode
from sccello_tools.errors import ConfigError
from sccello_tools.training.trainer import (
    QUIET_OPTIONS,
    as_callbacks,
    check_trainer_options,
    lightning_session,
)

from .config import check_mode
from .data import FinetuneData
from .lora import add_lora, merge_lora
from .module import BestEpoch, FinetuneModule, macro_f1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.tokens import RaggedTokens

    from .config import FinetuneConfig, Mode
    from .data import Split

# Trainer options that the configuration determines.
_CONFIGURED: Final = {
    "max_epochs": "max_epochs",
    "max_steps": "max_epochs",
    "precision": "precision",
    "gradient_clip_val": "gradient_clip",
    "accumulate_grad_batches": "batch_cells",
}
# A linear layer and some epochs of an encoder do not need several devices, and a single process writes the folder.
_ONE_DEVICE: Final = ("accelerator", "devices", "num_nodes", "strategy")


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """Result of a fine-tuning run."""

    network: ScCelloModel
    """The encoder, in evaluation mode: the given one with mode "linear", otherwise a trained copy."""
    head: LinearHead
    """The classifier, calibrated on the validation cells."""
    curve: pd.DataFrame
    """Scores by stage and epoch."""
    scores: dict[str, float]
    """Accuracy, macro_f1, loss and n_cells of the validation cells."""


class Stage(NamedTuple):
    """One of the two stages of fine-tuning: the linear layer alone, then the encoder."""

    name: Mode
    """"linear", or the mode of the run."""
    module: FinetuneModule
    """What to train."""
    cells: NDArray[np.float32] | RaggedTokens
    """Cached embeddings in the linear stage, otherwise tokens."""
    n_epochs: int
    """Maximum number of epochs."""
    floor: tuple[float, float] | None
    """Monitored score and loss of the linear stage, which the encoder stage must exceed."""


class Validated(NamedTuple):
    """A calibrated classifier and its scores."""

    head: LinearHead
    scores: dict[str, float]
    """Accuracy, macro_f1, loss and n_cells of the validation cells."""


def fit_classifier(
    network: ScCelloModel,
    tokens: RaggedTokens,
    codes: NDArray[np.intp],
    split: Split,
    *,
    mode: Mode = "linear",
    config: FinetuneConfig,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> FinetuneResult:
    """Train a classifier and, depending on the mode, the encoder.

    The global state of random number generators is restored.

    Parameters
    ----------
    network
        The pretrained model; not modified.
    tokens
        Tokens of the cells, none of them empty.
    codes
        (n_cells,) label of each cell, from 0.
    split
        Training and validation cells.
    mode
        "linear", "lora" or "full"; see :func:`train_stages`.
    config
        Schedule.
    trainer_kwargs
        Passed to ``lightning.Trainer``: loggers, callbacks, ``enable_progress_bar``.

    Returns
    -------
    Encoder, classifier, curve and scores.

    Raises
    ------
    ConfigError
        If ``mode`` is unknown, or ``trainer_kwargs`` contain options that ``config`` or the model's device determines.
    TrainingError
        If the loss is not finite.
    KeyboardInterrupt
        On Ctrl-C.
    """
    check_mode(mode)
    options = dict(trainer_kwargs or {})
    check_trainer_options(options, _CONFIGURED, owner="FinetuneConfig")
    if several := sorted(set(options) & set(_ONE_DEVICE)):
        msg = (
            f"trainer_kwargs contains {', '.join(several)}, but fine-tuning runs on the device of its model. "
            "Load the model there: models.load(..., device='cuda:1')."
        )
        raise ConfigError(msg)
    device = next(network.parameters()).device
    options["accelerator"] = {"cuda": "gpu"}.get(device.type, device.type)
    options["devices"] = 1 if device.index is None or device.type == "cpu" else [device.index]
    curves: list[pd.DataFrame] = []

    def train(stage: Stage) -> None:
        data = FinetuneData(
            stage.cells, codes, split, batch_cells=config.batch_cells, seed=config.seed
        )
        best = _train(stage, data, config=config, options=options)
        stage.module.cpu()
        if stage.module.network is not None:
            stage.module.network.to(device)
        curves.append(best.table().assign(stage=stage.name))

    network = network if mode == "linear" else copy.deepcopy(network)
    with lightning_session(config.seed):
        linear = nn.Linear(network.config.hidden_size, int(codes.max()) + 1)
        head, scores = train_stages(
            network, linear, tokens, codes, split, mode=mode, config=config, train=train
        )
    return FinetuneResult(network.eval(), head, pd.concat(curves, ignore_index=True), scores)


def train_stages(
    network: ScCelloModel,
    linear: nn.Linear,
    tokens: RaggedTokens,
    codes: NDArray[np.intp],
    split: Split,
    *,
    mode: Mode,
    config: FinetuneConfig,
    train: Callable[[Stage], None],
) -> Validated:
    """Train a linear layer on frozen embeddings, then the encoder, and calibrate the classifier.

    Every mode starts with linear probing: cells are embedded once, and the linear layer is trained on these embeddings. "lora" and
    "full" continue from there (linear probing, then fine-tuning: arXiv 2202.10054), so that the first steps do not distort the
    pretrained features; they keep the probe if no epoch is better on the validation cells.

    Parameters
    ----------
    network, linear
        Encoder and classifier, trained in place.
    tokens, codes, split, mode, config
        See :func:`fit_classifier`.
    train
        Trains one stage.
    """
    n_labels, held = linear.out_features, split.validation
    weights = label_weights(codes[split.train], n_labels, balance=config.balance)
    # a given learning rate or number of epochs applies to the requested mode
    probing = config if mode == "linear" else config.replace(learning_rate=None, max_epochs=None)

    def module(name: Mode, schedule: FinetuneConfig) -> FinetuneModule:
        return FinetuneModule(
            linear,
            schedule,
            learning_rate=schedule.rate(name),
            network=None if name == "linear" else network,
            label_weights=weights,
        )

    features = encode(network, tokens)
    train(
        Stage("linear", module("linear", probing), features, probing.epochs("linear"), floor=None)
    )
    embedded = features[held]
    if mode != "linear":
        scores = validation_scores(head_of(linear), embedded, codes[held])
        if mode == "lora":
            add_lora(network, rank=config.lora_rank, alpha=config.lora_alpha)
        freeze_heads(network)
        floor = (scores[config.monitor], scores["loss"])
        try:
            train(Stage(mode, module(mode, config), tokens, config.epochs(mode), floor))
        finally:
            merge_lora(network)
        embedded = encode(network.eval(), tokens.take(held))
    correct = np.arange(n_labels) == codes[held][:, None]
    head = head_of(linear).calibrated(embedded, correct)
    return Validated(head, validation_scores(head, embedded, codes[held]))


def _train(
    stage: Stage, data: FinetuneData, *, config: FinetuneConfig, options: Mapping[str, Any]
) -> BestEpoch:
    best = BestEpoch(config.monitor, stage.floor)
    stop = L.pytorch.callbacks.EarlyStopping(
        f"validation_{config.monitor}",
        mode="min" if config.monitor == "loss" else "max",
        patience=config.patience,
        strict=False,  # validation may be disabled in trainer_kwargs
    )
    half = config.precision == "bfloat16" and stage.name != "linear"
    trainer = L.Trainer(
        **{
            **QUIET_OPTIONS,
            "num_sanity_val_steps": 0,
            **options,
            "max_epochs": stage.n_epochs,
            "precision": "bf16-mixed" if half else "32-true",
            "gradient_clip_val": config.gradient_clip,
            "callbacks": [best, stop, *as_callbacks(options.get("callbacks"))],
        }
    )
    trainer.fit(stage.module, datamodule=data)
    return best


def freeze_heads(network: ScCelloModel) -> None:
    """Freeze the heads and prototypes of pretraining, which the classifier does not use."""
    for name, parameter in network.named_parameters():
        if not name.startswith("encoder."):
            parameter.requires_grad = False


def head_of(linear: nn.Linear) -> LinearHead:
    """Return the weights of a torch layer in float32."""
    weight, bias = (value.detach().cpu().numpy() for value in (linear.weight, linear.bias))
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def label_weights(codes: NDArray[np.intp], n_labels: int, *, balance: float) -> torch.Tensor:
    """Return label weights, (n_labels,), with a mean of 1 over the cells; see ``FinetuneConfig.balance``."""
    counts = np.bincount(codes, minlength=n_labels)
    weights = np.maximum(counts, 1.0) ** -balance
    return torch.from_numpy(weights / (weights * counts).sum() * counts.sum())


def validation_scores(
    head: LinearHead, features: NDArray[np.float32], codes: NDArray[np.intp]
) -> dict[str, float]:
    """Return accuracy, macro_f1, loss (cross-entropy) and n_cells for (n_cells, d) embeddings."""
    probs = head.probabilities(features)
    predicted = probs.argmax(axis=1)
    n_labels = probs.shape[1]
    confusion = np.bincount(codes * n_labels + predicted, minlength=n_labels**2)
    of_truth = np.maximum(probs[np.arange(len(codes)), codes], 1e-12)
    return {
        "accuracy": float((predicted == codes).mean()),
        "macro_f1": float(macro_f1(torch.from_numpy(confusion.reshape(n_labels, n_labels)))),
        "loss": float(-np.log(of_truth).mean()),
        "n_cells": float(len(codes)),
    }
