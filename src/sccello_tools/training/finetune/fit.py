"""One call from labelled tokens to a classifier, and to the encoder under it."""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch import nn

from sccello_tools.annotation.head import LinearHead
from sccello_tools.engine import encode
from sccello_tools.errors import ConfigError

from .callbacks import BestEpoch
from .config import check_mode
from .data import FinetuneData
from .lora import add_lora, merge_lora
from .module import FinetuneModule, macro_f1

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.tokens import RaggedTokens

    from .config import FinetuneConfig, Mode
    from .split import Split

# What the configuration decides, and a trainer may not decide otherwise.
_DECIDED = ("max_epochs", "max_steps", "precision", "gradient_clip_val", "accumulate_grad_batches")
# The linear layer of hundreds of labels and some epochs of an encoder need no second device, and one process writes one folder.
_ONE_DEVICE = ("accelerator", "devices", "num_nodes", "strategy")


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What a fine-tuning run leaves."""

    network: ScCelloModel
    """The encoder, in evaluation mode: the given one with mode "linear", else a changed copy."""
    head: LinearHead
    """The classifier, its temperature measured on the held-out cells."""
    curve: pd.DataFrame
    """Scores by stage and epoch."""
    scores: dict[str, float]
    """On the held-out cells: accuracy, macro_f1, loss, n_cells."""


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
    """Train a classifier on cells, and with it the encoder if the mode says so.

    Every mode begins with linear probing: cells are embedded once, and a linear layer learns on these rows. "lora" and "full" go on
    from there (linear probing, then fine-tuning: arXiv 2202.10054), so that the first steps do not distort what the encoder knows;
    they keep the probe if nothing that follows is better on the held-out cells. The global state of random number generators is
    left as it was.

    Parameters
    ----------
    network
        The pretrained model; never changed.
    tokens
        Tokens of the cells; none of them empty.
    codes
        (n_cells,) label of each cell, from 0.
    split
        Which cells train and which are held out.
    mode
        "linear", "lora" or "full".
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
        If ``mode`` is unknown or ``trainer_kwargs`` hold what ``config`` or the model's device decides.
    TrainingError
        If the loss is no longer a number.
    """
    check_mode(mode)
    options = dict(trainer_kwargs or {})
    if decided := sorted(set(options) & set(_DECIDED)):
        msg = f"trainer_kwargs holds {decided}, which FinetuneConfig decides. Set max_epochs, precision, gradient_clip or batch_cells there."
        raise ConfigError(msg)
    if several := sorted(set(options) & set(_ONE_DEVICE)):
        msg = f"trainer_kwargs holds {several}, but fine-tuning runs on the device of its model. Load the model there: models.load(..., device='cuda:1')."
        raise ConfigError(msg)
    n_labels = int(codes.max()) + 1
    weights = label_weights(codes[split.train], n_labels, balance=config.balance)

    device = next(network.parameters()).device
    options["accelerator"] = {"cuda": "gpu"}.get(device.type, device.type)
    options["devices"] = 1 if device.index is None or device.type == "cpu" else [device.index]
    # a rate or a number of epochs that was given is meant for the mode that was asked for
    probing = config if mode == "linear" else replace(config, learning_rate=None, max_epochs=None)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), _lightning_quiet():
        torch.manual_seed(config.seed)
        features = encode(network, tokens)
        linear = nn.Linear(network.config.hidden_size, n_labels)
        probe = _train(
            FinetuneModule(
                linear,
                config,
                learning_rate=probing.rate("linear"),
                network=None,
                label_weights=weights,
            ),
            FinetuneData(features, codes, split, batch_cells=config.batch_cells, seed=config.seed),
            n_epochs=probing.epochs("linear"),
            config=config,
            options=options,
        )
        curve = probe.table().assign(stage="linear")
        if mode != "linear":
            scores = held_out_scores(
                head_of(linear), features[split.held_out], codes[split.held_out]
            )
            network = copy.deepcopy(network)
            if mode == "lora":
                add_lora(network, rank=config.lora_rank, alpha=config.lora_alpha)
            freeze_heads(network)
            tuned = _train(
                FinetuneModule(
                    linear,
                    config,
                    learning_rate=config.rate(mode),
                    network=network,
                    label_weights=weights,
                ),
                FinetuneData(
                    tokens, codes, split, batch_cells=config.batch_cells, seed=config.seed
                ),
                n_epochs=config.epochs(mode),
                config=config,
                options=options,
                floor=(scores[config.monitor], scores["loss"]),
            )
            merge_lora(network.to(device))
            curve = pd.concat([curve, tuned.table().assign(stage=mode)], ignore_index=True)
    network = network.eval()
    held_out = (
        features[split.held_out]
        if mode == "linear"
        else encode(network, tokens.take(split.held_out))
    )
    head = head_of(linear)
    right = np.arange(n_labels) == codes[split.held_out][:, None]
    head = head.calibrated(held_out, right)
    return FinetuneResult(
        network, head, curve, held_out_scores(head, held_out, codes[split.held_out])
    )


def _train(
    module: FinetuneModule,
    data: FinetuneData,
    *,
    n_epochs: int,
    config: FinetuneConfig,
    options: Mapping[str, Any],
    floor: tuple[float, float] | None = None,
) -> BestEpoch:
    best = BestEpoch(config.monitor, floor)
    stop = L.pytorch.callbacks.EarlyStopping(
        f"validation_{config.monitor}",
        mode="min" if config.monitor == "loss" else "max",
        patience=config.patience,
    )
    given = options.get("callbacks") or []
    callbacks = [best, stop, *([given] if isinstance(given, L.Callback) else given)]
    half = config.precision == "bfloat16" and module.network is not None
    trainer = L.Trainer(
        **{
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            **options,
            "max_epochs": n_epochs,
            "precision": "bf16-mixed" if half else "32-true",
            "gradient_clip_val": config.gradient_clip,
            "callbacks": callbacks,
        }
    )
    trainer.fit(module, datamodule=data)
    module.cpu()
    return best


def freeze_heads(network: ScCelloModel) -> None:
    """Freeze what the classifier does not read: the heads and prototypes of pretraining."""
    for part in (
        network.cls,
        network.cell_cls,
        network.learned_centroid,
        network.affine_projection,
        network.binary_ce_loss_transform_cell,
        network.binary_ce_loss_transform_prototype,
        network.binary_ce_loss_transform_cellprot,
    ):
        part.requires_grad_(requires_grad=False)


def head_of(linear: nn.Linear) -> LinearHead:
    """Take the weights out of a layer of torch, in float32."""
    weight, bias = (value.detach().cpu().numpy() for value in (linear.weight, linear.bias))
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def label_weights(codes: NDArray[np.intp], n_labels: int, *, balance: float) -> torch.Tensor:
    """Weigh labels, (n_labels,), with a mean of 1 over the cells; see ``FinetuneConfig.balance``."""
    counts = np.bincount(codes, minlength=n_labels)
    weights = np.maximum(counts, 1.0) ** -balance
    return torch.from_numpy(weights / (weights * counts).sum() * counts.sum())


def held_out_scores(
    head: LinearHead, features: NDArray[np.float32], codes: NDArray[np.intp]
) -> dict[str, float]:
    """Accuracy, macro_f1 and loss (cross-entropy) of (n_cells, d) rows, and n_cells."""
    chances = head.probabilities(features)
    found = chances.argmax(axis=1)
    n_labels = chances.shape[1]
    confusion = np.bincount(codes * n_labels + found, minlength=n_labels**2)
    of_truth = np.maximum(chances[np.arange(len(codes)), codes], 1e-12)
    return {
        "accuracy": float((found == codes).mean()),
        "macro_f1": float(macro_f1(torch.from_numpy(confusion.reshape(n_labels, n_labels)))),
        "loss": float(-np.log(of_truth).mean()),
        "n_cells": float(len(codes)),
    }


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
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
